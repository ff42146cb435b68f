//! One cluster, asked as one user: the credential on every request, renewed when the cluster
//! refuses it, and never another person's in its place.
//!
//! A 401 does not get out, but for one of an application behind `…/proxy/`: the credential is renewed and the request repeated once. What is refused
//! even then, or needs a person, is [`Trouble`], which all who use the cluster can watch.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::BodyExt;
use hyper::body::Bytes;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tower_service::Service;

use crate::api_connection::{ApiConnection, Credential, empty, full};
use crate::api_server::{Review, WhoAmI, self_subject_review};
use crate::credential::Credentials;
use crate::credential_source::Surroundings;
use crate::dialer::BoxError;
use crate::error::{Error, Kind, Result};
use crate::http2_pool::{AnswerBody, Body};
use crate::kubeconfig_user::{Impersonation, Target};
use crate::sign_in::Tab;
use crate::ui::StepAside;

/// A cluster as one user. Copies share it.
#[derive(Clone)]
pub(crate) struct ClusterClient(Arc<Shared>);

struct Shared {
    api: ApiConnection,
    credentials: Credentials,
    impersonation: Impersonation,
    /// The context's namespace.
    namespace: String,
    /// For one question of our own: `--request-timeout`.
    time_limit: Option<Duration>,
    person: Mutex<Option<Person>>,
    who: Mutex<Option<WhoAmI>>,
    /// Held by whoever asks whose a renewed credential is.
    asking: tokio::sync::Mutex<()>,
    trouble: watch::Sender<Option<Trouble>>,
    refused_since: Mutex<Option<Instant>>,
    /// Since when nothing but failures was heard of the cluster.
    silent_since: Mutex<Option<Instant>>,
    resets: watch::Sender<u64>,
    returns: watch::Sender<u64>,
}

type Name = (String, Option<String>);

/// Whose credentials are used, once that is known.
struct Person {
    /// The credential that was last found to be this person's.
    serial: u64,
    subject: Option<String>,
    /// User name and uid in the cluster's eyes, if it says so.
    name: Option<Name>,
}

/// Which of the connections a request takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    Request,
    /// For an answer that goes on for long.
    Stream,
    /// For an answer that may be `101`.
    Upgrade,
}

/// A request's body.
pub(crate) enum Payload {
    None,
    /// It can be sent a second time.
    Whole(Bytes),
    /// It cannot.
    Stream(Body),
}

/// Why the cluster cannot be asked until a person does something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// The credential has ended or is refused, and there is no other.
    SignIn(Error),
    /// Whoever signed in last is somebody else. This does not pass.
    AnotherUser(Error),
}

/// A cluster that has just been started refuses everybody for some seconds.
const REFUSALS_PASS: Duration = Duration::from_secs(20);
/// To find out whose a renewed credential is.
const PERSON_LIMIT: Duration = Duration::from_secs(10);
/// A cluster that was heard of less long ago was not away: whoever waits comes back soon.
const AWAY: Duration = Duration::from_secs(1);

impl ClusterClient {
    /// Nothing is asked yet. `time_limit` is for each question of our own; the page's take as long as they do.
    pub(crate) fn new(
        target: &Target,
        surroundings: Surroundings,
        step_aside: StepAside,
        time_limit: Option<Duration>,
    ) -> Result<Self> {
        Ok(Self(Arc::new(Shared {
            api: ApiConnection::new(&target.cluster, &surroundings.environment)?,
            credentials: Credentials::new(target, surroundings, step_aside)?,
            impersonation: target.user.impersonate.clone(),
            namespace: target.namespace.clone().unwrap_or_else(|| "default".to_owned()),
            time_limit,
            person: Mutex::default(),
            who: Mutex::default(),
            asking: tokio::sync::Mutex::default(),
            trouble: watch::Sender::new(None),
            refused_since: Mutex::default(),
            silent_since: Mutex::default(),
            resets: watch::Sender::new(0),
            returns: watch::Sender::new(0),
        })))
    }

