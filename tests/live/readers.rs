//! The formats of other tools, read by those tools. Guests have none of them.

mod native_only {
    use std::io::Write as _;
    use std::path::{Path, PathBuf};
    use std::process::{Command, Output, Stdio};

    use vmaudit_tests::{Done, Session};

    const FILES: [&str; 7] =
        ["r.csv", "r.prom", "r.xml", "r.tap", "r.folded", "github:annotations", "markdown:summary.md"];

    /// A session at the limit with budgets that break and one that holds, in every format.
    fn session() -> (Done, PathBuf) {
        let budgets = "[[budget]]\nprocess = \"*\"\nmax_peak = 100\nreason = \"<&> \\\"x\\\"\"\n";
        let session = Session::vmaudit(&["run", "--fail-on", "failure,killed", "--budget"]);
        let file = session.file("budgets.toml");
        std::fs::write(&file, budgets).unwrap();
        let mut session = session.words(std::slice::from_ref(&file));
        for name in FILES {
            let (format, name) = name.rsplit_once(':').map_or(("", name), |(format, name)| (format, name));
            let path = session.file(name).to_str().expect("a plain path").to_owned();
            let asked = if format.is_empty() { path } else { format!("{format}:{path}") };
            session = session.words(&["-o", &asked]);
        }
        let done = session.words(&["--"]).then_workload(&["stackoverflow"]).go().ended_with(86);
        let folder = file.parent().expect("it lies in a folder").to_owned();
        (done, folder)
    }

    fn read(words: &[&str], input: &str) -> Output {
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child =
            command.spawn().unwrap_or_else(|e| panic!("{} is needed for this test: {e}", words[0]));
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    fn text(folder: &Path, name: &str) -> String {
        std::fs::read_to_string(folder.join(name)).unwrap()
    }

    /// Python's own parsers, and what they find is what the session was.
    #[test]
    fn python_reads_junit_and_csv() {
        let (_done, folder) = session();
        let program = "import sys, xml.etree.ElementTree as t\nr = t.fromstring(sys.stdin.read())\n\
            cases = list(r.iter('testcase'))\nbad = [c for c in cases if c.find('failure') is not None]\n\
            assert (int(r.get('tests')), int(r.get('failures'))) == (len(cases), len(bad)) == (3, 2), r.attrib\n\
            assert any('<&> \"x\"' in c.find('failure').text for c in bad), 'the reason'\n";
        let answer = read(&["python3", "-c", program], &text(&folder, "r.xml"));
        assert!(answer.status.success(), "{answer:?}");
        let program = "import sys, csv\nrows = list(csv.DictReader(sys.stdin))\n\
            assert None not in rows[0] and None not in rows[0].values(), rows[0]\n\
            assert rows[0]['comm'] == 'workload' and rows[0]['clipped'] == 'true' and int(rows[0]['failed']) > 0\n";
        let answer = read(&["python3", "-c", program], &text(&folder, "r.csv"));
        assert!(answer.status.success(), "{answer:?}");
    }

    /// Perl's harness.
    #[test]
    fn prove_reads_tap() {
        let (_done, folder) = session();
        let file = folder.join("r.tap");
        let answer = read(&["prove", "-v", "--exec", "cat", file.to_str().unwrap()], "");
        let said = String::from_utf8_lossy(&answer.stdout).into_owned();
        assert!(said.contains("Failed 2/3 subtests") && !said.contains("Parse errors"), "{said}");
    }

    /// flamegraph.pl takes what is before the last blank for the stack, and what is behind it for a number.
    #[test]
    fn folded_lines_end_with_their_number() {
        let (done, folder) = session();
        let mut sum = 0;
        for line in text(&folder, "r.folded").lines() {
            let (stack, count) = line.rsplit_once(' ').expect("a number");
            assert!(stack.starts_with("workload;") && stack.ends_with(";munmap"), "{line}");
            sum += count.parse::<u64>().expect("a number");
        }
        let own = Session::run(&[], &["stackoverflow"]).go().succeeded().report();
        assert_eq!(sum, own.failures.iter().map(|failure| failure.count).sum::<u64>(), "{}", done.said());
    }

    /// A step of GitHub Actions: no more annotations than are shown, and a summary that is not dropped for its size.
    #[test]
    fn annotations_are_commands_and_the_summary_is_small() {
        let (_done, folder) = session();
        let annotations = text(&folder, "annotations");
        assert!(annotations.lines().count() <= 11 && annotations.lines().all(|line| line.starts_with("::")));
        assert!(annotations.starts_with("::error title=vmaudit%3A budget broken"), "{annotations}");
        assert!(text(&folder, "summary.md").len() < 1 << 20);
    }

    /// `cargo xtask test` leaves these out where the program is missing, and says so.
    mod with_pytest {
        use super::*;

        /// One test of three is refused calls without a word; it is the one that is named.
        #[test]
        fn the_pytest_plugin_tells_tests_apart() {
            let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
            let plugin = root.join("vmaudit-user/contrib/pytest-vmaudit");
            let run = |options: &[&str]| {
                let session = Session::vmaudit(&["run", "--fail-on", "failure", "-o"]);
                let (json, xml) = (session.file("r.json"), session.file("r.xml"));
                let session = session.words(&[&json]).words(&["-o"]).words(&[&xml]);
                let session =
                    session.words(&["--", "/usr/bin/python3", "-m", "pytest", "-q", "-p", "pytest_vmaudit"]);
                let session = session.words(&["-p", "no:cacheprovider"]).words(options);
                let session = session.words(&[root.join("tests/examples/test_vma.py")]);
                let session =
                    session.env("PYTHONPATH", plugin.to_str().unwrap()).env("PYTHONDONTWRITEBYTECODE", "1");
                let done = session.go().ended_with(86);
                let report: vmaudit_user::model::report::Report =
                    serde_json::from_str(&std::fs::read_to_string(json).unwrap()).unwrap();
                (done, report, std::fs::read_to_string(xml).unwrap())
            };
            let (_done, report, xml) = run(&["--vmaudit"]);
            let tasks = &report.processes.iter().max_by_key(|it| it.map_count.peak).unwrap().tasks;
            let of = |name: &str| {
                tasks
                    .iter()
                    .find(|it| it.name.as_deref() == Some(name))
                    .unwrap_or_else(|| panic!("{tasks:?}"))
            };
            assert!(of("silent_failure").failed > Some(1000), "{tasks:?}");
            assert_eq!((of("cache_growth").failed, of("small").failed), (Some(0), Some(0)));
            assert!(of("cache_growth").added >= Some(9000) && of("small").added < Some(1000), "{tasks:?}");
            let failed: Vec<&str> =
                xml.lines().filter(|line| line.contains("<testcase") && !line.ends_with("/>")).collect();
            assert_eq!(failed.len(), 2, "the budget and the one test: {xml}");
            assert!(failed[1].contains("task silent_failure in"), "{xml}");
            // Off by default.
            let (_done, report, _) = run(&[]);
            assert!(
                report
                    .processes
                    .iter()
                    .all(|it| it.tasks.iter().all(|task| task.name.as_deref() != Some("small")))
            );
        }
    }

    /// Likewise.
    mod with_prometheus {
        use super::*;

        #[test]
        fn promtool_reads_prom() {
            let (_done, folder) = session();
            let answer = read(&["promtool", "check", "metrics"], &text(&folder, "r.prom"));
            assert!(answer.status.success() && answer.stderr.is_empty(), "{answer:?}");
        }
    }
}
