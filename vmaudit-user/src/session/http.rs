//! Answers HTTP beside a session, on its runtime: pages that somebody else makes, to clients that may be slow or hostile.
//!
//! Bounds: [`CONNECTIONS`] at one time, of which one that has not asked yet gives way to a new one; [`HEAD_BYTES`] of a
//! request; [`PATIENCE`] from the first byte to the last; one request a connection; no body is read.

use std::convert::Infallible;
use std::future::Future;
use std::io::{self, Write as _};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{
    ACCEPT, ACCEPT_ENCODING, ALLOW, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue, VARY,
};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};

use crate::os::listen::{Listener, SocketFile};

/// At one time.
const CONNECTIONS: usize = 16;
/// Of a request's first line and headers.
const HEAD_BYTES: usize = 8192;
/// With one client.
const PATIENCE: Duration = Duration::from_secs(10);
/// After a connection could not be taken, for want of descriptors for example.
const BREATH: Duration = Duration::from_millis(100);

/// A page, and what it is.
#[derive(Clone, Debug)]
pub struct Page {
    /// For the header `Content-Type`.
    pub content_type: &'static str,
    /// The text.
    pub text: Bytes,
    /// The same as gzip, where somebody takes that.
    pub packed: Option<Bytes>,
}

impl Page {
    /// Has it packed, once for all who take gzip: that takes longer than to make it.
    pub fn pack(&mut self) {
        if self.packed.is_none() {
            self.packed = packed(&self.text);
        }
    }
}

/// Somebody waits for a page.
#[derive(Debug)]
pub struct Asked {
    /// The header `Accept`, empty where there is none.
    pub accept: String,
    /// Takes gzip: [`Page::pack`].
    pub gzip: bool,
    /// Takes the page.
    pub answer: oneshot::Sender<Page>,
}

/// How a server asks for its pages.
#[derive(Clone, Debug)]
pub struct Asks {
    sender: mpsc::Sender<Asked>,
    notify: Arc<Notify>,
}

impl Asks {
    /// With the end that answers, and what tells it to.
    pub fn new() -> (Self, mpsc::Receiver<Asked>, Arc<Notify>) {
        let (sender, receiver) = mpsc::channel(CONNECTIONS);
        let notify = Arc::new(Notify::new());
        (Self { sender, notify: notify.clone() }, receiver, notify)
    }

    async fn page(&self, accept: String, gzip: bool) -> Option<Page> {
        let (answer, page) = oneshot::channel();
        self.sender.send(Asked { accept, gzip, answer }).await.ok()?;
        self.notify.notify_one();
        page.await.ok()
    }
}

/// Bytes to and from one client.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A listener of the runtime.
enum Door {
    Tcp(tokio::net::TcpListener),
    /// With the file that goes when the server does.
    Unix(tokio::net::UnixListener, #[allow(dead_code, reason = "dropped with it")] Option<SocketFile>),
}

impl Door {
    fn open(listener: Listener) -> io::Result<Self> {
        Ok(match listener {
            Listener::Tcp(tcp) => Self::Tcp(tokio::net::TcpListener::from_std(tcp)?),
            Listener::Unix(unix, file) => Self::Unix(tokio::net::UnixListener::from_std(unix)?, file),
        })
    }

    async fn accept(&self) -> io::Result<Box<dyn Stream>> {
        Ok(match self {
            Self::Tcp(tcp) => Box::new(tcp.accept().await?.0),
            Self::Unix(unix, _) => Box::new(unix.accept().await?.0),
        })
    }
}

/// One client.
struct Client {
    task: AbortHandle,
    /// Its request has come.
    asked: Arc<AtomicBool>,
}

/// A server at work, for [`super::Session::beside`]. `ready` is called once it is.
pub fn server(
    listener: Listener,
    asks: Asks,
    ready: impl FnOnce(io::Result<()>) + Send + 'static,
) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(async move {
        let door = match Door::open(listener) {
            Ok(door) => door,
            Err(e) => return ready(Err(e)),
        };
        ready(Ok(()));
        let mut tasks = JoinSet::new();
        let mut clients: Vec<Client> = Vec::new();
        loop {
            let stream = tokio::select! {
                stream = door.accept() => stream,
                _ = tasks.join_next(), if !tasks.is_empty() => continue,
            };
            let Ok(stream) = stream else {
                sleep(BREATH).await;
                continue;
            };
            make_room(&mut clients, &mut tasks).await;
            let asked = Arc::new(AtomicBool::new(false));
            let talk = converse(stream, asks.clone(), asked.clone());
            let task = tasks.spawn(async move {
                let _ = talk.await;
            });
            clients.push(Client { task, asked });
        }
    })
}

