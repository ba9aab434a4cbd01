//! Which test a process belongs to, as its runner tells without knowing of vmaudit: cargo-nextest by the environment of
//! each test's process, which its children have too; `go test` by the program, one for each package, and where it runs.

use crate::text::shorten;

/// Longest name kept, bytes.
const MOST: usize = 512;
/// What cargo-nextest sets for each test: the test binary, and the test (since 0.9.116 or so).
const OF_NEXTEST: [&str; 2] = ["NEXTEST_BINARY_ID", "NEXTEST_TEST_NAME"];
/// Programs that run tests in processes of their own and tell so.
const RUNNERS: [&str; 2] = ["cargo-nextest", "go"];

/// The program of this path runs tests.
pub fn is_runner(path: &str) -> bool {
    RUNNERS.contains(&program(path))
}

/// The test that a process belongs to which has begun with this environment, from the program of this path in this
/// folder. `None` where neither tells.
pub fn test_of(environment: &[u8], path: &str, folder: Option<&str>) -> Option<String> {
    let name = of_nextest(environment).or_else(|| {
        let program = Some(program(path)).filter(|program| of_go(program))?;
        Some(format!("{program} in {}", folder?))
    });
    name.map(shortened)
}

/// The value of a variable, where it is set and not empty.
pub fn variable(environment: &[u8], name: &str) -> Option<String> {
    environment
        .split(|&b| b == 0)
        .find_map(|line| line.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
        .map(|value| String::from_utf8_lossy(value).into_owned())
        .filter(|value| !value.is_empty())
}

/// `go test` links a program for each package, named after it.
pub fn of_go(program: &str) -> bool {
    program.ends_with(".test") && program.len() > ".test".len()
}

/// The last name of a path.
pub fn program(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}

/// `binary name`, of the variables of an environment.
fn of_nextest(environment: &[u8]) -> Option<String> {
    let [binary, test] = OF_NEXTEST.map(|name| variable(environment, name));
    let test = test?;
    Some(binary.map_or_else(|| test.clone(), |binary| format!("{binary} {test}")))
}

fn shortened(mut name: String) -> String {
    shorten(&mut name, MOST);
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_is_named_by_the_variables_that_its_runner_sets() {
        let environment = b"A=1\0NEXTEST_TEST_NAME=mod::leaks\0NEXTEST_BINARY_ID=pkg::it\0";
        let of = |environment| test_of(environment, "/t/it-0123", None);
        assert_eq!(of(environment).as_deref(), Some("pkg::it mod::leaks"));
        assert_eq!(of(b"NEXTEST_TEST_NAME=x\0").as_deref(), Some("x"));
        for none in [&b""[..], b"NEXTEST_TEST_NAME=\0", b"XNEXTEST_TEST_NAME=x\0", b"NEXTEST_BINARY_ID=a\0"] {
            assert_eq!(of(none), None);
        }
        assert_eq!(shortened("ß".repeat(400)).len(), MOST);
    }

    #[test]
    fn programs_of_go_test_end_so() {
        let of = |path| test_of(b"A=1\0", path, Some("/src/a"));
        assert_eq!(of("/tmp/b001/a.test").as_deref(), Some("a.test in /src/a"));
        assert!([".test", "/t/test", "a.test.sh"].iter().all(|path| of(path).is_none()));
        assert_eq!(test_of(b"A=1\0", "a.test", None), None);
        assert!(is_runner("/usr/lib/go-1.24/bin/go") && is_runner("cargo-nextest") && !is_runner("/x/gofmt"));
    }
}
