//! Several files as one summary: of machines with names of their own, among files that are none.

/// Guests have neither `unshare` nor the readers.
mod native_only {
    use std::path::{Path, PathBuf};
    use std::process::{Command, Output};

    use serde_json::{Value, json};
    use vmaudit_tests::{Scratch, vmaudit, workload};
    use vmaudit_user::model::report::{Outcome, Report};

    /// Of the first version of recordings, which did not tell the machine.
    const OLD: &[u8] = include_bytes!("../../vmaudit-user/src/source/recording/reader/version-1.vma");
    const HOSTILE: &str = "db\u{1b}[2J<b>\u{202e}";

    /// A session on a machine of this name; gives its report, and leaves `NAME.json` and `NAME.vma`.
    fn on(host: &str, folder: &Scratch, name: &str, words: &[&str]) -> Report {
        let file = |ending: &str| folder.path(&format!("{name}.{ending}"));
        let naming = "printf %s \"$0\" > /proc/sys/kernel/hostname && exec \"$@\"";
        let mut command = Command::new("unshare");
        command
            .args(["--uts", "sh", "-c", naming, host])
            .arg(vmaudit())
            .args(["run", "-o"])
            .arg(file("json"));
        command.arg("--record").arg(file("vma")).arg("--").arg(workload()).args(words);
        let done = command.output().expect("unshare is needed for this test");
        assert!(done.status.success(), "{done:?}");
        let report: Report = serde_json::from_slice(&std::fs::read(file("json")).unwrap()).unwrap();
        assert_eq!(report.host.name.as_deref(), Some(host));
        report
    }

    fn summary(files: &[PathBuf], options: &[&str]) -> Output {
        Command::new(vmaudit()).arg("report").args(files).args(options).output().unwrap()
    }

    fn refused(reports: &[&Report]) -> u64 {
        let all = reports.iter().flat_map(|report| &report.failures);
        all.filter(|it| it.outcome == Outcome::Unrecovered).map(|it| it.count).sum()
    }

    fn peak(reports: &[&Report]) -> Option<u64> {
        reports.iter().flat_map(|report| &report.processes).filter_map(|it| it.map_count.peak).max()
    }

