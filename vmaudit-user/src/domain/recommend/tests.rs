use crate::domain::recommend::*;
use crate::model::cause::because;
use crate::model::limit::KERNEL_LARGEST;

fn failed(cause: Cause, count: u64) -> Failed {
    let limit_excluded = !matches!(cause, Cause::MaxMapCount | Cause::Unknown);
    Failed { cause, reason: because(cause), count, limit_excluded }
}

fn measured(peak: u64, current: u64) -> Measured {
    Measured {
        peak: Some(peak),
        exact: true,
        who: Some(("java".into(), 42)),
        current: Some(current),
        ..Measured::default()
    }
}

#[test]
fn the_arithmetic_is_that_of_the_python_tool() {
    let margin = Margin::default();
    for (peak, limit) in [
        (0, 65530),
        (1204, 65530),
        (40000, 65530),
        (43686, 65530),
        (43687, 70000),
        (65530, 100000),
        (66667, 110000),
    ] {
        assert_eq!(margin.limit_for(peak), limit, "{peak}");
    }
    assert_eq!(Margin::new(1.5, 1).unwrap().limit_for(43688), 65536);
    assert_eq!(Margin::new(1.2, 1).unwrap().limit_for(54609), 65536);
    assert_eq!(Margin::new(1e300, 1).unwrap().limit_for(u64::MAX), KERNEL_LARGEST);
}

#[test]
fn margins_that_leave_no_room_are_refused() {
    assert_eq!(Margin::new(1.19, 10000), Err(MarginError::Headroom(1.19)));
    assert!(Margin::new(f64::NAN, 10000).is_err());
    assert_eq!(Margin::new(1.5, 0), Err(MarginError::Round));
    assert!(Margin::new(1.2, 1).is_ok());
    assert_eq!(MarginError::Headroom(1.0).to_string(), "headroom 1 is refused: it must be 1.2 or more");
}

/// Beside "raising only delays", "leave it" would be other advice.
#[test]
fn enough_room_for_now_is_not_what_to_leave_it_at() {
    for exact in [true, false] {
        let advice = recommend(&Measured { grows: true, exact, ..measured(1204, 65530) });
        assert!(!advice.sentences.iter().any(|it| it.contains("Leave")), "{advice:?}");
        assert_ne!(advice.action, Action::Leave);
        assert_eq!((advice.value, advice.commands.len()), (None, 0));
    }
    // Where there is no room as it is, that is said as before.
    let tight = recommend(&Measured { grows: true, ..measured(60_000, 65530) });
    assert_eq!((tight.action, tight.value), (Action::Raise, Some(90_000)));
}

#[test]
fn enough_room_means_leave() {
    let advice = recommend(&measured(1204, 65530));
    assert_eq!(advice.action, Action::Leave);
    assert_eq!(advice.value, None);
    assert!(advice.commands.is_empty());
    assert_eq!(
        advice.sentences,
        ["Leave vm.max_map_count at 65,530: java (pid 42) peaked at 1,204 VMAs, 1.8 % of it."]
    );
}

#[test]
fn little_room_means_raise() {
    let advice = recommend(&measured(60000, 65530));
    assert_eq!((advice.action, advice.value), (Action::Raise, Some(90000)));
    assert_eq!(
        advice.commands,
        ["sudo vmaudit limit --apply 90000", "sudo sysctl -w vm.max_map_count=90000"]
    );
    let root = recommend(&Measured { root: true, ..measured(60000, 65530) });
    assert_eq!(root.commands, ["vmaudit limit --apply 90000", "sysctl -w vm.max_map_count=90000"]);
    assert_eq!(
        advice.sentences[1],
        "Its price: a process that uses all of them holds 25.7 MiB of kernel memory that cannot be \
         swapped (300 B per VMA, a safe estimate)."
    );
}

#[test]
fn a_clipped_peak_means_raise_and_run_again() {
    let advice = recommend(&Measured {
        clipped: true,
        vma_bytes: Some(231.4),
        failures: vec![failed(Cause::MaxMapCount, 23), failed(Cause::RlimitAs, 2)],
        ..measured(65530, 65530)
    });
    assert_eq!((advice.action, advice.value), (Action::RaiseAndRerun, Some(100000)));
    assert_eq!(advice.basis.map(|basis| basis.clipped), Some(true));
    assert!(advice.sentences[0].contains("demand is not known yet"));
    assert!(advice.sentences[1].contains("231 B per VMA, by this kernel's slab figures"));
    assert!(advice.sentences[3].starts_with("Raising vm.max_map_count will not help 2 failed calls"));
}

#[test]
fn a_limit_raised_meanwhile_is_not_lowered() {
    let advice = recommend(&Measured { clipped: true, ..measured(65530, 262144) });
    assert_eq!(advice.value, Some(400000));
}

