#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

use std::sync::{Arc, Mutex};

use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio_tungstenite::tungstenite::protocol::Role;

use super::*;

#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<News>>>);

impl Listener for Heard {
    fn hear(&mut self, news: News) -> Option<io::Error> {
        let error = (news != News::Alive).then(|| io::Error::other(format!("{news:?}")));
        self.0.lock().unwrap().push(news);
        error
    }
}

impl Heard {
    fn all(&self) -> Vec<News> {
        self.0.lock().unwrap().clone()
    }
}

/// Our end, the API server's end, what is heard of it, and what breaks it.
struct Pair {
    stream: PodBytes<DuplexStream, Heard>,
    server: WebSocketStream<DuplexStream>,
    heard: Heard,
    cancel: CancellationToken,
}

async fn pair(ping_every: Duration) -> Pair {
    let (near, far) = duplex(1024 * 1024);
    let (heard, cancel) = (Heard::default(), CancellationToken::new());
    let near = WebSocketStream::from_raw_socket(near, Role::Client, None).await;
    let server = WebSocketStream::from_raw_socket(far, Role::Server, None).await;
    Pair { stream: PodBytes::new(near, heard.clone(), ping_every, cancel.clone()), server, heard, cancel }
}

async fn greeted() -> Pair {
    let mut pair = pair(PING_EVERY).await;
    pair.send(DATA, &4466_u16.to_le_bytes()).await;
    pair.send(ERROR, &4466_u16.to_le_bytes()).await;
    pair
}

impl Pair {
    async fn send(&mut self, channel: u8, bytes: &[u8]) {
        self.server.send(Message::binary([&[channel], bytes].concat())).await.unwrap();
    }

    async fn error(&mut self) -> String {
        self.stream.read_u8().await.unwrap_err().to_string()
    }
}

#[tokio::test]
async fn bytes_come_and_go_without_the_greeting() {
    let mut pair = greeted().await;
    pair.send(DATA, b"hello ").await;
    pair.send(DATA, b"").await;
    pair.send(DATA, b"world").await;
    let mut bytes = [0; 11];
    pair.stream.read_exact(&mut bytes).await.unwrap();
    assert_eq!(&bytes, b"hello world");
    pair.stream.write_all(b"answer").await.unwrap();
    pair.stream.flush().await.unwrap();
    assert_eq!(pair.server.next().await.unwrap().unwrap().into_data().as_ref(), b"\0answer");
    assert_eq!(pair.heard.all(), [News::Alive]);
}

#[tokio::test]
async fn a_clean_end_comes_after_all_bytes() {
    let mut pair = greeted().await;
    pair.send(DATA, b"all").await;
    pair.server.close(None).await.unwrap();
    let mut text = String::new();
    pair.stream.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "all");
    assert!(pair.stream.write_all(b"x").await.is_err());
    assert_eq!(pair.heard.all(), [News::Alive]);
}

#[tokio::test]
async fn a_cut_is_an_error_after_all_bytes_that_came() {
    let mut pair = greeted().await;
    pair.send(DATA, b"some").await;
    drop(pair.server);
    let mut bytes = Vec::new();
    let error = pair.stream.read_to_end(&mut bytes).await.unwrap_err();
    assert_eq!((bytes.as_slice(), error.to_string().as_str()), (&b"some"[..], "Cut"));
    assert_eq!(pair.heard.all(), [News::Alive, News::Cut]);
}

#[tokio::test]
async fn the_nodes_own_words_are_the_error() {
    let mut pair = greeted().await;
    pair.send(ERROR, b"connect: connection refused").await;
    pair.server.close(None).await.unwrap();
    assert_eq!(pair.error().await, "Failed(\"connect: connection refused\")");
    assert_eq!(pair.heard.all(), [News::Failed("connect: connection refused".into())]);
    assert_eq!(pair.error().await, "connection aborted", "it is told once");
}

#[tokio::test]
async fn who_writes_hears_the_nodes_words_too() {
    let mut pair = greeted().await;
    pair.send(ERROR, b"gone").await;
    drop(pair.server);
    let error = loop {
        if let Err(error) = async {
            pair.stream.write_all(b"GET /").await?;
            pair.stream.flush().await
        }
        .await
        {
            break error;
        }
    };
    assert_eq!(error.to_string(), "Failed(\"gone\")");
}

#[tokio::test]
async fn the_first_word_is_waited_for_and_not_taken() {
    let mut pair = greeted().await;
    let silent = tokio::time::timeout(Duration::from_millis(20), pair.stream.first_word()).await;
    assert!(silent.is_err());
    pair.send(DATA, b"x").await;
    pair.stream.first_word().await.unwrap();
    assert_eq!(pair.stream.read_u8().await.unwrap(), b'x');
    pair.send(ERROR, b"no").await;
    assert!(pair.stream.first_word().await.is_err());
}

/// Long enough for an answer on a busy machine.
const SOON: Duration = Duration::from_millis(200);

#[tokio::test]
async fn silence_is_asked_about_and_then_is_a_cut() {
    let begun = Instant::now();
    let mut pair = pair(SOON).await;
    assert_eq!(pair.error().await, "Cut");
    assert!(begun.elapsed() >= 2 * SOON);
    assert!(matches!(pair.server.next().await, Some(Ok(Message::Ping(_)))));
}

#[tokio::test]
async fn an_idle_stream_whose_other_end_answers_lives_on() {
    let mut pair = pair(SOON).await;
    pair.send(DATA, &4466_u16.to_le_bytes()).await;
    let reading = tokio::spawn(async move { pair.stream.read_u8().await });
    for _ in 0..5 {
        assert!(matches!(pair.server.next().await, Some(Ok(Message::Ping(_)))));
        // Our answer stands ready, and goes with this.
        pair.server.flush().await.unwrap();
    }
    pair.server.send(Message::binary(b"\0x".as_slice())).await.unwrap();
    assert_eq!(reading.await.unwrap().unwrap(), b'x');
}

#[tokio::test]
async fn a_reset_breaks_whoever_waits() {
    let mut pair = greeted().await;
    let cancel = pair.cancel.clone();
    let reading = tokio::spawn(async move { pair.stream.read_u8().await });
    tokio::task::yield_now().await;
    cancel.cancel();
    assert_eq!(reading.await.unwrap().unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
}

#[tokio::test]
async fn what_is_not_read_holds_up_its_writer_only() {
    let (near, far) = duplex(4096);
    let near = WebSocketStream::from_raw_socket(near, Role::Client, None).await;
    let mut stream = PodBytes::new(near, Heard::default(), PING_EVERY, CancellationToken::new());
    let mut server = WebSocketStream::from_raw_socket(far, Role::Server, None).await;
    let sent = vec![7; 1024 * 1024];
    let writing = async {
        stream.write_all(&sent).await.unwrap();
        stream.flush().await.unwrap();
    };
    let reading = async {
        let mut length = 0;
        while length < sent.len() {
            let message = server.next().await.unwrap().unwrap().into_data();
            assert!(message.len() <= LARGEST_MESSAGE + 1 && message[0] == DATA);
            length += message.len() - 1;
        }
    };
    tokio::join!(writing, reading);
}