    /// The answer's head, whatever its status, but no 401 of the cluster's own.
    pub(crate) async fn send(&self, line: Line, head: Request<()>, payload: Payload) -> Result<Response<AnswerBody>> {
        let credential = self.credential().await?;
        let again = match &payload {
            Payload::None => Some(Payload::None),
            Payload::Whole(bytes) => Some(Payload::Whole(bytes.clone())),
            Payload::Stream(_) => None,
        };
        let again = again.map(|payload| (copy(&head), payload));
        let proxied = is_proxied(head.uri());
        let answer = Box::pin(self.exchange(line, &credential, head, payload)).await?;
        if answer.status() != StatusCode::UNAUTHORIZED {
            self.accepted();
            return Ok(answer);
        }
        if proxied && self.is_accepted(&credential).await {
            return Ok(answer);
        }
        drop(answer);
        let renewed = self.0.credentials.renewed(&credential).await.map_err(|error| self.failed(error))?;
        let renewed = self.of_same_person(renewed).await?;
        let Some((head, payload)) = again else {
            return Err(Error::unreachable("the cluster refused the credential, which has been renewed since")
                .hint("repeat the request: its body was too long to be kept"));
        };
        let answer = Box::pin(self.exchange(line, &renewed, head, payload)).await?;
        if answer.status() != StatusCode::UNAUTHORIZED || proxied && self.is_accepted(&renewed).await {
            self.accepted();
            return Ok(answer);
        }
        // Whatever was renewed meanwhile counts for the next request.
        Err(match self.0.credentials.renewed(&renewed).await {
            Ok(_) => self.refused(),
            Err(error) => self.failed(error),
        })
    }

    /// Whom the cluster takes us for. From now on the credential of another person is not used.
    pub(crate) async fn review(&self) -> Result<Review> {
        let shared = &*self.0;
        let mut credential = shared.credentials.current().await.map_err(|error| self.failed(error))?;
        let mut review = self.who_is(&credential, &shared.impersonation).await?;
        if let Review::Refused(error) = review {
            credential = match shared.credentials.renewed(&credential).await {
                Ok(renewed) => renewed,
                // What the cluster said tells more than that there is nothing else.
                Err(failed) if failed.kind() == Kind::Other => return Ok(Review::Refused(error)),
                Err(failed) => return Err(failed),
            };
            review = self.who_is(&credential, &shared.impersonation).await?;
        }
        let who = match &review {
            Review::Known(who) => Some(who.clone()),
            Review::Accepted(_) => None,
            Review::Refused(_) => return Ok(review),
        };
        let name = match &who {
            Some(who) if shared.impersonation.user.is_none() => Some((who.username.clone(), who.uid.clone())),
            Some(_) => self.name_of(&credential).await?,
            None => None,
        };
        *locked(&shared.person) = Some(Person { serial: credential.serial, subject: credential.subject.clone(), name });
        *locked(&shared.who) = who;
        self.accepted();
        Ok(review)
    }

    /// Whom the cluster takes us for, as far as it says.
    pub(crate) fn who(&self) -> Option<WhoAmI> {
        locked(&self.0.who).clone()
    }

    pub(crate) fn trouble(&self) -> watch::Receiver<Option<Trouble>> {
        self.0.trouble.subscribe()
    }

    /// Whether [`Self::sign_in`] can come to anything.
    pub(crate) fn can_sign_in(&self) -> bool {
        self.0.credentials.can_sign_in()
    }

    /// Obtains a credential by whatever it takes; a person may be asked, in `tab` where
    /// that can be. See [`Credentials::sign_in`] for a tab that is left.
    pub(crate) async fn sign_in(&self, tab: Option<Tab>) -> Result<()> {
        let credential = self.0.credentials.sign_in(tab).await?;
        let credential = self.of_same_person(credential).await?;
        if let Review::Refused(error) = self.who_is(&credential, &self.0.impersonation).await? {
            return Err(error);
        }
        self.accepted();
        Ok(())
    }

    /// Whether [`Self::sign_in`] makes use of a browser tab, on the callback's port.
    pub(crate) fn signs_in_in_a_tab(&self) -> bool {
        self.0.credentials.signs_in_in_a_tab()
    }

    /// When the credential in use ends, as far as is known.
    pub(crate) fn expires(&self) -> Option<jiff::Timestamp> {
        self.0.credentials.expires()
    }

    /// Ends every connection but upgraded ones: after a sleep the other end has forgotten them.
    pub(crate) fn reset(&self) {
        self.0.api.reset();
        for counter in [&self.0.resets, &self.0.returns] {
            counter.send_modify(|count| *count += 1);
        }
    }

    /// Changes with each [`Self::reset`], for whoever has an upgraded connection.
    pub(crate) fn resets(&self) -> watch::Receiver<u64> {
        self.0.resets.subscribe()
    }

