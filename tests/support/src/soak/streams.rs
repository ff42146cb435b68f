//! Streams that end badly: aborted in the middle, reset, closed on one side only. None may be left
//! behind, on either side.

use std::time::Duration;

use futures_util::SinkExt;
use http_body_util::BodyExt;
use hyper::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::Message;

use super::bytes::{DOWN, UP};
use super::{BUSY, FOLLOWED, QUIET, Soak, none};
use crate::cluster::Fault;
use crate::page_client::{PageClient, PageSocket, empty, in_time};
use crate::pattern::pattern_body;

/// How a page leaves.
#[derive(Clone, Copy)]
enum Leave {
    Reset,
    /// It closes its side, and reads on.
    Half,
}

impl Soak<'_> {
    pub(super) async fn bad_ends(&self, name: &str, page: &PageClient) {
        let connections = self.cluster.open_connections();
        let mut failures = Vec::new();
        self.cluster.forget_requests();
        for _ in 0..TIMES {
            for result in [
                self.download_aborted(page).await,
                self.upload_aborted(page).await,
                asked_and_half_closed(page).await,
                self.left(page, Leave::Reset).await,
                self.left(page, Leave::Half).await,
            ] {
                failures.extend(result.err());
            }
        }
        self.row(&format!("{name}: streams that end badly"), &format!("{TIMES} of each kind"), none(&failures));
        self.until(&format!("{name}: their watches end"), || self.cluster.watches() == FOLLOWED).await;
        self.until(&format!("{name}: their connections end"), || {
            self.cluster.open_connections() <= connections + KEPT_CONNECTIONS
        })
        .await;
        self.cluster.heal();
    }

    async fn download_aborted(&self, page: &PageClient) -> Result<(), String> {
        self.cluster.script(DOWN, Fault::bytes(None));
        let mut connection = page.connect().await?;
        let response = connection.ask(&Method::GET, &format!("/clusters/main{DOWN}"), empty()).await?;
        let mut body = response.into_body();
        for _ in 0..4 {
            in_time("a piece", async { body.frame().await.transpose() }).await?.ok_or("it has an end")?;
        }
        Ok(())
    }

    async fn upload_aborted(&self, page: &PageClient) -> Result<(), String> {
        self.cluster.script(UP, Fault::check_body(64 * 1024, Duration::ZERO));
        let before = self.cluster.requests_to(UP).len();
        let mut connection = page.connect().await?;
        let path = format!("/clusters/main{UP}");
        // Far more than it will come to.
        let sending = connection.upload(&path, 1 << 40, pattern_body(None));
        tokio::select! {
            answer = sending => Err(format!("an answer before the end: {:?}", answer.map(|answer| answer.status()))),
            begun = self.until("an upload begins", || self.cluster.requests_to(UP).len() > before) => {
                if begun { Ok(()) } else { Err("it did not begin".to_owned()) }
            }
        }
    }

    /// A program in a pod, and a watch.
    async fn left(&self, page: &PageClient, leave: Leave) -> Result<(), String> {
        let exec = format!("/clusters/main/api/v1/namespaces/{BUSY}/pods/web/exec?command=cat&stdin=true&stdout=true");
        let mut socket = page.socket(&exec, "v4.channel.k8s.io").await?;
        in_time("stdin", socket.0.send(Message::binary(&b"\0hello"[..]))).await?;
        let mut echo = Vec::new();
        while !echo.ends_with(b"hello") {
            echo = in_time("an echo", socket.next()).await?.ok_or("no echo")?.to_vec();
        }
        leave_by(leave, socket).await?;
        let version = self.cluster.revision();
        let watch = format!("/clusters/main/api/v1/namespaces/{QUIET}/configmaps?watch=1&resourceVersion={version}");
        leave_by(leave, page.socket(&watch, "base64.binary.k8s.io").await?).await
    }
}

/// A whole answer, or none: no half of one.
async fn asked_and_half_closed(page: &PageClient) -> Result<(), String> {
    let mut stream = page.stream().await?;
    let head = page.head("/clusters/main/version");
    in_time("a request", stream.write_all(head.as_bytes())).await?;
    in_time("a half-close", stream.shutdown()).await?;
    let mut answer = Vec::new();
    in_time("the end of a half-closed connection", stream.read_to_end(&mut answer)).await?;
    let answer = String::from_utf8_lossy(&answer);
    let whole = answer.starts_with("HTTP/1.1 200") && answer.contains("gitVersion");
    if answer.is_empty() || whole { Ok(()) } else { Err(format!("a half-closed connection got {answer}")) }
}

async fn leave_by(leave: Leave, mut socket: PageSocket) -> Result<(), String> {
    let stream = socket.0.get_mut();
    match leave {
        Leave::Reset => stream.set_zero_linger().map_err(|error| error.to_string()),
        Leave::Half => {
            in_time("a half-close", stream.shutdown()).await?;
            let mut rest = Vec::new();
            in_time("the end of a half-closed websocket", stream.read_to_end(&mut rest)).await.map(drop)
        }
    }
}

const TIMES: usize = 8;
/// Pools keep some that others began.
const KEPT_CONNECTIONS: usize = 4;
