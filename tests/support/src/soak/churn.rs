//! Objects that come, change and go all the time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::{BUSY, configmap};
use crate::cluster::Cluster;

/// It ends when it is dropped.
pub(super) struct Churn {
    over: Arc<AtomicBool>,
    changes: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Churn {
    pub(super) fn start(cluster: &Arc<Cluster>) -> Self {
        let (over, changes) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let cluster = Arc::clone(cluster);
        let thread = {
            let (over, changes) = (Arc::clone(&over), Arc::clone(&changes));
            std::thread::spawn(move || {
                for number in 0_usize.. {
                    if over.load(Ordering::Relaxed) {
                        return;
                    }
                    let name = format!("object-{}", number % NAMES);
                    if number % 3 == 2 {
                        cluster.delete("configmaps", BUSY, &name);
                    } else {
                        cluster.put(configmap(BUSY, &name, &format!("change {number}")));
                    }
                    changes.fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(PAUSE);
                }
            })
        };
        Self { over, changes, thread: Some(thread) }
    }

    /// How much has changed so far.
    pub(super) fn changes(&self) -> usize {
        self.changes.load(Ordering::Relaxed)
    }
}

impl Drop for Churn {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// No multiple of three, so that each name is deleted in its turn.
const NAMES: usize = 50;
const PAUSE: Duration = Duration::from_millis(20);
