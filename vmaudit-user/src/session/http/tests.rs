use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use super::*;
use crate::os::listen::Address;

/// Waits so long for what must come; a backstop.
const BACKSTOP: Duration = Duration::from_secs(60);

/// A server that answers with what was accepted, while `talk` runs.
fn served<T: Send + 'static>(talk: impl FnOnce(SocketAddr) -> T + Send + 'static) -> T {
    let listener = Listener::open(&Address::Tcp("127.0.0.1".into(), 0)).expect("a port");
    let Listener::Tcp(tcp) = &listener else { panic!("no TCP") };
    let address = tcp.local_addr().expect("an address");
    let (asks, mut asked, notify) = Asks::new();
    let runtime = super::super::runtime().expect("a runtime");
    runtime.block_on(async {
        tokio::spawn(server(listener, asks, |opened| opened.expect("opened")));
        let talk = std::thread::spawn(move || talk(address));
        while !talk.is_finished() {
            let _ = timeout(Duration::from_millis(5), notify.notified()).await;
            while let Ok(Asked { accept, gzip, answer }) = asked.try_recv() {
                // Packed by whoever makes the page, as its time is counted there.
                let packed = gzip.then(|| packed(b"made by the exporter").expect("packed"));
                let text = format!("<{accept}>").into();
                let _ = answer.send(Page { content_type: "text/x", text, packed });
            }
        }
        talk.join().expect("talk")
    })
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("a connection");
    stream.set_read_timeout(Some(BACKSTOP)).expect("a timeout");
    stream
}

/// All that comes back, until the other end closes.
fn said(mut stream: &TcpStream) -> String {
    let mut bytes = Vec::new();
    let mut part = [0; 4096];
    loop {
        match stream.read(&mut part) {
            Ok(0) => break,
            Ok(n) => bytes.extend(&part[..n]),
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => break,
            Err(e) => panic!("{e}"),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = connect(address);
    // Who is refused may be closed on before all was sent.
    let _ = stream.write_all(request.as_bytes());
    said(&stream)
}

#[test]
fn paths_and_methods() {
    served(|address| {
        let whole = ask(address, "GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: a/b\r\nAccept: c/d\r\n\r\n");
        assert!(whole.starts_with("HTTP/1.1 200 OK\r\n") && whole.ends_with("<a/b,c/d>"), "{whole}");
        assert!(whole.contains("content-type: text/x\r\n"), "{whole}");
        for (request, status, part) in [
            ("GET /metrics?x=1 HTTP/1.0\r\n\r\n", "200", "<>"),
            ("HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n", "200", "content-length: 2"),
            ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", "200", "/metrics"),
            ("GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n", "200", "OK"),
            ("GET /x HTTP/1.1\r\nHost: x\r\n\r\n", "404", "/metrics"),
            ("POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc", "405", "allow: GET, HEAD"),
            ("\u{1b}[31m\r\n\r\n", "400", ""),
            ("GET /metrics HTTP/9\r\n\r\n", "400", ""),
        ] {
            let answer = ask(address, request);
            assert!(answer.split(' ').nth(1) == Some(status) && answer.contains(part), "{request}: {answer}");
        }
        let head = ask(address, "HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(head.ends_with("\r\n\r\n"), "{head}");
        // Two requests in one connection: the first is answered.
        let twice = ask(address, &"GET / HTTP/1.1\r\nHost: x\r\n\r\n".repeat(2));
        assert_eq!(twice.matches("HTTP/1.1 200").count(), 1, "{twice}");
    });
}

#[test]
fn who_takes_gzip_gets_it() {
    served(|address| {
        let asked = |offer: &str| {
            let mut stream = connect(address);
            write!(stream, "GET /metrics HTTP/1.1\r\nHost: x\r\nAccept-Encoding: {offer}\r\n\r\n")
                .expect("sent");
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes).expect("an answer");
            let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("a head") + 4;
            let body = bytes.split_off(end);
            (String::from_utf8(bytes).expect("a head of text"), body)
        };
        for offer in ["gzip", "deflate, GZIP;q=0.5", "gzip; q=1.0, *;q=0"] {
            let (head, body) = asked(offer);
            assert!(
                head.contains("content-encoding: gzip\r\n") && head.contains("vary: "),
                "{offer}: {head}"
            );
            let mut text = String::new();
            flate2::read::GzDecoder::new(&body[..]).read_to_string(&mut text).expect("gzip");
            assert_eq!(text, "made by the exporter");
        }
        for offer in ["", "identity", "gzip;q=0", "gzip;q=0.000", "gzip;q=x", "br, zstd", "xgzip"] {
            let (head, body) = asked(offer);
            assert!(!head.contains("content-encoding") && body == b"<>", "{offer}: {head}");
        }
    });
}

#[test]
fn a_page_is_packed_once() {
    let mut page = Page { content_type: "text/x", text: Bytes::from_static(b"a page"), packed: None };
    page.pack();
    let first = page.packed.clone().expect("packed");
    page.pack();
    assert_eq!(page.packed.map(|it| it.as_ptr()), Some(first.as_ptr()));
}

#[test]
fn long_heads_are_refused() {
    served(|address| {
        let fits = format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "y".repeat(7000));
        assert!(ask(address, &fits).contains(" 200 "));
        let answer = ask(address, &format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "y".repeat(20_000)));
        assert!(!answer.contains(" 200 "), "{answer}");
        let many: String = (0..500).map(|n| format!("X{n}: y\r\n")).collect();
        let answer = ask(address, &format!("GET / HTTP/1.1\r\nHost: x\r\n{many}\r\n"));
        assert!(!answer.contains(" 200 "), "{answer}");
    });
}

#[test]
fn who_says_nothing_keeps_nobody_out_and_is_left_in_the_end() {
    served(|address| {
        let began = Instant::now();
        let silent: Vec<TcpStream> = (0..CONNECTIONS * 3)
            .map(|n| {
                let mut stream = connect(address);
                // Some say a little.
                stream.write_all(&b"GET /metr"[..n % 9]).expect("sent");
                stream
            })
            .collect();
        for _ in 0..5 {
            assert!(ask(address, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").contains(" 200 "));
        }
        assert!(began.elapsed() < PATIENCE, "it waited for the silent");
        for stream in &silent {
            assert_eq!(said(stream), "");
        }
        assert!(began.elapsed() < PATIENCE * 3);
    });
}

/// Whoever starts a service anew asks whether it answers: an open port says nothing.
#[test]
fn what_the_probes_of_the_manifest_ask_for_is_there() {
    let manifest = include_str!("../../../packaging/kubernetes/daemonset.yaml");
    let probes = manifest.matches("Probe:").count();
    let paths: Vec<String> = manifest
        .lines()
        .filter_map(|line| line.trim().strip_prefix("path: /-/"))
        .map(|path| format!("/-/{path}"))
        .collect();
    assert!(paths.len() == probes && probes == 2 && !manifest.contains("tcpSocket"), "{paths:?}");
    served(move |address| {
        for path in paths {
            let answer = ask(address, &format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
            assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
        }
    });
}
