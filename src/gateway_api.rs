//! The half of the local server that answers the Kubernetes API for the browser's page: requests,
//! websockets that are passed through, and watches that are held.
//!
//! Who may ask has been decided before (`gateway_request`), and the credential is the
//! `ClusterClient`'s. While a person has to sign in, a few requests wait for that; the others, and
//! those that waited for nothing, are told so with a 502 (`gateway_answer` says why not 401).

use std::convert::Infallible;
use std::future::pending;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use hyper_util::rt::TokioIo;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::api_connection::empty;
use crate::cluster_client::{ClusterClient, Line, Payload, Trouble};
use crate::error::{Error, Kind, Result};
use crate::gateway_answer::{Passing, RELOAD, SMALL, hold_back, json, passed_on, status, unanswered};
use crate::gateway_headers::{from_api_websocket, to_api, to_api_websocket};
use crate::gateway_request::ApiTarget;
use crate::http2_pool::{AnswerBody, Body};
use crate::random::Random;
use crate::resource_list::Ask;
use crate::watch::{self as watches, Start, WatchRequest};
use crate::websocket;

/// The API side of one local server. Copies share it; with the last one all streams end.
#[derive(Clone)]
pub(crate) struct ApiSide(Arc<Shared>);

struct Shared {
    /// By the names that they have in the page.
    clusters: Vec<(String, ClusterClient)>,
    random: Random,
    pace: Pace,
    /// For requests that wait for a sign-in.
    waiting: Semaphore,
    /// Ends the streams that are open now.
    ended: Mutex<CancellationToken>,
    /// A page shows what is gone, and has not been told yet to load anew.
    stale: Arc<AtomicBool>,
    requests: AtomicU64,
    streams: Arc<AtomicUsize>,
}

/// How long things take.
#[derive(Clone, Copy, Debug)]
struct Pace {
    /// For a request while a person has to sign in.
    sign_in: Duration,
    /// For the end of an answer that does not say how long it is.
    answer: Duration,
    /// For an answer that broke off to be there as a whole.
    again: Duration,
    /// For the page's body that is kept to be sent again.
    body: Duration,
    watch: watches::Pace,
}

impl Pace {
    const NORMAL: Self = Self {
        sign_in: Duration::from_secs(3),
        answer: Duration::from_millis(500),
        again: Duration::from_secs(15),
        body: Duration::from_secs(30),
        watch: watches::Pace::NORMAL,
    };
}

/// A browser has six connections to a server; the others are for what needs no sign-in.
const MOST_WAITING: usize = 3;

/// What goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Since the start.
    pub(crate) requests: u64,
    /// Websockets and endless answers that are open now.
    pub(crate) streams: usize,
}

/// An open stream, as long as it is there.
struct Open(Arc<AtomicUsize>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.ended().cancel();
    }
}

impl ApiSide {
    pub(crate) fn new(clusters: Vec<(String, ClusterClient)>, random: Random) -> Self {
        Self::at(Pace::NORMAL, clusters, random)
    }

    fn at(pace: Pace, clusters: Vec<(String, ClusterClient)>, random: Random) -> Self {
        Self(Arc::new(Shared {
            clusters,
            random,
            pace,
            waiting: Semaphore::new(MOST_WAITING),
            ended: Mutex::default(),
            stale: Arc::default(),
            requests: AtomicU64::new(0),
            streams: Arc::default(),
        }))
    }

    /// Passes a request on, and its answer back.
    pub(crate) async fn request(&self, target: ApiTarget, request: Request<Incoming>) -> Response<Body> {
        let shared = &*self.0;
        let Some(client) = shared.cluster(&target.cluster) else { return unknown() };
        let ended = shared.begin();
        let endless = target.endless();
        // What is sent may be shown for long, or change something: it is not what a page is lost over.
        let may_reload = !endless && request.method() == Method::GET;
        let answer = tokio::select! {
            answer = shared.exchange(client, &target, request) => answer,
            () = ended.cancelled() => return over(),
        };
        let mut answer = match answer {
            Ok(answer) => passed_on(answer, ended, endless.then(|| shared.open())).await,
            Err(error) => return failed(client, &error),
        };
        if may_reload && shared.stale.swap(false, Ordering::Relaxed) {
            answer.headers_mut().insert(RELOAD, HeaderValue::from_static("reload"));
        }
        answer
    }

