//! What the commands write is what the schemas in the tree promise.

use serde_json::{Value, json};
use vmaudit_tests::session::{each, until_sampled};
use vmaudit_tests::{LowerLimit, Session};

const REPORT: &str = include_str!("../../vmaudit-user/schema/report.schema.json");
const SCAN: &str = include_str!("../../vmaudit-user/schema/scan.schema.json");
const EXPLAIN: &str = include_str!("../../vmaudit-user/schema/explain.schema.json");
const LIMIT: &str = include_str!("../../vmaudit-user/schema/limit.schema.json");

/// A field that no schema names is not promised either: every object that says what it has has nothing else.
fn closed(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            if map.contains_key("properties") {
                map.entry("additionalProperties").or_insert(json!(false));
            }
            map.values_mut().for_each(closed);
        }
        Value::Array(all) => all.iter_mut().for_each(closed),
        _ => {}
    }
}

fn wrong(schema: &str, document: &Value) -> Vec<String> {
    let mut schema: Value = serde_json::from_str(schema).expect("the schema is JSON");
    closed(&mut schema);
    let validator = jsonschema::draft202012::new(&schema).expect("the schema is one");
    validator.iter_errors(document).map(|error| format!("{}: {error}", error.instance_path())).collect()
}

#[track_caller]
fn assert_valid(schema: &str, document: &Value) {
    assert_eq!(wrong(schema, document), [""; 0], "in {document}");
    // It would have been noticed.
    let mut other = document.clone();
    other["no such field"] = json!(1);
    assert_eq!(wrong(schema, &other).len(), 1);
    let mut other = document.clone();
    other["version"] = json!("one");
    assert_eq!(wrong(schema, &other).len(), 1);
}

fn parsed(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(bytes)))
}

#[test]
fn reports_are_as_promised() {
    let _limit = LowerLimit::new();
    let clean = Session::run(&["--show-args"], &["burst", "10"]).go().succeeded();
    let at_limit = Session::run(&["--fail-on", "failure"], &["limit", "munmap"]).go().ended_with(86);
    let others = Session::run(&[], &each(&["causes rlimit-as", "exit 0"])).go();
    let cannot_be_read = Session::run(&["--peaks-only"], &["exit", "3"]).go().ended_with(3);
    let sampled = until_sampled(|| Session::run(&["--source", "proc"], &["attach", "20"]).start_with_pipe());
    let crowd = Session::run_as_usual(&[], &["children", "1200"]).go().succeeded();
    for (done, what) in
        [(&clean, 0), (&at_limit, 1), (&others, 0), (&cannot_be_read, 0), (&sampled, 0), (&crowd, 2)]
    {
        let report = parsed(done.read("report.json").as_bytes());
        assert_valid(REPORT, &report);
        let some = |name: &str| report[name].as_array().is_some_and(|rows| !rows.is_empty());
        assert!(what != 1 || some("failures"), "{report}");
        assert!(what != 2 || some("folded"), "{report}");
    }
}

#[test]
fn scans_explanations_and_limits_are_as_promised() {
    let mut running = Session::workload(&["attach", "300"]).start_with_pipe();
    running.wait_for_stdout("standing");
    let pid = running.pid().to_string();
    let maps = format!("/proc/{pid}/maps");
    for (schema, words) in [
        (SCAN, &["scan"][..]),
        (SCAN, &["scan", "-p", &pid, "--show-args", "--vma", "200000"]),
        (SCAN, &["scan", "--source", "proc", "-p", &pid]),
        (EXPLAIN, &["explain", &pid, "--details", "always"]),
        (EXPLAIN, &["explain", "--maps", &maps]),
        (LIMIT, &["limit"]),
        (LIMIT, &["limit", "--for", "elasticsearch"]),
    ] {
        let done = Session::vmaudit(words).words(&["--format", "json"]).go().succeeded();
        assert_valid(schema, &parsed(&done.stdout));
    }
}
