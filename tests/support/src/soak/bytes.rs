//! Mebibytes each way, every byte looked at.

use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use hyper::Method;
use serde_json::Value;
use tokio::time::timeout;

use super::Soak;
use crate::cluster::Fault;
use crate::page_client::{PageClient, empty, in_time};
use crate::pattern::{PatternCheck, pattern_body};
use crate::weight::Weight;

impl Soak<'_> {
    pub(super) async fn both_ways(&self, name: &str, megabytes: u64, page: &PageClient) {
        let length = megabytes << 20;
        for way in ["down", "up"] {
            let (what, began) = (format!("{name}: {megabytes} MiB {way}"), Instant::now());
            let before = Weight::of(self.running.id());
            let carried = async {
                if way == "down" { self.download(page, length).await } else { self.upload(page, length).await }
            };
            let result = timeout(CARRIED_WITHIN, carried).await.unwrap_or_else(|_| Err("takes too long".to_owned()));
            let after = Weight::of(self.running.id());
            let grown = before.zip(after).map_or(0, |(before, after)| after.peak.saturating_sub(before.peak));
            let seen = format!("{:.1?}, {grown} KiB more at most", began.elapsed());
            let kept = if grown > KEPT { Err(format!("{grown} KiB are more than {KEPT}")) } else { Ok(()) };
            self.row(&what, &seen, result.and(kept));
        }
    }

    async fn download(&self, page: &PageClient, length: u64) -> Result<(), String> {
        self.cluster.script(DOWN, Fault::bytes(Some(length)));
        let mut connection = page.connect().await?;
        let response = connection.ask(&Method::GET, &format!("/clusters/main{DOWN}"), empty()).await?;
        let mut body = response.into_body();
        let mut check = PatternCheck::default();
        while let Some(frame) = in_time("a piece", async { body.frame().await.transpose() }).await? {
            if let Some(data) = frame.data_ref() {
                check.take(data);
            }
        }
        right(check.length, check.wrong_at, length)
    }

    async fn upload(&self, page: &PageClient, length: u64) -> Result<(), String> {
        self.cluster.script(UP, Fault::check_body(64 * 1024, Duration::ZERO));
        let mut connection = page.connect().await?;
        let response = connection.upload(&format!("/clusters/main{UP}"), length, pattern_body(Some(length))).await?;
        let body = in_time("an answer", response.into_body().collect()).await?.to_bytes();
        let seen: Value = serde_json::from_slice(&body).map_err(|_| String::from_utf8_lossy(&body).into_owned())?;
        right(seen["length"].as_u64().unwrap_or_default(), seen["wrongAt"].as_u64(), length)
    }
}

fn right(came: u64, wrong_at: Option<u64>, sent: u64) -> Result<(), String> {
    match wrong_at {
        None if came == sent => Ok(()),
        None => Err(format!("{came} bytes came of {sent}")),
        Some(at) => Err(format!("byte {at} is wrong")),
    }
}

/// As an application behind the API server's proxy takes and gives them.
pub(super) const DOWN: &str = "/api/v1/namespaces/quiet/services/files/proxy/down";
pub(super) const UP: &str = "/api/v1/namespaces/quiet/services/files/proxy/up";
const CARRIED_WITHIN: Duration = Duration::from_secs(600);
/// KiB that may be on their way at once.
const KEPT: u64 = 24 * 1024;
