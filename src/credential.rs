//! The credential of a kubeconfig's user, whatever kind it is: handed out while it is good, renewed
//! before it ends, renewed when the cluster refuses it, by one at a time.
//!
//! A renewal is a task of its own: whoever asked for it may go away. Those who wait share what
//! comes of it, and a failure is not tried again at once. Nobody is asked anything by our own
//! sign-in unless [`Credentials::sign_in`] is called; another exec plugin asks whenever it likes,
//! as it does under kubectl.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

pub(crate) use crate::api_connection::Credential;
use crate::clock::Clock;
use crate::credential_source::{InTab, Source, Surroundings, Why};
use crate::error::{Error, Kind, Result};
use crate::kubeconfig_user::Target;
use crate::sign_in::Tab;
use crate::sign_in::tab::left;
use crate::ui::StepAside;

/// The credential of one user at one cluster. Copies share it.
#[derive(Clone)]
pub(crate) struct Credentials(Arc<Shared>);

struct Shared {
    source: Source,
    clock: Clock,
    held: Mutex<Option<Held>>,
    /// Held by whoever renews.
    history: tokio::sync::Mutex<History>,
    /// How many renewals have ended, well or not.
    ended: AtomicU64,
    /// What is under way, and since when.
    under_way: Mutex<Option<(Why, Instant)>>,
    /// Ends the sign-in of the tab that asked last.
    last_tab: Mutex<CancellationToken>,
}

#[derive(Clone)]
struct Held {
    credential: Credential,
    /// When it is to be renewed; `None`: not before it is refused.
    due: Option<Timestamp>,
    /// When its file was read. A clock that says less was set back, and `due` means nothing.
    read: Option<Timestamp>,
}

impl Held {
    fn is_fresh(&self, now: Timestamp) -> bool {
        self.due.is_none_or(|due| now < due) && self.read.is_none_or(|read| read <= now)
    }
}

/// What became of the renewals so far.
#[derive(Default)]
struct History {
    last: Option<(Why, Result<Credential>)>,
    failures: u32,
    /// No further one meanwhile, unless a person asks for it. It has a beginning, so that a clock that
    /// is set back does not make it longer.
    quiet: Option<Range<Timestamp>>,
    /// The credential that was obtained because another one was refused, and when.
    after_refusal: Option<(u64, Timestamp)>,
}

impl Credentials {
    /// Nothing is read or run yet. `step_aside` is called before another program gets the terminal.
    pub(crate) fn new(target: &Target, surroundings: Surroundings, step_aside: StepAside) -> Result<Self> {
        Ok(Self(Arc::new(Shared {
            clock: surroundings.clock,
            source: Source::new(target, surroundings, step_aside)?,
            held: Mutex::default(),
            history: tokio::sync::Mutex::default(),
            ended: AtomicU64::new(0),
            under_way: Mutex::default(),
            last_tab: Mutex::default(),
        })))
    }

    /// A credential that is good as far as is known. One that ends soon is handed out once more
    /// while it is renewed in the background. An error of kind [`Kind::SignInNeeded`]: a person has
    /// to sign in first.
    pub(crate) async fn current(&self) -> Result<Credential> {
        let shared = &self.0;
        let now = shared.clock.now();
        let Some(held) = shared.held() else { return shared.renewal(Why::Due, None).await };
        if held.is_fresh(now) {
            return Ok(held.credential);
        }
        if held.credential.expires.is_some_and(|expires| expires <= now) {
            return shared.renewal(Why::Due, None).await;
        }
        if shared.source.is_quick() {
            return Ok(shared.renewal(Why::Due, None).await.unwrap_or(held.credential));
        }
        if shared.history.try_lock().is_ok() {
            drop(shared.spawn(Why::Due, None));
        }
        Ok(held.credential)
    }

    /// Another credential than the one that the cluster has just refused (401).
    pub(crate) async fn renewed(&self, refused: &Credential) -> Result<Credential> {
        self.0.renewal(Why::Refused(refused.serial), None).await
    }

