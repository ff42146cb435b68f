#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::net::SocketAddr;
use std::sync::Mutex;

use tokio::io::{DuplexStream, duplex};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::*;
use crate::api_connection::test_server::{at_once, until};
use crate::error::Kind;

/// A forward that is served, and its pod's ends of the streams.
struct Served {
    addresses: Vec<SocketAddr>,
    pods: mpsc::UnboundedReceiver<DuplexStream>,
    traffic: Arc<Traffic>,
    /// What the next streams are instead.
    failure: Arc<Mutex<Option<Error>>>,
    serving: JoinHandle<Infallible>,
}

async fn served_to(owners: Owners) -> Served {
    let listeners = listen(0).await.unwrap();
    let addresses = listeners.iter().map(|listener| listener.local_addr().unwrap()).collect();
    let (sender, pods) = mpsc::unbounded_channel();
    let (traffic, failure) = (Arc::<Traffic>::default(), Arc::new(Mutex::new(None::<Error>)));
    let next = failure.clone();
    let connect: Connect = Arc::new(move || {
        let (near, far) = duplex(64 * 1024);
        let failure = next.lock().unwrap().clone();
        let result: Result<PodStream> = failure.map_or_else(
            || {
                sender.send(far).unwrap();
                Ok(Box::new(near) as PodStream)
            },
            Err,
        );
        Box::pin(async move { result })
    });
    let serving = tokio::spawn(serve(listeners, connect, owners, traffic.clone()));
    Served { addresses, pods, traffic, failure, serving }
}

async fn served() -> Served {
    served_to(Owners::of_this_process()).await
}

impl Served {
    async fn browser(&self) -> TcpStream {
        TcpStream::connect(self.addresses.first().unwrap()).await.unwrap()
    }
}

async fn all(stream: &mut TcpStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

#[tokio::test]
async fn bytes_are_passed_both_ways_on_both_families() {
    let mut served = served().await;
    for address in served.addresses.clone() {
        let mut browser = TcpStream::connect(address).await.unwrap();
        browser.write_all(b"GET / HTTP/1.1\r\nHost: localhost:8000\r\n\r\n").await.unwrap();
        let mut pod = served.pods.recv().await.unwrap();
        let mut bytes = vec![0; 40];
        pod.read_exact(&mut bytes).await.unwrap();
        assert_eq!(bytes, b"GET / HTTP/1.1\r\nHost: localhost:8000\r\n\r\n");
        pod.write_all(b"HTTP/1.1 200 OK\r\n\r\nhello").await.unwrap();
        drop(pod);
        assert_eq!(all(&mut browser).await, "HTTP/1.1 200 OK\r\n\r\nhello");
    }
    assert_eq!(*served.traffic.trouble().borrow(), None);
    assert_eq!(served.traffic.connections(), served.addresses.len() as u64);
    until("they have ended", || served.traffic.live() == 0).await;
}

#[tokio::test]
async fn many_bytes_arrive_whole_both_ways_at_once() {
    let mut served = served().await;
    let sent: Vec<u8> = (0..8 * 1024 * 1024_u32).map(|number| number.to_le_bytes()[1]).collect();
    let browser = served.browser().await;
    let pod = served.pods.recv().await.unwrap();
    let side = async |stream: Box<dyn crate::port_forward::Stream>| {
        let (mut from, mut to) = tokio::io::split(stream);
        let mut got = vec![0; sent.len()];
        let (read, written) = tokio::join!(from.read_exact(&mut got), to.write_all(&sent));
        read.unwrap();
        written.unwrap();
        assert!(got == sent, "the bytes differ");
    };
    tokio::join!(side(Box::new(browser)), side(Box::new(pod)));
}

#[tokio::test]
async fn a_pod_that_cannot_be_reached_is_a_502_that_says_why_and_the_next_connection_is_dialed_anew() {
    let mut served = served().await;
    *served.failure.lock().unwrap() =
        Some(Error::unreachable("no pod of `headlamp/ui` is ready").cause("CrashLoopBackOff"));
    let mut news = served.traffic.trouble();
    for round in 0..3 {
        let mut browser = served.browser().await;
        browser.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let answer = all(&mut browser).await;
        assert!(answer.starts_with("HTTP/1.1 502 Bad Gateway\r\n"), "{answer}");
        for part in ["no pod of `headlamp/ui` is ready", "caused by: CrashLoopBackOff", "Connection: close"] {
            assert!(answer.contains(part), "no {part}: {answer}");
        }
        drop(browser);
        until("the connection has ended", || served.traffic.live() == 0).await;
        assert_eq!(news.has_changed().unwrap(), round == 0, "it is news once");
        let told = news.borrow_and_update().as_ref().map(|error| error.message().to_owned());
        assert_eq!(told.as_deref(), Some("no pod of `headlamp/ui` is ready"));
    }
    *served.failure.lock().unwrap() = None;
    let mut browser = served.browser().await;
    served.pods.recv().await.unwrap().write_all(b"here").await.unwrap();
    let mut bytes = [0; 4];
    browser.read_exact(&mut bytes).await.unwrap();
    assert_eq!(&bytes, b"here");
    assert!(news.has_changed().unwrap());
    assert_eq!(*news.borrow_and_update(), None);
    assert_eq!((served.traffic.connections(), served.traffic.live()), (4, 1));
}

/// Ends as a port-forward does that was cut.
struct Broken;

impl AsyncRead for Broken {
    fn poll_read(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        _: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        let error = Error::unreachable("nothing listens on port 4466 of the pod `ui-1`");
        std::task::Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionReset, error)))
    }
}

