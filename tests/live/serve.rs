//! `serve`: what it shows to Prometheus is what was, and no client harms it.

use std::io::{Read, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

use vmaudit_tests::own;
use vmaudit_tests::{
    BACKSTOP, Done, Running, Scratch, Session, max_map_count, send_signal, wait_for, workload,
};

/// A server at work, with what it listens on.
pub(crate) fn serving(options: &[&str]) -> (Running, String) {
    let mut server = Session::vmaudit(&["serve", "--listen", "127.0.0.1:0"]).words(options).start();
    server.wait_for_stderr("serving ");
    let said = std::fs::read_to_string(server.file("stderr")).unwrap();
    let (_, rest) = said.split_once("http://").expect("an address");
    (server, rest.split('/').next().unwrap().to_owned())
}

pub(crate) fn ended(server: Running) -> Done {
    send_signal(server.pid(), libc::SIGTERM);
    server.wait().succeeded()
}

pub(crate) fn ask(address: &str, headers: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(BACKSTOP)).unwrap();
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: x\r\n{headers}\r\n").unwrap();
    whole(stream)
}

fn whole(mut stream: impl Read) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    assert!(head.split(' ').nth(1) == Some("200"), "{head}");
    body.to_owned()
}

/// A figure by its name and labels; they are in one order.
fn figure(page: &str, name: &str) -> Option<u64> {
    page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

#[track_caller]
pub(crate) fn must(page: &str, name: &str) -> u64 {
    figure(page, name).unwrap_or_else(|| panic!("{name}: {page}"))
}

/// A workload under this name, so that its group is its own.
fn named(scratch: &Scratch, name: &str) -> std::path::PathBuf {
    let path = scratch.path(name);
    std::fs::copy(workload(), &path).unwrap();
    path
}

#[test]
fn counts_peaks_refusals_and_ends_are_those_of_the_workload() {
    let scratch = Scratch::new();
    let (standing, short) = (named(&scratch, "vma-stands"), named(&scratch, "vma-passes"));
    let mut target = Session::other(standing).words(&["attach", "300"]).start_with_pipe();
    target.wait_for_stdout("standing");
    let own_standing = own::parse(&target.stdout_so_far()).remove(0);
    let (server, address) = serving(&["--group-by", "app"]);
    let count = "vmaudit_process_memory_map_areas{group=\"vma-stands\"}";
    let peak = |name: &str| format!("vmaudit_process_memory_map_areas_peak{{group=\"{name}\"}}");
    let failed = |name: &str, call: &str, cause: &str| {
        format!(
            "vmaudit_memory_syscall_failures_total{{group=\"{name}\",syscall=\"{call}\",errno=\"ENOMEM\",cause=\"{cause}\"}}"
        )
    };
    let ends = "vmaudit_process_ends_total{group=\"vma-passes\",cause=\"exit\"}";
    let page = ask(&address, "");
    assert_eq!(must(&page, "vmaudit_memory_map_areas_limit"), max_map_count());
    assert_eq!(must(&page, count), own_standing.base);
    assert_eq!(must(&page, &peak("vma-stands")), own_standing.base);
    assert_eq!(must(&page, &failed("vma-stands", "mmap", "max_map_count")), 0);
    assert_eq!(must(&page, "vmaudit_events_lost_total{reason=\"table_full\"}"), 0);
    assert_eq!(figure(&page, &peak("vma-passes")), None);
    // Two come and go between two scrapes.
    let burst = Session::other(short.clone()).words(&["burst", "700"]).go().succeeded();
    let limit = Session::other(short).words(&["limit", "mmap"]).go().succeeded();
    let own_burst = own::parse(&burst.stdout).remove(0);
    let own_limit = own::parse(&limit.stdout).remove(0);
    assert!(own_burst.peak > 700 && !own_limit.refused.is_empty(), "{own_limit:?}");
    let page = wait_for("both ends in the figures", || {
        let page = ask(&address, "");
        (figure(&page, ends) == Some(2)).then_some(page)
    });
    assert_eq!(must(&page, &peak("vma-passes")), own_burst.peak.max(own_limit.peak));
    assert_eq!(figure(&page, "vmaudit_process_memory_map_areas{group=\"vma-passes\"}"), None);
    for refused in &own_limit.refused {
        assert_eq!(must(&page, &failed("vma-passes", &refused.syscall, &refused.cause)), refused.count);
    }
    // The next scraper sees the same.
    let again = ask(&address, "");
    for name in [peak("vma-passes"), ends.to_owned(), failed("vma-passes", "mmap", "max_map_count")] {
        assert_eq!(must(&again, &name), must(&page, &name), "{name}");
    }
    // As OpenMetrics the same figures.
    let open = ask(&address, "Accept: application/openmetrics-text;version=1.0.0\r\n");
    assert!(open.ends_with("# EOF\n"));
    assert_eq!(must(&open, ends), 2);
    target.wait().succeeded();
    ended(server);
}

#[test]
fn a_thousand_scrapes_leak_nothing() {
    let (server, address) = serving(&[]);
    // Not all descriptors: programs that watch more are loaded when anybody on the machine comes near a limit.
    let sockets = || {
        let all = std::fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap();
        let links = all.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok());
        links.filter(|link| link.to_string_lossy().starts_with("socket:")).count()
    };
    let own_memory = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap().to_owned();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
    };
    (0..50).for_each(|_| drop(ask(&address, "")));
    // The one that listens.
    wait_for("all connections are closed", || (sockets() == 1).then_some(()));
    let before = own_memory();
    (0..1000).for_each(|_| drop(ask(&address, "")));
    wait_for("all connections are closed", || (sockets() == 1).then_some(()));
    assert!(own_memory() < before + 4096, "{} KiB, {before} before", own_memory());
    ended(server);
}