    fn row<'v>(rows: &'v Value, key: &str, value: &Value) -> &'v Value {
        let rows = rows.as_array().unwrap();
        rows.iter().find(|row| row[key] == *value).unwrap_or_else(|| panic!("{value}: {rows:?}"))
    }

    fn text(bytes: &[u8]) -> String {
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    fn of(folder: &Scratch, names: &[&str]) -> Vec<PathBuf> {
        names.iter().map(|name| folder.path(name)).collect()
    }

    #[test]
    fn machines_and_applications_are_summed_up_and_bad_files_are_told() {
        let folder = Scratch::new();
        let web = on("web1", &folder, "a", &["stackoverflow"]);
        let later = on("web1", &folder, "b", &["burst", "500"]);
        let db = on(HOSTILE, &folder, "c", &["burst", "3000"]);
        let cut = std::fs::read(folder.path("c.vma")).unwrap();
        std::fs::write(folder.path("cut.vma"), &cut[..cut.len() - 5]).unwrap();
        std::fs::write(folder.path("old.vma"), OLD).unwrap();
        std::fs::write(folder.path("bad.vma"), b"\0nothing of the kind").unwrap();
        std::fs::write(folder.path("half.json"), &std::fs::read(folder.path("b.json")).unwrap()[..300])
            .unwrap();
        let good = of(&folder, &["a.vma", "b.json", "c.json", "old.vma"]);
        let files = [&good[..], &of(&folder, &["bad.vma", "half.json", "missing.vma", "cut.vma"])].concat();

        let answer = summary(&files, &["--format", "json"]);
        assert_eq!(answer.status.code(), Some(1), "{answer:?}");
        let said = text(&answer.stderr);
        assert_eq!(said.lines().count(), 3, "{said}");
        for bad in ["bad.vma", "half.json", "missing.vma"] {
            let line =
                said.lines().find(|line| line.contains(bad)).unwrap_or_else(|| panic!("{bad}: {said}"));
            assert!(line.starts_with("vmaudit: cannot read "), "{line}");
        }
        let fleet: Value = serde_json::from_slice(&answer.stdout).unwrap();
        assert_eq!(fleet["files"].as_array().unwrap().len(), 5, "{fleet}");
        let host = |name: Value| row(&fleet["hosts"], "host", &name);
        let both = host(json!("web1"));
        assert_eq!((&both["files"], &both["peak"]), (&json!(2), &json!(peak(&[&web, &later]))));
        assert_eq!((&both["failed"], &both["app"]), (&json!(refused(&[&web])), &json!("workload")));
        assert_eq!((&both["clipped"], &both["exact"]), (&json!(1), &json!(true)));
        assert!(both["peak_in"].as_str().unwrap().ends_with("a.vma"), "{both}");
        // Its whole report, and its recording without the end.
        let other = host(json!(HOSTILE));
        assert_eq!((&other["files"], &other["peak"]), (&json!(2), &json!(peak(&[&db]))));
        assert_eq!(host(Value::Null)["files"], 1, "nobody told where it was");
        let app = row(&fleet["applications"], "app", &json!("workload"));
        assert_eq!((&app["hosts"], &app["peak"]), (&json!(2), &json!(peak(&[&web, &later, &db]))));
        assert_eq!(app["failed"], both["failed"]);
        assert_eq!(fleet["hosts"][0]["host"], "web1", "what failed comes first");
        let cut = fleet["files"].as_array().unwrap().iter().filter(|file| file["cut"] == true).count();
        assert_eq!(cut, 1, "{fleet}");

        let answer = summary(&good, &[]);
        assert!(answer.status.success() && answer.stderr.is_empty(), "{answer:?}");
        let said = text(&answer.stdout);
        assert!(
            said.contains("\nHOST ") && said.contains("\nweb1 ") && said.contains("\n(not told) "),
            "{said}"
        );
        assert!(said.contains("db\\x1b[2J<b>\\u{202e}") && !said.contains(['\u{1b}', '\u{202e}']), "{said}");
        assert!(said.lines().all(|line| line.chars().count() <= 100), "{said}");
    }

    /// `cargo xtask test` leaves it out where the module is missing, and says so.
    mod with_duckdb {
        use super::*;

        fn python(program: &str, words: &[&str], folder: &Path) -> Output {
            Command::new("python3").args(["-c", program]).args(words).current_dir(folder).output().unwrap()
        }

        /// The README's recipe gives what `vmaudit report` does, on the reports of two machines.
        #[test]
        fn the_recipe_for_duckdb_reads_reports() {
            let folder = Scratch::new();
            let web = on("web1", &folder, "a", &["stackoverflow"]);
            let later = on("web1", &folder, "b", &["burst", "500"]);
            let db = on("db2", &folder, "c", &["burst", "3000"]);
            let readme = include_str!("../../README.md");
            let (_, recipe) = readme.split_once("duckdb -c \"").expect("the recipe");
            let (recipe, _) = recipe.split_once('"').expect("its end");
            let program = "import duckdb, json, sys\n\
                rows = duckdb.sql(sys.argv[1])\nprint(json.dumps([rows.columns, rows.fetchall()]))\n";
            let answer = python(program, &[recipe], folder.folder());
            assert!(answer.status.success(), "{answer:?}");
            let rows: Value = serde_json::from_slice(&answer.stdout).unwrap();
            assert_eq!(rows[0], json!(["app", "host", "processes", "peak", "exact", "peak_in"]));
            let row = |host: &str, reports: &[&Report], file: &str| {
                let processes = reports.iter().map(|report| report.processes.len()).sum::<usize>();
                json!(["workload", host, processes, peak(reports), true, file])
            };
            let expected = json!([row("web1", &[&web, &later], "a.json"), row("db2", &[&db], "c.json")]);
            assert_eq!(rows[1], expected);
        }
    }
}
