use super::lodgers::state;
use super::*;
use crate::model::loss::LossReason;
use crate::model::report::TaskFigures;
use crate::model::task_names::{TaskName, TaskNames};
use crate::model::test::{TestOf, WithoutTest};

fn name(name: &str, added: u64, peak: u32) -> TaskName {
    TaskName { name: name.into(), added, removed: 1, failed: 2, peak, overlapped: false }
}

fn image(generation: u64, names: Vec<TaskName>) -> MmState {
    MmState { tasks: Some(Box::new(TaskNames { names, ..TaskNames::default() })), ..state(generation, 7, 0) }
}

fn told(images: Vec<MmState>) -> Vec<TaskFigures> {
    let mut audit = audit();
    for image in images {
        audit.apply(Event::Mm(Box::new(image)));
    }
    audit.rows().processes[0].tasks.clone()
}

#[test]
fn names_of_all_images_are_added_up_those_that_did_most_first() {
    let overlapped = TaskName { overlapped: true, ..name("b", 5, 40) };
    let tasks = told(vec![image(1, vec![name("a", 3, 30), overlapped]), image(2, vec![name("a", 9, 20)])]);
    let seen: Vec<_> =
        tasks.iter().map(|it| (it.name.as_deref(), it.added, it.removed, it.failed, it.peak)).collect();
    assert_eq!(
        seen,
        [(Some("a"), Some(12), Some(2), Some(4), Some(30)), (Some("b"), Some(5), Some(1), Some(2), None)]
    );
}

#[test]
fn what_was_sampled_beside_others_is_nobodys() {
    let mut sampled = image(1, vec![name("a", 3, 30)]);
    sampled.tasks.as_mut().unwrap().sampled = true;
    let tasks = told(vec![sampled]);
    assert_eq!(
        (tasks[0].added, tasks[0].removed, tasks[0].peak, tasks[0].failed),
        (None, None, None, Some(2))
    );
}

#[test]
fn any_number_of_names_and_images_is_bounded_and_none_is_lost() {
    let of = |generation: u64| (0..100).map(|n| name(&format!("{generation}-{n}"), 1, 1)).collect();
    let images = 2 * MAX_IMAGES as u64;
    let tasks = told((0..images).map(|n| image(n + 1, of(n))).collect());
    assert_eq!(tasks.len(), crate::domain::task_names::NAMES + 1);
    assert_eq!(tasks.last().unwrap().name, None);
    assert_eq!(tasks.iter().filter_map(|it| it.added).sum::<u64>(), 100 * images);
}

#[test]
fn tasks_of_processes_without_rows_are_added_up_by_name_and_bounded() {
    let one = |n: u64| told(vec![image(1, vec![name("a", 3, 30 + n as u32), name(&format!("t{n}"), 1, 5)])]);
    let mut sum = Vec::new();
    for n in 0..100 {
        crate::domain::audit::task_names::add_all(&mut sum, one(n));
    }
    assert!(sum.len() <= 17, "{}", sum.len());
    assert_eq!((sum[0].name.as_deref(), sum[0].added, sum[0].peak), (Some("a"), Some(300), Some(129)));
    assert_eq!(sum.iter().filter_map(|it| it.added).sum::<u64>(), 400);
    assert_eq!(sum.iter().filter(|it| it.name.is_none()).count(), 1);
}

/// Of a process that is only mentioned nothing is added up but this.
#[test]
fn who_is_forgotten_unasked_has_a_test_that_nobody_knows() {
    let mut audit = audit();
    let [asked, named, neither] = [1, 2, 3].map(|tgid| ProcessId { tgid, start_ns: 1 });
    for process in [asked, named, neither] {
        let (exe, cgroup, within) = (Some("/bin/a".into()), None, Within::default());
        audit.apply(Event::Process(ProcessFacts { process, at_ns: 1, exe, cgroup, within }));
    }
    for it in [
        TestOf::without(asked, WithoutTest::Unknown),
        TestOf::named(named, "t".into()),
        TestOf::without(named, WithoutTest::Unknown),
    ] {
        audit.apply(Event::Test(Box::new(it)));
    }
    audit.fold(&[asked, named, neither].into());
    assert_eq!((audit.processes.len(), audit.tests_unknown()), (0, 1));
}

/// One that has a name may be asked again at its next image, when it is gone.
#[test]
fn who_has_a_test_is_none_whose_test_is_unknown() {
    let tell = |audit: &mut Audit, it: TestOf| audit.apply(Event::Test(Box::new(it)));
    let unknown = |process: ProcessId| TestOf::without(process, WithoutTest::Unknown);
    let count = |audit: &Audit| audit.rows().lost[&LossReason::TestUnknown];
    let mut audit = audit();
    audit.apply(Event::Mm(Box::new(image(1, Vec::new()))));
    let id = *audit.processes.keys().next().unwrap();
    tell(&mut audit, TestOf::without(id, WithoutTest::None));
    assert_eq!(count(&audit), 0);
    tell(&mut audit, unknown(id));
    tell(&mut audit, unknown(id));
    assert_eq!(count(&audit), 1, "one process");
    tell(&mut audit, TestOf::named(id, "t".into()));
    tell(&mut audit, unknown(id));
    assert_eq!(count(&audit), 0);
    // Of those that have no row any more it stays.
    tell(&mut audit, unknown(ProcessId { tgid: 9, start_ns: 9 }));
    assert_eq!(count(&audit), 1);
    audit.processes.get_mut(&id).unwrap().test = None;
    audit.remove(id, false);
    assert_eq!(count(&audit), 2);
}