#[tokio::test]
async fn a_stream_that_breaks_before_its_answer_is_a_502_too_and_its_error_keeps_its_words() {
    let listeners = listen(0).await.unwrap();
    let address = listeners.first().unwrap().local_addr().unwrap();
    let connect: Connect = Arc::new(|| {
        let stream: PodStream = Box::new(tokio::io::join(Broken, tokio::io::sink()));
        Box::pin(async move { Ok(stream) })
    });
    tokio::spawn(serve(listeners, connect, Owners::of_this_process(), Arc::default()));
    let mut browser = TcpStream::connect(address).await.unwrap();
    browser.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let answer = all(&mut browser).await;
    assert!(answer.contains("502") && answer.contains("nothing listens on port 4466 of the pod `ui-1`"), "{answer}");
}

#[tokio::test]
async fn a_browser_that_leaves_frees_the_pods_stream() {
    let mut served = served().await;
    let browser = served.browser().await;
    let mut pod = served.pods.recv().await.unwrap();
    drop(browser);
    let mut nothing = Vec::new();
    let ended = timeout(2 * GOODBYE, pod.read_to_end(&mut nothing)).await;
    assert_eq!(ended.unwrap().unwrap(), 0);
}

#[tokio::test]
async fn whoever_is_another_user_gets_nothing() {
    if !cfg!(target_os = "linux") {
        return;
    }
    let mut served = served_to(Owners::these(&[u32::MAX])).await;
    let mut browser = served.browser().await;
    assert_eq!(browser.read(&mut [0]).await.unwrap_or_default(), 0);
    assert!(served.pods.try_recv().is_err());
}

#[tokio::test]
async fn dropping_it_frees_the_port_and_ends_the_connections() {
    let mut served = served().await;
    let mut browser = served.browser().await;
    let _pod = served.pods.recv().await.unwrap();
    served.serving.abort();
    assert!(served.serving.await.unwrap_err().is_cancelled());
    assert_eq!(browser.read(&mut [0]).await.unwrap_or_default(), 0);
    let free = |address| std::net::TcpListener::bind(address).ok();
    for address in served.addresses {
        at_once("the port is free", || free(address));
    }
}

#[tokio::test]
async fn a_port_that_is_taken_is_an_error_that_names_it() {
    let served = served().await;
    let port = served.addresses.first().unwrap().port();
    let error = listen(port).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Settings);
    assert!(error.to_string().contains(&format!("port {port} of this machine is taken")), "{error}");
}
