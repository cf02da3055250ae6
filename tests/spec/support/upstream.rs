//! What stands behind the proxy: listeners whose every answer a test writes by hand, and small complete ones.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use super::{Wire, within};

/// An upstream on which the test accepts each connection and writes each answer.
pub(crate) struct Upstream {
    endpoint: String,
    listener: Listener,
}

enum Listener {
    Tcp(TcpListener),
    Tls(TcpListener, TlsAcceptor),
    Unix { listener: UnixListener, _folder: tempfile::TempDir },
}

impl Upstream {
    pub(crate) async fn raw() -> Upstream {
        let (listener, port) = bind().await;
        Upstream { endpoint: format!("http://127.0.0.1:{port}"), listener: Listener::Tcp(listener) }
    }

    /// Behind TLS, reached as `https://localhost:PORT`.
    pub(crate) async fn tls(server: rustls::ServerConfig) -> Upstream {
        let (listener, port) = bind().await;
        let acceptor = TlsAcceptor::from(Arc::new(server));
        Upstream {
            endpoint: format!("https://localhost:{port}"),
            listener: Listener::Tls(listener, acceptor),
        }
    }

    pub(crate) fn unix() -> Upstream {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let path = folder.path().join("upstream.sock");
        let listener = UnixListener::bind(&path).expect("the folder is ours");
        Upstream {
            endpoint: format!("unix:{}", path.display()),
            listener: Listener::Unix { listener, _folder: folder },
        }
    }

    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The next connection from the proxy.
    pub(crate) async fn accept(&self) -> Wire {
        self.try_accept().await.expect("the proxy finishes its TLS handshake")
    }

    /// The next connection from the proxy, or why its TLS handshake failed.
    pub(crate) async fn try_accept(&self) -> std::io::Result<Wire> {
        within("a connection from the proxy", async {
            Ok(match &self.listener {
                Listener::Tcp(listener) => Wire::new(listener.accept().await?.0),
                Listener::Tls(listener, tls) => {
                    Wire::new(tls.accept(listener.accept().await?.0).await?)
                }
                Listener::Unix { listener, .. } => Wire::new(listener.accept().await?.0),
            })
        })
        .await
    }

    /// Checks that the proxy has not dialled so far.
    pub(crate) async fn expect_untouched(&self) {
        let Listener::Tcp(listener) = &self.listener else { panic!("only asked of TCP upstreams") };
        let polled = futures_util::poll!(std::pin::pin!(listener.accept()));
        assert!(polled.is_pending(), "the proxy dialled its upstream");
    }
}

/// An upstream that answers by itself in the background until this is dropped.
pub(crate) struct Served {
    endpoint: String,
    accepted: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Served {
    /// Answers each request with what `answer` makes of it.
    pub(crate) async fn http<F>(
        answer: impl Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    ) -> Served
    where
        F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
    {
        Served::each(move |wire| {
            let answer = answer.clone();
            let service = hyper::service::service_fn(move |request| {
                let response = answer(request);
                async move { Ok::<_, Infallible>(response.await) }
            });
            async move {
                let mut http = hyper::server::conn::http1::Builder::new();
                let _ = http.half_close(true).serve_connection(TokioIo::new(wire), service).await;
            }
        })
        .await
    }

    /// Answers every request with `name`.
    pub(crate) async fn named(name: &'static str) -> Served {
        Served::http(move |_| async move { Response::new(Full::from(name)) }).await
    }

    /// Sends back every message.
    pub(crate) async fn echo() -> Served {
        Served::each(|wire| async move {
            let accepted =
                tokio_tungstenite::accept_async_with_config(wire, Some(any_size())).await;
            let Ok(mut socket) = accepted else { return };
            while let Some(Ok(message)) = socket.next().await {
                let data = message.is_text() || message.is_binary();
                if data && socket.send(message).await.is_err() {
                    return;
                }
            }
        })
        .await
    }

    /// Greets each session with `name`, and holds it until the other side leaves.
    pub(crate) async fn greeting(name: &'static str) -> Served {
        Served::each(move |wire| async move {
            let Ok(mut socket) = tokio_tungstenite::accept_async(wire).await else { return };
            let _ = socket.send(name.into()).await;
            while let Some(Ok(_)) = socket.next().await {}
        })
        .await
    }

    async fn each<F>(serve: impl Fn(Wire) -> F + Send + 'static) -> Served
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (listener, port) = bind().await;
        let accepted = Arc::new(AtomicUsize::new(0));
        let open = Arc::new(AtomicUsize::new(0));
        let counts = (accepted.clone(), open.clone());
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                counts.0.fetch_add(1, Ordering::Relaxed);
                counts.1.fetch_add(1, Ordering::Relaxed);
                let open = counts.1.clone();
                let served = serve(Wire::new(stream));
                connections.spawn(async move {
                    served.await;
                    open.fetch_sub(1, Ordering::Relaxed);
                });
                while connections.try_join_next().is_some() {}
            }
        });
        Served { endpoint: format!("http://127.0.0.1:{port}"), accepted, open, task }
    }

    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// How many connections the proxy has made here.
    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }

    /// How many of them are open.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// An endpoint at which connections are refused.
pub(crate) async fn refusing() -> String {
    let (listener, port) = bind().await;
    drop(listener);
    format!("http://127.0.0.1:{port}")
}

/// An endpoint that takes no more connections and does not refuse them either, and what keeps it so.
pub(crate) async fn full() -> (String, Vec<TcpStream>, socket2::Socket) {
    let listener =
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    listener.bind(&any.into()).expect("loopback has a free port");
    listener.listen(0).expect("a bound socket");
    let address =
        listener.local_addr().ok().and_then(|address| address.as_socket()).expect("a bound socket");
    let mut waiting = Vec::new();
    // The queue holds one or two; what comes then is dropped without an answer.
    while let Ok(connected) =
        tokio::time::timeout(Duration::from_millis(200), TcpStream::connect(address)).await
    {
        waiting.push(connected.expect("the queue takes it or leaves it"));
    }
    (format!("http://{address}"), waiting, listener)
}

/// Messages and frames of any size.
pub(crate) fn any_size() -> WebSocketConfig {
    WebSocketConfig::default().max_message_size(None).max_frame_size(None)
}

async fn bind() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
    let port = listener.local_addr().expect("a bound socket").port();
    (listener, port)
}