    /// Changes whenever it is worth trying again what failed: the cluster answers after it did not for
    /// a while, or everything is dialed anew.
    pub(crate) fn returns(&self) -> watch::Receiver<u64> {
        self.0.returns.subscribe()
    }

    /// The API server's address.
    pub(crate) fn server(&self) -> &str {
        &self.0.api.cluster().server
    }

    /// kube's client, over these connections and as this user.
    pub(crate) fn kube(&self) -> kube::Client {
        kube::Client::new(KubeService(self.clone()), self.0.namespace.clone())
    }

    async fn exchange(
        &self,
        line: Line,
        credential: &Credential,
        head: Request<()>,
        payload: Payload,
    ) -> Result<Response<AnswerBody>> {
        let Shared { api, impersonation, .. } = &*self.0;
        let proxied = is_proxied(head.uri());
        let request = head.map(|()| match payload {
            Payload::None => empty(),
            Payload::Whole(bytes) => full(bytes),
            Payload::Stream(body) => body,
        });
        let answer = match line {
            Line::Request => api.send(credential, impersonation, request).await,
            Line::Stream => api.stream(credential, impersonation, request).await,
            Line::Upgrade => api.upgrade(credential, impersonation, request).await,
        };
        if !proxied {
            self.heard(&answer);
        }
        answer
    }

    /// Notes whether the cluster answers. One that fails now and then is not away.
    fn heard(&self, answer: &Result<Response<AnswerBody>>) {
        let fails = match answer {
            Ok(answer) => [502, 503, 504].contains(&answer.status().as_u16()),
            Err(error) => error.kind() == Kind::Unreachable,
        };
        let mut since = locked(&self.0.silent_since);
        if fails {
            since.get_or_insert_with(Instant::now);
        } else if since.take().is_some_and(|since| since.elapsed() >= AWAY) {
            self.0.returns.send_modify(|count| *count += 1);
        }
    }

    async fn credential(&self) -> Result<Credential> {
        if let Some(Trouble::AnotherUser(error)) = &*self.0.trouble.borrow() {
            return Err(error.clone());
        }
        let credential = self.0.credentials.current().await.map_err(|error| self.failed(error))?;
        self.of_same_person(credential).await
    }

    /// The credential, if it is the same person's as those before: it says so itself, or the cluster
    /// does, which alone knows what a new issuer or another certificate's name is worth.
    async fn of_same_person(&self, credential: Credential) -> Result<Credential> {
        if self.is_known(&credential) {
            return Ok(credential);
        }
        // Whoever waits for those before must not wait for each of them.
        match timeout(PERSON_LIMIT, Box::pin(self.if_same_person(credential))).await {
            Ok(same) => same,
            Err(_) => Err(Error::unreachable("the cluster does not say whose the renewed credential is")),
        }
    }

    async fn if_same_person(&self, credential: Credential) -> Result<Credential> {
        let _asking = self.0.asking.lock().await;
        if self.is_known(&credential) {
            return Ok(credential);
        }
        let (subject, name) = match &*locked(&self.0.person) {
            Some(person) => (person.subject.clone(), person.name.clone()),
            None => return Ok(credential),
        };
        let same = match (name, self.name_of(&credential).await?) {
            (Some(name), Some(found)) => is_same_name(&name, &found),
            // Two that say who they are are not the same.
            _ => subject.is_none() || credential.subject.is_none(),
        };
        if !same {
            let error = Error::new(Kind::Other, "whoever signed in is somebody else than before")
                .hint("end this and run `kubectl headlamp open` again to go on as the new user");
            self.0.trouble.send_replace(Some(Trouble::AnotherUser(error.clone())));
            return Err(error);
        }
        if let Some(person) = &mut *locked(&self.0.person) {
            (person.serial, person.subject) = (credential.serial, credential.subject.clone());
        }
        Ok(credential)
    }

    fn is_known(&self, credential: &Credential) -> bool {
        let mut person = locked(&self.0.person);
        let Some(person) = &mut *person else { return true };
        let same = person.subject.is_some() && person.subject == credential.subject;
        if same {
            person.serial = credential.serial;
        }
        same || person.serial == credential.serial
    }

    /// Whether the cluster lets the credential in, so that a 401 was somebody else's.
    async fn is_accepted(&self, credential: &Credential) -> bool {
        let review = self.who_is(credential, &self.0.impersonation).await;
        matches!(review, Ok(Review::Known(_) | Review::Accepted(_)))
    }