#[test]
fn names_of_strangers_stay_in_their_quotes() {
    let scratch = Scratch::new();
    let program = named(&scratch, "a\"} 1\nx\\\u{1b}[2");
    let (server, address) = serving(&["--group-by", "app"]);
    let mut target = Session::other(program).words(&["attach", "10"]).start_with_pipe();
    target.wait_for_stdout("standing");
    let page = wait_for("its name", || {
        let page = ask(&address, "");
        page.contains("group=\"a\\\"} 1").then_some(page)
    });
    assert!(!page.contains('\u{1b}'), "{page}");
    for line in page.lines() {
        let fine = line.starts_with("# HELP vmaudit_") || line.starts_with("# TYPE vmaudit_");
        let number = || line.rsplit(' ').next().is_some_and(|value| value.parse::<f64>().is_ok());
        assert!(fine || line.starts_with("vmaudit_") && number(), "{line:?}");
    }
    target.wait().succeeded();
    ended(server);
}

#[test]
fn slow_clients_keep_nobody_out() {
    let (server, address) = serving(&[]);
    let slow: Vec<TcpStream> = (0..40)
        .map(|_| {
            let mut stream = TcpStream::connect(&address).unwrap();
            stream.write_all(b"GET /metrics HTTP/1.1\r\nHo").unwrap();
            stream
        })
        .collect();
    assert!(ask(&address, "").contains("vmaudit_build_info"));
    drop(slow);
    assert!(ask(&address, "").contains("vmaudit_build_info"));
    ended(server);
}

#[test]
fn a_unix_socket_is_served_and_goes_with_its_server() {
    let scratch = Scratch::new();
    let path = scratch.path("socket");
    let listen = format!("unix:{}", path.display());
    let mut server = Session::vmaudit(&["serve", "--listen", &listen]).start();
    server.wait_for_stderr("serving ");
    let mut stream = UnixStream::connect(&path).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    assert!(whole(stream).contains("vmaudit_memory_map_areas_limit"));
    let second = Session::vmaudit(&["serve", "--listen", &listen]).go().ended_with(1);
    assert!(second.stderr_text().contains("somebody listens there already"), "{}", second.stderr_text());
    ended(server);
    assert!(!path.exists());
}

#[test]
fn an_address_that_is_not_to_be_had_is_told_in_one_sentence() {
    let (server, address) = serving(&[]);
    let long = format!("unix:/{}", "x".repeat(200));
    for (listen, status, part) in [
        (address.as_str(), 1, "Address already in use: ss -ltnp"),
        ("unix:/", 1, "cannot listen on unix:/: something that is no socket is there already, and stays"),
        (long.as_str(), 1, "may have 107 bytes, and this one has 201"),
        ("192.0.2.1:9747", 1, "cannot listen on 192.0.2.1:9747: Cannot assign requested address"),
        ("systemd", 1, "no socket was handed over"),
        ("9747", 2, "write ADDRESS:PORT"),
        ("127.0.0.1:99999", 2, "is no port"),
    ] {
        let done = Session::vmaudit(&["serve", "--listen", listen]).go().ended_with(status);
        assert!(done.stderr_text().contains(part), "{listen}: {}", done.stderr_text());
        if status == 1 {
            assert_eq!(done.stderr_text().lines().count(), 1, "{}", done.stderr_text());
        }
    }
    ended(server);
    // A number that nobody has: the largest that there may be is 2^22.
    let done = Session::vmaudit(&["serve", "--listen", "127.0.0.1:0", "-p", "4194305"]).go().ended_with(1);
    assert_eq!(done.stderr_text(), "vmaudit: there is no process 4194305\n");
}