    /// A credential by whatever it takes; a person may be asked. In `tab` where that is possible
    /// ([`Credentials::signs_in_in_a_tab`]), else in the terminal.
    ///
    /// A tab cannot say that it was closed, so the tab that asks last has the sign-in, and that of the
    /// one before ends with [`Kind::Interrupted`]. It ends too when what this returns is dropped.
    pub(crate) async fn sign_in(&self, tab: Option<Tab>) -> Result<Credential> {
        let Some(tab) = tab.filter(|_| self.signs_in_in_a_tab()) else {
            return self.0.renewal(Why::Asked, None).await;
        };
        let left = CancellationToken::new();
        let _guard = left.clone().drop_guard();
        let before = {
            let mut last = self.0.last_tab.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *last, left.clone())
        };
        before.cancel();
        self.0.renewal(Why::Asked, Some(InTab { tab, left })).await
    }

    /// Whether [`Credentials::sign_in`] makes use of a browser tab.
    pub(crate) fn signs_in_in_a_tab(&self) -> bool {
        self.0.source.signs_in_in_a_tab()
    }

    /// When the credential that is in use ends, as far as is known. Nothing is renewed for that.
    pub(crate) fn expires(&self) -> Option<Timestamp> {
        self.0.held().and_then(|held| held.credential.expires)
    }

    /// Whether [`Credentials::sign_in`] can come to anything.
    pub(crate) fn can_sign_in(&self) -> bool {
        self.0.source.can_sign_in()
    }
}

impl Shared {
    fn held(&self) -> Option<Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whoever did not ask for a sign-in waits for no person: the renewal goes on without them.
    async fn renewal(self: &Arc<Self>, why: Why, in_tab: Option<InTab>) -> Result<Credential> {
        let task = self.spawn(why, in_tab);
        let result = if why == Why::Asked {
            task.await
        } else {
            match timeout(self.patience(), task).await {
                Ok(result) => result,
                Err(_) => return Err(self.source.not_finished()),
            }
        };
        result.unwrap_or_else(|_| Err(Error::bug("renewing the credential ended without a result")))
    }

    /// How much longer the renewal that is under way may take.
    fn patience(&self) -> Duration {
        match *self.under_way.lock().unwrap_or_else(PoisonError::into_inner) {
            Some((Why::Asked, _)) => Duration::ZERO,
            Some((_, since)) => PATIENCE.saturating_sub(since.elapsed()),
            None => PATIENCE,
        }
    }

    fn spawn(self: &Arc<Self>, why: Why, in_tab: Option<InTab>) -> tokio::task::JoinHandle<Result<Credential>> {
        let (shared, before) = (self.clone(), self.ended.load(Ordering::SeqCst));
        tokio::spawn(async move { shared.renew(why, before, in_tab).await })
    }

    /// `before` is how many renewals had ended when this one was wished for.
    async fn renew(&self, why: Why, before: u64, in_tab: Option<InTab>) -> Result<Credential> {
        let mut history = self.history.lock().await;
        let tab_left = in_tab.as_ref().map(|in_tab| in_tab.left.clone()).unwrap_or_default();
        if tab_left.is_cancelled() {
            return Err(left());
        }
        let now = self.clock.now();
        let held = self.held();
        if let Some(result) = history.answers(why, self.ended.load(Ordering::SeqCst) > before, held.as_ref(), now) {
            return result;
        }
        let held = held.map(|held| held.credential);
        let serial = held.as_ref().map_or(0, |held| held.serial) + 1;
        let _under_way = UnderWay::begin(&self.under_way, why);
        let result = match self.source.obtain(why, held.as_ref(), in_tab).await {
            Ok(obtained)
                if matches!(why, Why::Refused(_)) && held.is_some_and(|held| held.same_as(&obtained.credential)) =>
            {
                Err(self.source.refused())
            }
            Ok(obtained) => {
                let now = self.clock.now();
                let due = match obtained.look_again {
                    Some(span) => now.saturating_add(span).ok(),
                    None => obtained.ends.map(|ends| due(ends, now)),
                };
                let read = obtained.look_again.map(|_| now);
                Ok(self.hold(Held { credential: Credential { serial, ..obtained.credential }, due, read }))
            }
            // Nobody shares the end of a sign-in that was left: it is nobody's failure.
            Err(error) if tab_left.is_cancelled() => return Err(error),
            Err(error) => Err(error),
        };
        history.note(why, &result, self.source.longest_pause(), self.clock.now());
        self.ended.fetch_add(1, Ordering::SeqCst);
        result
    }