/// Waits until there is room for one more. Who has not asked yet goes at once, the oldest first: someone who says nothing
/// keeps nobody out.
async fn make_room(clients: &mut Vec<Client>, tasks: &mut JoinSet<()>) {
    loop {
        clients.retain(|client| !client.task.is_finished());
        if clients.len() < CONNECTIONS {
            return;
        }
        match clients.iter().position(|client| !client.asked.load(Ordering::Relaxed)) {
            Some(silent) => clients.remove(silent).task.abort(),
            None => drop(tasks.join_next().await),
        }
    }
}

/// Gives `false` where the client's time ran out.
async fn converse(stream: Box<dyn Stream>, asks: Asks, asked: Arc<AtomicBool>) -> bool {
    let service = service_fn(|request| {
        asked.store(true, Ordering::Relaxed);
        answer(request, asks.clone())
    });
    let talk = http1::Builder::new()
        .keep_alive(false)
        .max_buf_size(HEAD_BYTES)
        // The time of all of it is bounded.
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(stream), service);
    // Whatever went wrong went wrong for this client alone.
    timeout(PATIENCE, talk).await.is_ok()
}

async fn answer(request: Request<Incoming>, asks: Asks) -> Result<Response<Full<Bytes>>, Infallible> {
    const TEXT: &str = "text/plain; charset=utf-8";
    let of = |status: StatusCode, kind: &'static str, text: Bytes| {
        let mut response = Response::new(Full::new(text));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        response
    };
    let words = |status, text: &'static str| of(status, TEXT, Bytes::from_static(text.as_bytes()));
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut refused = words(StatusCode::METHOD_NOT_ALLOWED, "Only GET and HEAD.\n");
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return Ok(refused);
    }
    Ok(match request.uri().path() {
        "/metrics" => {
            let accepted = request.headers().get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
            let gzip = takes_gzip(request.headers());
            match asks.page(accepted.collect::<Vec<_>>().join(","), gzip).await {
                Some(page) => {
                    let packed = page.packed.filter(|_| gzip);
                    let is_packed = packed.is_some();
                    let mut found = of(StatusCode::OK, page.content_type, packed.unwrap_or(page.text));
                    let headers = found.headers_mut();
                    headers.insert(VARY, HeaderValue::from_static("accept, accept-encoding"));
                    if is_packed {
                        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
                    }
                    found
                }
                None => words(StatusCode::SERVICE_UNAVAILABLE, "vmaudit is ending.\n"),
            }
        }
        "/" => words(StatusCode::OK, "vmaudit serve: the metrics are at /metrics\n"),
        "/-/healthy" | "/-/ready" | "/healthz" => words(StatusCode::OK, "OK\n"),
        _ => words(StatusCode::NOT_FOUND, "Not found: the metrics are at /metrics\n"),
    })
}

/// The client reads gzip, as Prometheus does (RFC 9110, 12.5.3: a weight of 0 means no).
fn takes_gzip(headers: &HeaderMap) -> bool {
    let offers = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    offers.flat_map(|offer| offer.split(',')).any(|offer| {
        let mut parts = offer.split(';').map(str::trim);
        let gzip = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip"));
        let mut weights =
            parts.filter_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        gzip && weights.all(|weight| weight.parse::<f32>().is_ok_and(|weight| weight > 0.0))
    })
}

/// A tenth of the bytes or less, for little time.
fn packed(text: &[u8]) -> Option<Bytes> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(text.len() / 8), Compression::fast());
    encoder.write_all(text).ok()?;
    encoder.finish().ok().map(Bytes::from)
}

/// What one client is answered that says these bytes and no more; `None` where it was waited for until its time ran out.
#[cfg(any(test, fuzzing))]
pub(crate) fn answer_to(bytes: &[u8], page: &'static str) -> io::Result<Option<Vec<u8>>> {
    use std::io::Read as _;

    let (mut client, server) = std::os::unix::net::UnixStream::pair()?;
    // A socket takes so many before anybody reads.
    client.write_all(bytes.get(..1 << 16).unwrap_or(bytes))?;
    client.shutdown(std::net::Shutdown::Write)?;
    server.set_nonblocking(true)?;
    let (asks, mut asked, _) = Asks::new();
    let over = super::runtime().map_err(io::Error::other)?.block_on(async {
        let stream = Box::new(tokio::net::UnixStream::from_std(server)?);
        let pages = async {
            while let Some(Asked { answer, .. }) = asked.recv().await {
                let _ = answer.send(Page { content_type: "text/plain", text: page.into(), packed: None });
            }
        };
        let (over, ()) = tokio::join!(converse(stream, asks, Arc::default()), pages);
        io::Result::Ok(over)
    })?;
    let mut answer = Vec::new();
    client.read_to_end(&mut answer)?;
    Ok(over.then_some(answer))
}

#[cfg(test)]
mod tests;