#[test]
fn an_address_that_others_reach_is_told() {
    let mut server = Session::vmaudit(&["serve", "--listen", ":0", "--source", "proc"]).start();
    server.wait_for_stderr("serving ");
    let said = std::fs::read_to_string(server.file("stderr")).unwrap();
    assert!(said.contains("to whoever reaches that address (no TLS, no password)"), "{said}");
    ended(server);
}

#[test]
fn samples_of_what_comes_later_are_taken_and_asked_for_meanwhile() {
    let scratch = Scratch::new();
    let program = named(&scratch, "vma-later");
    let (server, address) =
        serving(&["--source", "proc", "--group-by", "app", "--exe", &program.display().to_string()]);
    // Nobody fits yet: that is no reason to leave a client without an answer.
    let page = ask(&address, "");
    assert_eq!(must(&page, "vmaudit_memory_map_areas_limit"), max_map_count());
    assert!(!page.contains("{group="), "{page}");
    let mut target = Session::other(program).words(&["attach", "300"]).start_with_pipe();
    target.wait_for_stdout("standing");
    let own = own::parse(&target.stdout_so_far()).remove(0);
    let count = "vmaudit_process_memory_map_areas{group=\"vma-later\"}";
    wait_for("its count", || (figure(&ask(&address, ""), count) == Some(own.base)).then_some(()));
    target.wait().succeeded();
    // It goes on without it.
    wait_for("its end", || figure(&ask(&address, ""), count).is_none().then_some(()));
    ended(server);
}

#[test]
fn without_rights_samples_are_called_so() {
    let mut server = Session::vmaudit(&["serve", "--listen", "127.0.0.1:0", "--source", "proc"]).start();
    server.wait_for_stderr("serving ");
    let said = std::fs::read_to_string(server.file("stderr")).unwrap();
    assert!(said.contains("samples from /proc, without refused calls; Ctrl-C ends it"), "{said}");
    let address = said.split_once("http://").unwrap().1.split('/').next().unwrap().to_owned();
    let page = ask(&address, "");
    assert_eq!(must(&page, "vmaudit_session_peaks_exact"), 0);
    assert_eq!(must(&page, "vmaudit_source_info{source=\"proc\"}"), 1);
    assert!(page.contains("a sample from /proc") && !page.contains("vmaudit_memory_syscall_failures_total"));
    ended(server);
}

/// What Prometheus' own programs say. `cargo xtask test` leaves these out, and says so, where they are not installed.
mod with_prometheus {
    use super::*;