    /// Passes a request for a websocket on: to the server's refusal, or a `101` and all that follows.
    pub(crate) async fn upgrade(&self, target: ApiTarget, mut request: Request<Incoming>) -> Response<Body> {
        let shared = &*self.0;
        let Some(client) = shared.cluster(&target.cluster) else { return unknown() };
        let ended = shared.begin();
        let page = hyper::upgrade::on(&mut request);
        let mut resets = client.resets();
        let asking = async {
            let head = head(Method::GET, &target.path_and_query(), to_api_websocket(request.headers()))?;
            shared.send(client, Line::Upgrade, &head, Payload::None).await
        };
        let answer = tokio::select! {
            answer = asking => answer,
            () = ended.cancelled() => return over(),
        };
        let mut answer = match answer {
            Ok(answer) => answer,
            Err(error) => return failed(client, &error),
        };
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            return passed_on(answer.map(Passing::from), ended, ()).await;
        }
        let cluster = hyper::upgrade::on(&mut answer);
        shared.spawn(ended, async move {
            tokio::select! {
                // Either end breaks it off whenever it likes.
                _ = websocket::pass_through(page, cluster) => {}
                Ok(()) = resets.changed() => {}
            }
        });
        switched(from_api_websocket(answer.headers()))
    }

    /// Opens a watch behind a websocket of the page's, which then stays open whatever becomes of
    /// the server's side; or passes on why there is none.
    pub(crate) async fn watch(
        &self,
        cluster: &str,
        watch: WatchRequest,
        mut request: Request<Incoming>,
    ) -> Response<Body> {
        let shared = &*self.0;
        let Some(client) = shared.cluster(cluster) else { return unknown() };
        let ended = shared.begin();
        let headers = match websocket::accept(request.headers()) {
            Ok(headers) => headers,
            Err(reason) => return status(StatusCode::BAD_REQUEST, "BadRequest", reason),
        };
        let page = hyper::upgrade::on(&mut request);
        let send = asking(client.clone(), request.headers().get(header::USER_AGENT).cloned());
        let (trouble, returns) = (client.trouble(), client.returns());
        let start = tokio::select! {
            start = watch.start(&send, shared.pace.watch, shared.random) => start,
            () = ended.cancelled() => return over(),
        };
        let watch = match start {
            Start::Running(watch) => watch,
            Start::Refused(answer) => return passed_on(answer.map(Passing::from), ended, ()).await,
        };
        let stale = shared.stale.clone();
        shared.spawn(ended, async move {
            let Ok(page) = page.await else { return };
            let (wake, stale) = (&Notify::new(), &*stale);
            let run = |page| async move { watch.run(&send, &page, wake, stale).await };
            tokio::select! {
                () = websocket::serve(TokioIo::new(page), websocket::PING_EVERY, run) => {}
                never = wake_after(trouble, returns, wake) => match never {},
            }
        });
        switched(headers)
    }

    /// Who the user is, as the page shows it (from Headlamp 0.37). Without an answer the page asks
    /// the cluster itself.
    pub(crate) fn me(&self, cluster: &str) -> Response<Body> {
        let Some(client) = self.0.cluster(cluster) else { return unknown() };
        match client.who() {
            Some(who) => json(
                StatusCode::OK,
                &serde_json::json!({
                    "username": who.username,
                    "email": "",
                    "groups": who.groups,
                    "userInfoURL": "",
                }),
            ),
            None => status(StatusCode::NOT_FOUND, "NotFound", "the cluster does not say who one is"),
        }
    }

    /// Ends everything that is under way; what comes after begins anew.
    pub(crate) fn cut(&self) {
        let mut ended = self.0.ended.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *ended).cancel();
    }

    pub(crate) fn counts(&self) -> Counts {
        Counts { requests: self.0.requests.load(Ordering::Relaxed), streams: self.0.streams.load(Ordering::SeqCst) }
    }
}

impl Shared {
    fn cluster(&self, name: &str) -> Option<&ClusterClient> {
        self.clusters.iter().find(|(known, _)| known == name).map(|(_, client)| client)
    }

    /// Counts a request, and says what ends it.
    fn begin(&self) -> CancellationToken {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.ended()
    }

