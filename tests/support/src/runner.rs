//! A thread with a tokio runtime for a double: it ends, with all that it does, when it is dropped.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use futures_util::FutureExt;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use crate::server::{lock, panic_text};

/// The thread and what ends it.
pub(crate) struct Runner {
    pub(crate) handle: Handle,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    panics: Panics,
}

/// What tasks panicked with: their tests must fail.
#[derive(Clone, Default)]
pub(crate) struct Panics(Arc<Mutex<Vec<String>>>);

impl Panics {
    /// The future's result, or `None` if it panicked.
    pub(crate) async fn caught<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        match AssertUnwindSafe(future).catch_unwind().await {
            Ok(result) => Some(result),
            Err(panic) => {
                lock(&self.0).push(panic_text(panic.as_ref()));
                None
            }
        }
    }
}

impl Runner {
    pub(crate) fn start() -> Self {
        let runtime = Builder::new_current_thread().enable_io().enable_time().build().expect("a runtime");
        let handle = runtime.handle().clone();
        let (end, ended) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let _ = runtime.block_on(ended);
        });
        Self { handle, end: Some(end), thread: Some(thread), panics: Panics::default() }
    }

    pub(crate) fn panics(&self) -> Panics {
        self.panics.clone()
    }

    /// Starts a task; if it panics, the drop does.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let panics = self.panics();
        self.handle.spawn(async move {
            panics.caught(task).await;
        });
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let panics = std::mem::take(&mut *lock(&self.panics.0));
        assert!(panics.is_empty() || std::thread::panicking(), "a double panicked: {}", panics.join("; "));
    }
}