    fn packaged(name: &str) -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../vmaudit-user/packaging/prometheus").join(name)
    }

    fn promtool(words: &[&str], file: Option<&Path>, stdin: &str) {
        let mut command = Command::new("promtool");
        command.args(words).args(file).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("promtool is installed");
        child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
        let done = child.wait_with_output().unwrap();
        let said =
            String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "promtool {words:?}: {said}");
    }

    #[test]
    fn promtool_finds_nothing_wrong() {
        let (server, address) = serving(&[]);
        let page = ask(&address, "");
        assert!(page.lines().count() > 50, "{page}");
        promtool(&["check", "metrics"], None, &page);
        promtool(&["check", "rules"], Some(&packaged("vmaudit.rules.yml")), "");
        promtool(&["test", "rules"], Some(&packaged("vmaudit.rules.test.yml")), "");
        ended(server);
    }

    /// Prometheus reads the page, and a rule that is shipped fires for a process near the limit.
    #[test]
    fn prometheus_scrapes_and_an_alert_fires() {
        let scratch = Scratch::new();
        let near = (max_map_count() * 85 / 100).to_string();
        let mut target =
            Session::other(named(&scratch, "vma-near")).words(&["attach", &near]).start_with_pipe();
        target.wait_for_stdout("standing");
        let (server, address) = serving(&["--group-by", "app"]);
        // Nobody waits five minutes in a test.
        let rules = std::fs::read_to_string(packaged("vmaudit.rules.yml")).unwrap();
        assert!(rules.contains("for: 5m"));
        std::fs::write(scratch.path("rules.yml"), rules.replace("for: 5m", "for: 0s")).unwrap();
        let config = format!(
            "global:\n  scrape_interval: 1s\n  scrape_timeout: 1s\n  evaluation_interval: 1s\nrule_files: [rules.yml]\n\
             scrape_configs:\n  - job_name: vmaudit\n    static_configs:\n      - targets: ['{address}']\n"
        );
        std::fs::write(scratch.path("prometheus.yml"), config).unwrap();
        let own = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let log = std::fs::File::create(scratch.path("log")).unwrap();
        let mut prometheus = Command::new("prometheus")
            .arg(format!("--config.file={}", scratch.path("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", scratch.path("data").display()))
            .arg(format!("--web.listen-address={own}"))
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("prometheus is installed");
        let alerts = wait_for("the alert", || {
            let mut stream = TcpStream::connect(&own).ok()?;
            stream.set_read_timeout(Some(BACKSTOP)).unwrap();
            write!(stream, "GET /api/v1/alerts HTTP/1.0\r\n\r\n").ok()?;
            let mut text = String::new();
            stream.read_to_string(&mut text).ok()?;
            text.contains("\"state\":\"firing\"").then_some(text)
        });
        let series = result(&own, "vmaudit_process_memory_map_areas{group=\"vma-near\"}");
        let panels: Vec<_> =
            of_dashboard().into_iter().map(|(panel, query)| (panel, result(&own, &query))).collect();
        prometheus.kill().unwrap();
        prometheus.wait().unwrap();
        assert!(alerts.contains("ProcessNearMemoryMapAreasLimit") && alerts.contains("vma-near"), "{alerts}");
        let standing = own::parse(&target.stdout_so_far()).remove(0).base;
        assert!(series.contains(&format!("\"{standing}\"")), "{standing}: {series}");
        // Whatever else a panel waits for: growth, refusals, a whole minute.
        for sure in
            ["Nearest to the limit", "Peaks since vmaudit began", "Limit by machine", "Exact for", "Version"]
        {
            let drawn = panels.iter().filter(|(panel, _)| panel == sure);
            let empty = drawn.clone().find(|(_, result)| result == "[]");
            assert!(drawn.count() > 0 && empty.is_none(), "{sure}: {panels:?}");
        }
        target.wait().succeeded();
        ended(server);
    }

    /// What a query finds. Prometheus takes each that is asked.
    fn result(prometheus: &str, query: &str) -> String {
        let typed: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let mut stream = TcpStream::connect(prometheus).unwrap();
        stream.set_read_timeout(Some(BACKSTOP)).unwrap();
        write!(stream, "GET /api/v1/query?query={typed} HTTP/1.0\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("an answer");
        let (_, body) = text.split_once("\r\n\r\n").expect("a head");
        let answer: serde_json::Value = serde_json::from_str(body).expect("JSON");
        assert_eq!(answer["status"], "success", "{query}: {body}");
        answer["data"]["result"].to_string()
    }

    /// Panels and their queries, with what Grafana puts in place of its variables.
    fn of_dashboard() -> Vec<(String, String)> {
        let text = include_str!("../../vmaudit-user/packaging/grafana/vmaudit.dashboard.json");
        let dashboard: serde_json::Value = serde_json::from_str(text).unwrap();
        let list = |value: &serde_json::Value| value.as_array().cloned().unwrap_or_default();
        let of_panel = |panel: &serde_json::Value| {
            let title = panel["title"].as_str().expect("a title").to_owned();
            let targets = list(&panel["targets"]).into_iter();
            targets.map(move |target| (title.clone(), target["expr"].as_str().expect("a query").to_owned()))
        };
        let all = list(&dashboard["panels"]).iter().flat_map(of_panel).collect::<Vec<_>>();
        assert!(all.len() > 10, "{all:?}");
        let variables = [("$instance", ".*"), ("$group", ".*"), ("$__rate_interval", "1m")];
        let typed =
            |query: String| variables.iter().fold(query, |query, (name, value)| query.replace(name, value));
        let all: Vec<_> = all.into_iter().map(|(panel, query)| (panel, typed(query))).collect();
        assert!(all.iter().all(|(_, query)| !query.contains('$')), "{all:?}");
        all
    }
}
