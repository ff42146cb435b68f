//! Many watches at once, and how fast requests are meanwhile.

use std::time::{Duration, Instant};

use futures_util::future::join_all;

use super::{FOLLOWED, QUIET, Soak, configmap, none};
use crate::page_client::{PageClient, PageSocket, in_time};

impl Soak<'_> {
    pub(super) async fn many_watches(&self, name: &str, count: usize, page: &PageClient) {
        let what = format!("{name}: {count} watches");
        match self.watch(name, count, page).await {
            Ok((seen, result)) => self.row(&what, &seen, result),
            Err(error) => self.row(&what, "", Err(error)),
        }
        self.until(&format!("{name}: the watches end"), || self.cluster.watches() == FOLLOWED).await;
    }

    async fn watch(&self, name: &str, count: usize, page: &PageClient) -> Result<(String, Result<(), String>), String> {
        let alone = times(page).await?;
        let version = self.cluster.revision();
        let path = format!("/clusters/main/api/v1/namespaces/{QUIET}/configmaps?watch=1&resourceVersion={version}");
        let mut sockets = Vec::new();
        while sockets.len() < count {
            let some = (count - sockets.len()).min(AT_ONCE);
            for socket in join_all((0..some).map(|_| page.socket(&path, "base64.binary.k8s.io"))).await {
                sockets.push(socket?);
            }
        }
        self.until(&format!("{name}: all watches"), || self.cluster.watches() == FOLLOWED + count).await;
        let mut bound = alone.0 * 3 + SLACK;
        let mut among = times(page).await?;
        // Something else may keep the machine busy for a while; the watches would every time.
        for _ in 1..ROUNDS {
            if among.0 > bound {
                among = times(page).await?;
            }
        }
        let object = format!("of-the-{}", name.replace(' ', "-"));
        self.cluster.put(configmap(QUIET, &object, "seen by all"));
        let seen = join_all(sockets.iter_mut().map(|socket| event_of(socket, &object))).await;
        let mut failures: Vec<String> = seen.into_iter().filter_map(Result::err).collect();
        if among.0 > bound {
            // What makes requests as slow without them is something else too.
            drop(sockets);
            self.until(&format!("{name}: no watches"), || self.cluster.watches() == FOLLOWED).await;
            bound = bound.max(times(page).await?.0 * 3 + SLACK);
        }
        if among.0 > bound {
            failures.push(format!("requests take {:.1?} beside them, more than {bound:.1?}", among.0));
        }
        let told = format!(
            "GETs take {:.1?} beside them (99 %: {:.1?}), {:.1?} without (99 %: {:.1?})",
            among.0, among.1, alone.0, alone.1
        );
        Ok((told, none(&failures)))
    }
}

/// Half of the requests take no longer than the first, 99 of 100 no longer than the second.
async fn times(page: &PageClient) -> Result<(Duration, Duration), String> {
    let mut connection = page.connect().await?;
    let mut times = Vec::new();
    for _ in 0..REQUESTS {
        let began = Instant::now();
        connection.get("/clusters/main/version").await?;
        times.push(began.elapsed());
    }
    times.sort();
    let at = |part: usize| times.get(REQUESTS * part / 100).copied().unwrap_or_default();
    Ok((at(50), at(99)))
}

async fn event_of(socket: &mut PageSocket, name: &str) -> Result<(), String> {
    let told = in_time("an event", socket.next()).await?.ok_or("a watch was closed")?;
    if String::from_utf8_lossy(&told).contains(name) { Ok(()) } else { Err("another event than expected".to_owned()) }
}

/// Websockets that are asked for at the same time.
const AT_ONCE: usize = 25;
const REQUESTS: usize = 200;
/// How often that is measured before it counts.
const ROUNDS: usize = 5;
/// For a machine that does other things besides.
const SLACK: Duration = Duration::from_millis(20);