    /// The same credential keeps its serial: it was only looked at again.
    fn hold(&self, mut new: Held) -> Credential {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = held.as_ref().filter(|held| held.credential.same_as(&new.credential)) {
            new.credential.serial = held.credential.serial;
        }
        held.insert(new).credential.clone()
    }
}

/// Says what is under way, for as long as it lives.
struct UnderWay<'a>(&'a Mutex<Option<(Why, Instant)>>);

impl<'a> UnderWay<'a> {
    fn begin(place: &'a Mutex<Option<(Why, Instant)>>, why: Why) -> Self {
        *place.lock().unwrap_or_else(PoisonError::into_inner) = Some((why, Instant::now()));
        Self(place)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl History {
    /// What there is to say without a renewal: somebody else's, a pause, or a cluster that refuses
    /// whatever it is shown.
    fn answers(&self, why: Why, meanwhile: bool, held: Option<&Held>, now: Timestamp) -> Option<Result<Credential>> {
        match (&self.last, held) {
            (Some((_, Ok(credential))), _) if meanwhile && why != Why::Refused(credential.serial) => {
                return Some(Ok(credential.clone()));
            }
            (Some((whose, Err(error))), _) if meanwhile && (why != Why::Asked || *whose == Why::Asked) => {
                return Some(Err(error.clone()));
            }
            (_, Some(held)) if matches!(why, Why::Refused(serial) if serial < held.credential.serial) => {
                return Some(Ok(held.credential.clone()));
            }
            (_, Some(held)) if why == Why::Due && held.is_fresh(now) => return Some(Ok(held.credential.clone())),
            _ => {}
        }
        if let Some((_, Err(error))) = self.last.as_ref().filter(|_| why != Why::Asked)
            && self.quiet.as_ref().is_some_and(|quiet| quiet.contains(&now))
        {
            return Some(Err(error.clone()));
        }
        let (serial, at) = self.after_refusal?;
        let since = now.duration_since(at);
        let refused_again = why == Why::Refused(serial) && (SignedDuration::ZERO..REFUSAL_PAUSE).contains(&since);
        refused_again.then(|| {
            Err(Error::new(Kind::Other, "the cluster refuses even a credential that was just renewed")
                .hint("`kubectl auth whoami` shows what it makes of it"))
        })
    }

    fn note(&mut self, why: Why, result: &Result<Credential>, longest: SignedDuration, now: Timestamp) {
        if let Ok(credential) = result {
            (self.failures, self.quiet) = (0, None);
            if matches!(why, Why::Refused(_)) {
                self.after_refusal = Some((credential.serial, now));
            }
        } else {
            let pause = SignedDuration::from_secs(1 << self.failures.min(10)).min(longest);
            self.failures += 1;
            self.quiet = now.saturating_add(pause).ok().map(|until| now..until);
        }
        self.last = Some((why, result.clone()));
    }
}

/// When a credential with this end is to be renewed: a minute before, but not in the first half of
/// its life, and not over and over.
fn due(ends: Timestamp, now: Timestamp) -> Timestamp {
    let margin = (ends.duration_since(now) / 2).clamp(SignedDuration::ZERO, LONGEST_MARGIN);
    let due = ends.saturating_sub(margin).unwrap_or(ends);
    due.max(now.saturating_add(SHORTEST_LIFE).unwrap_or(now))
}

/// A renewal that asks nobody takes no longer, with a provider that answers.
const PATIENCE: Duration = Duration::from_secs(10);
const LONGEST_MARGIN: SignedDuration = SignedDuration::from_secs(60);
/// A credential that has ended when it comes is shown to the cluster all the same.
const SHORTEST_LIFE: SignedDuration = SignedDuration::from_secs(5);
/// A cluster that refuses a renewed credential will refuse the next one too; but one that has just
/// been started refuses everybody for some seconds.
const REFUSAL_PAUSE: SignedDuration = SignedDuration::from_secs(15);

#[cfg(test)]
mod tests;