    /// Whom the cluster takes the credential itself for; `None` where it does not say.
    async fn name_of(&self, credential: &Credential) -> Result<Option<Name>> {
        match self.who_is(credential, &Impersonation::default()).await? {
            Review::Known(who) => Ok(Some((who.username, who.uid))),
            Review::Accepted(_) => Ok(None),
            Review::Refused(error) => Err(self.failed(error)),
        }
    }

    async fn who_is(&self, credential: &Credential, impersonation: &Impersonation) -> Result<Review> {
        self.in_time(Box::pin(self_subject_review(&self.0.api, credential, impersonation))).await
    }

    /// A question of our own, which takes no longer than the user allows.
    async fn in_time<T>(&self, question: impl Future<Output = Result<T>>) -> Result<T> {
        let Some(limit) = self.0.time_limit else { return question.await };
        timeout(limit, question).await.unwrap_or_else(|_| {
            Err(Error::unreachable(format!("the cluster `{}` did not answer", self.server()))
                .cause(format!("no answer within {limit:?} (`--request-timeout`)")))
        })
    }

    fn accepted(&self) {
        *locked(&self.0.refused_since) = None;
        self.0
            .trouble
            .send_if_modified(|trouble| matches!(trouble, Some(Trouble::SignIn(_))) && trouble.take().is_some());
    }

    /// The cluster refuses what was just renewed.
    fn refused(&self) -> Error {
        self.failed(
            Error::new(Kind::Other, "the cluster refuses even a credential that was just renewed")
                .hint("`kubectl auth whoami` shows what it makes of it"),
        )
    }

    /// Notes that a person is needed, if one is. An unreachable provider mends itself, and so may a
    /// refusal.
    fn failed(&self, error: Error) -> Error {
        let lasts = match error.kind() {
            Kind::Unreachable | Kind::Interrupted => false,
            Kind::Other => locked(&self.0.refused_since).get_or_insert_with(Instant::now).elapsed() >= REFUSALS_PASS,
            _ => true,
        };
        if lasts {
            self.0.trouble.send_if_modified(|trouble| {
                let new = trouble.is_none();
                if new {
                    *trouble = Some(Trouble::SignIn(error.clone()));
                }
                new
            });
        }
        error
    }
}

/// A user name may change with each token (AWS puts a session into it) where the uid does not.
fn is_same_name(one: &Name, other: &Name) -> bool {
    one.0 == other.0 || one.1 == other.1 && one.1.as_ref().is_some_and(|uid| !uid.is_empty())
}

/// Every change is one assignment, so a thread that died within leaves nothing half done.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn copy(head: &Request<()>) -> Request<()> {
    let mut copy = Request::new(());
    copy.method_mut().clone_from(head.method());
    copy.uri_mut().clone_from(head.uri());
    copy.headers_mut().clone_from(head.headers());
    copy
}

/// Whether an application answers, and not the API server: a pod, a service, a node's kubelet.
fn is_proxied(uri: &Uri) -> bool {
    uri.path().split('/').any(|segment| segment == "proxy")
}

/// What kube sends its requests through.
#[derive(Clone)]
struct KubeService(ClusterClient);

impl Service<Request<kube::client::Body>> for KubeService {
    type Response = Response<AnswerBody>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<AnswerBody>, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<kube::client::Body>) -> Self::Future {
        let client = self.0.clone();
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let line = line(&head.method, &head.uri, &head.headers);
            let bytes = body.collect().await?.to_bytes();
            let payload = if bytes.is_empty() { Payload::None } else { Payload::Whole(bytes) };
            let answer = Box::pin(client.send(line, Request::from_parts(head, ()), payload));
            Ok(if line == Line::Stream { answer.await? } else { client.in_time(answer).await? })
        })
    }
}

fn line(method: &Method, uri: &Uri, headers: &HeaderMap) -> Line {
    let parameters = url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
    let endless = |(name, value): (std::borrow::Cow<'_, str>, std::borrow::Cow<'_, str>)| {
        matches!(&*name, "watch" | "follow") && matches!(&*value, "true" | "1" | "")
    };
    match () {
        () if headers.contains_key(header::UPGRADE) => Line::Upgrade,
        () if method == Method::GET && parameters.into_iter().any(endless) => Line::Stream,
        () => Line::Request,
    }
}

#[cfg(test)]
mod tests;
