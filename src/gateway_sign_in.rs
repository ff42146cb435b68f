//! The sign-in that our session page's button starts. There is one at a time: a second press, in
//! whatever tab, joins the one that is under way.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::error::{Error, Result};
use crate::secret::Secret;

/// The one that is under way, and how the last one failed. Copies share it.
#[derive(Clone, Default)]
pub(crate) struct GatewaySignIn(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    running: Option<Running>,
    failure: Option<Error>,
}

struct Running {
    stage: watch::Receiver<Stage>,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// How far a sign-in has come.
#[derive(Clone, Debug)]
pub(crate) enum Stage {
    Begun,
    /// A tab is to go there.
    InTab(Secret),
    /// It has ended, well or not.
    Ended,
}

impl GatewaySignIn {
    /// Begins one, unless one is under way. `sign_in` is handed the way to tell where a tab is to go.
    pub(crate) fn begin<S, F>(&self, sign_in: S) -> watch::Receiver<Stage>
    where
        S: FnOnce(mpsc::UnboundedSender<Secret>) -> F,
        F: Future<Output = Result<()>> + Send + 'static,
    {
        let mut state = self.state();
        if let Some(running) = &state.running {
            return running.stage.clone();
        }
        let (address, addresses) = mpsc::unbounded_channel();
        let (progress, seen) = watch::channel(Stage::Begun);
        let task = tokio::spawn(self.clone().run(sign_in(address), addresses, progress));
        *state = State { running: Some(Running { stage: seen.clone(), task }), failure: None };
        seen
    }

    async fn run(
        self,
        sign_in: impl Future<Output = Result<()>>,
        mut addresses: mpsc::UnboundedReceiver<Secret>,
        progress: watch::Sender<Stage>,
    ) {
        tokio::pin!(sign_in);
        let result = loop {
            tokio::select! {
                result = &mut sign_in => break result,
                Some(address) = addresses.recv() => drop(progress.send_replace(Stage::InTab(address))),
            }
        };
        *self.state() = State { running: None, failure: result.err() };
        progress.send_replace(Stage::Ended);
    }

    /// `None` if none is under way.
    pub(crate) fn stage(&self) -> Option<Stage> {
        self.state().running.as_ref().map(|running| running.stage.borrow().clone())
    }

    /// Why the last one failed.
    pub(crate) fn failure(&self) -> Option<Error> {
        self.state().failure.clone()
    }

    /// What went wrong has come right.
    pub(crate) fn forget_failure(&self) {
        self.state().failure = None;
    }

    /// Gives up the one that is under way.
    pub(crate) fn stop(&self) {
        self.state().running = None;
    }

    /// Every change is one assignment, so a thread that died within leaves nothing half done.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use tokio::sync::oneshot;

    use super::*;

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    #[test]
    fn a_second_press_joins_the_sign_in_that_is_under_way() {
        block_on(async {
            let sign_ins = GatewaySignIn::default();
            let (end, ended) = oneshot::channel::<Result<()>>();
            let mut first = sign_ins.begin(|tab| async move {
                tab.send(Secret::new("there")).unwrap();
                ended.await.unwrap()
            });
            let mut second = sign_ins.begin(|_| async { Err(Error::bug("it began twice")) });
            for stage in [&mut first, &mut second] {
                let stage = stage.wait_for(|stage| matches!(stage, Stage::InTab(_))).await.unwrap().clone();
                assert!(matches!(stage, Stage::InTab(address) if address.expose() == "there"));
            }
            assert!(matches!(sign_ins.stage(), Some(Stage::InTab(_))));
            end.send(Err(Error::sign_in_failed("no"))).unwrap();
            second.wait_for(|stage| matches!(stage, Stage::Ended)).await.unwrap();
            assert!(sign_ins.stage().is_none());
            assert_eq!(sign_ins.failure().unwrap().message(), "no");
            let mut third = sign_ins.begin(|_| async { Ok(()) });
            third.wait_for(|stage| matches!(stage, Stage::Ended)).await.unwrap();
            assert!(sign_ins.failure().is_none());
        });
    }

    #[test]
    fn what_is_given_up_ends() {
        block_on(async {
            let sign_ins = GatewaySignIn::default();
            let (held, mut gone) = oneshot::channel::<()>();
            sign_ins.begin(|_| async move {
                let _held = held;
                std::future::pending().await
            });
            sign_ins.stop();
            assert!(sign_ins.stage().is_none());
            assert!((&mut gone).await.is_err());
        });
    }
}