    fn ended(&self) -> CancellationToken {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn open(&self) -> Open {
        self.streams.fetch_add(1, Ordering::SeqCst);
        Open(self.streams.clone())
    }

    fn spawn(&self, ended: CancellationToken, stream: impl Future<Output = ()> + Send + 'static) {
        let open = self.open();
        tokio::spawn(async move {
            let _open = open;
            tokio::select! {
                () = stream => {}
                () = ended.cancelled() => {}
            }
        });
    }

    /// The answer, held back if it is small.
    async fn exchange(
        &self,
        client: &ClusterClient,
        target: &ApiTarget,
        request: Request<Incoming>,
    ) -> Result<Response<Passing>> {
        let (parts, body) = request.into_parts();
        let head = head(parts.method, &target.path_and_query(), to_api(&parts.headers))?;
        let payload = self.payload(body).await?;
        if target.endless() {
            return Ok(self.send(client, Line::Stream, &head, payload).await?.map(Passing::from));
        }
        let answer = self.send(client, Line::Request, &head, payload).await?;
        if head.method() != Method::GET {
            return Ok(answer.map(Passing::from));
        }
        if let Ok(answer) = hold_back(answer, self.pace.answer).await {
            return Ok(answer);
        }
        let broken = || Error::unreachable(format!("the answer of `{}` broke off", client.server()));
        let again = async {
            let again = self.send(client, Line::Request, &head, Payload::None).await?;
            hold_back(again, self.pace.answer).await.map_err(|error| broken().cause("twice").caused_by(&error))
        };
        timeout(self.pace.again, again).await.unwrap_or_else(|_| Err(broken().cause("it did not come a second time")))
    }

    /// The body; a small one whole, so that it can be sent a second time.
    async fn payload(&self, body: Incoming) -> Result<Payload> {
        if body.is_end_stream() {
            return Ok(Payload::None);
        }
        if body.size_hint().exact().is_none_or(|length| length > SMALL as u64) {
            return Ok(Payload::Stream(body.map_err(Into::into).boxed_unsync()));
        }
        match timeout(self.pace.body, body.collect()).await {
            Ok(Ok(body)) => Ok(Payload::Whole(body.to_bytes())),
            Ok(Err(error)) => Err(Error::usage("the body of the request broke off").caused_by(&error)),
            Err(_) => Err(Error::usage("the body of the request did not come in time")),
        }
    }

    /// Asks the cluster. Where that needs a person first, a few requests wait for that.
    async fn send(
        &self,
        client: &ClusterClient,
        line: Line,
        head: &Request<()>,
        payload: Payload,
    ) -> Result<Response<AnswerBody>> {
        let again = match &payload {
            Payload::None => Some(Payload::None),
            Payload::Whole(body) => Some(Payload::Whole(body.clone())),
            Payload::Stream(_) => None,
        };
        let mut trouble = client.trouble();
        // Boxed: it is large, and stands in the futures of all who await it.
        let error = match Box::pin(client.send(line, head.clone(), payload)).await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        // It may have come and gone since.
        let signs_in = matches!(*trouble.borrow(), Some(Trouble::SignIn(_))) || trouble.has_changed().unwrap_or(false);
        let (Some(again), true) = (again, signs_in) else { return Err(error) };
        let Ok(_place) = self.waiting.try_acquire() else { return Err(error) };
        let over = timeout(self.pace.sign_in, trouble.wait_for(Option::is_none)).await.is_ok_and(|over| over.is_ok());
        if over { Box::pin(client.send(line, head.clone(), again)).await } else { Err(error) }
    }
}

fn head(method: Method, path_and_query: &str, headers: HeaderMap) -> Result<Request<()>> {
    let head = Request::builder().method(method).uri(path_and_query).body(());
    let mut head = head.map_err(|error| Error::bug("cannot build a request to the cluster").caused_by(&error))?;
    *head.headers_mut() = headers;
    Ok(head)
}

/// What a watch asks the cluster with.
fn asking(
    client: ClusterClient,
    user_agent: Option<HeaderValue>,
) -> impl Fn(Ask) -> BoxFuture<'static, Result<Response<AnswerBody>>> + Send + Sync {
    move |ask| {
        let (client, user_agent) = (client.clone(), user_agent.clone());
        Box::pin(async move {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, HeaderValue::from_static(ask.accept));
            headers.extend(user_agent.map(|user_agent| (header::USER_AGENT, user_agent)));
            let line = if ask.endless { Line::Stream } else { Line::Request };
            client.send(line, head(Method::GET, &ask.path_and_query, headers)?, Payload::None).await
        })
    }
}

/// Wakes whoever waits, each time that a trouble is over or the cluster may be there again.
async fn wake_after(
    mut trouble: watch::Receiver<Option<Trouble>>,
    mut returns: watch::Receiver<u64>,
    wake: &Notify,
) -> Infallible {
    loop {
        tokio::select! {
            Ok(()) = trouble.changed() => {
                if trouble.borrow_and_update().is_some() {
                    continue;
                }
            }
            Ok(()) = returns.changed() => {}
            else => pending().await,
        }
        wake.notify_one();
    }
}

/// `101`.
fn switched(headers: HeaderMap) -> Response<Body> {
    let mut answer = Response::new(empty());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *answer.headers_mut() = headers;
    answer
}

/// The cluster could not be asked.
fn failed(client: &ClusterClient, error: &Error) -> Response<Body> {
    let signs_in = matches!(*client.trouble().borrow(), Some(Trouble::SignIn(_))) && client.can_sign_in();
    unanswered(error, signs_in.then_some("reload this page to sign in"))
}

fn unknown() -> Response<Body> {
    status(StatusCode::NOT_FOUND, "NotFound", "this cluster is not served here")
}

fn over() -> Response<Body> {
    unanswered(&Error::new(Kind::Other, "this session has ended"), None)
}

#[cfg(test)]
mod tests;