#[test]
fn nothing_is_above_the_kernels_largest() {
    let advice = recommend(&Measured { clipped: true, ..measured(KERNEL_LARGEST, KERNEL_LARGEST) });
    assert_eq!((advice.action, advice.value), (Action::WillNotHelp, None));
    let advice = recommend(&Measured { clipped: true, ..measured(2_000_000_000, 2_000_000_000) });
    assert_eq!(advice.value, Some(KERNEL_LARGEST));
    assert!(advice.sentences.iter().any(|s| s == "2,147,483,647 is the largest value the kernel accepts."));
}

#[test]
fn another_cause_means_that_raising_will_not_help() {
    let advice = recommend(&Measured {
        failures: vec![failed(Cause::RlimitAs, 3), failed(Cause::Overcommit, 1), failed(Cause::RlimitAs, 2)],
        ..measured(1204, 65530)
    });
    assert_eq!((advice.action, advice.value), (Action::WillNotHelp, None));
    assert_eq!(
        advice.sentences[0],
        "Raising vm.max_map_count will not help 6 failed calls, because the reason is another: 5 x \
         the address space limit RLIMIT_AS, 1 x overcommit accounting (vm.overcommit_memory)."
    );
}

#[test]
fn an_unknown_limit_gets_a_value_and_no_command() {
    let advice = recommend(&Measured { current: None, ..measured(60000, 0) });
    assert_eq!((advice.action, advice.value), (Action::Unknown, Some(90000)));
    assert!(advice.commands.is_empty());
}

#[test]
fn nothing_measured_is_said() {
    let advice = recommend(&Measured::default());
    assert_eq!((advice.action, advice.value, advice.basis), (Action::Unknown, None, None));
    assert_eq!(advice.sentences.len(), 1);
}

#[test]
fn unknown_causes_are_said() {
    let advice = recommend(&Measured { failures: vec![failed(Cause::Unknown, 2)], ..measured(1204, 65530) });
    assert_eq!(advice.action, Action::Leave);
    assert_eq!(
        advice.sentences[1],
        "2 calls failed for a reason that could not be told; a higher limit may or may not help."
    );
}

/// What was seen is a lower bound: it can ask for more, and never says that there is enough.
#[test]
fn a_lower_bound_is_no_reason_to_leave_the_limit() {
    let sampled = |peak| Measured { exact: false, sampled: true, ..measured(peak, 65530) };
    let advice = recommend(&sampled(1204));
    assert_eq!((advice.action, advice.value), (Action::Unknown, None));
    assert_eq!(
        advice.sentences[0],
        "Nothing seen asks for more than vm.max_map_count = 65,530: java (pid 42) was seen with 1,204 VMAs, 1.8 % \
         of it."
    );
    assert_eq!(advice.sentences[1], "The peak was sampled, so the true one may be higher.");
    assert_eq!(recommend(&sampled(60000)).action, Action::Raise);
    // Nobody knows what those without a sample had.
    let advice = recommend(&Measured { unseen: 2, ..sampled(60000) });
    assert_eq!((advice.action, advice.value, advice.basis), (Action::Unknown, None, None));
    assert!(advice.sentences[0].starts_with("No sample was taken of 2 processes or more"), "{advice:?}");
    let advice = recommend(&Measured { sampled: false, ..sampled(1204) });
    assert_eq!(advice.action, Action::Unknown);
    assert_eq!(advice.sentences[1], "Not every peak is exact, so the true one may be higher.");
    let advice = recommend(&Measured { failures: vec![failed(Cause::RlimitAs, 1)], ..sampled(1204) });
    assert!(advice.sentences[1].starts_with("Nothing seen asks for more than the limit 65,530 either:"));
}

#[test]
fn a_peak_at_the_limit_without_a_refusal_in_sight_is_not_called_stopped() {
    let advice = recommend(&Measured { clipped: true, ..measured(65530, 65530) });
    assert_eq!((advice.action, advice.value), (Action::RaiseAndRerun, Some(100000)));
    assert!(
        advice.sentences[0].starts_with("java (pid 42) reached the limit with 65,530 VMAs, and whether"),
        "{advice:?}"
    );
}

#[test]
fn an_unknown_cause_may_still_exclude_the_limit() {
    let tasks = Failed { limit_excluded: true, ..failed(Cause::Unknown, 4) };
    let advice = recommend(&Measured { failures: vec![tasks], ..measured(1204, 65530) });
    assert_eq!(advice.action, Action::WillNotHelp);
    assert!(advice.sentences[0].ends_with("the reason is another: 4 x a cause that could not be told."));
}
