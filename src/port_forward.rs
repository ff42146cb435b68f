//! Byte streams to Headlamp's pods: each is a websocket of its own through the API server and the
//! node. The pod is chosen once and kept until it fails; then another one is taken.
//!
//! A pod's node says that it cannot reach the port only after the stream stands, so that error comes
//! from the first read; the next `connect` then makes sure before it hands out a stream. An error
//! that a stream ends with is an [`Error`] within the `io::Error`: [`of_stream`] takes it out.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};
use kube::{Client, Resource};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::error::{Error, Kind, Result};
use crate::headlamp::{Headlamp, Pods, has_labels, selector};
use crate::headlamp_container::Port;
use crate::kube_fault::{explained, said, status};
use crate::pod_stream::{self, News, PING_EVERY, PodBytes};
use crate::ready_pod::{newest_ready, port_number, what_ails};

/// A connection to a pod.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// See [`PortForward::connect`].
pub(crate) type PodStream = Box<dyn Stream>;

/// The whole of `connect`.
pub(crate) const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// One try: a node that is gone may leave the API server waiting for half a minute.
const DIAL_LIMIT: Duration = Duration::from_secs(4);
/// How long a pod that failed before has to fail again, before its stream is trusted.
const PROOF: Duration = Duration::from_millis(400);
/// Before the next tries, after one that failed.
const PAUSES: [Duration; 4] =
    [Duration::ZERO, Duration::from_millis(250), Duration::from_secs(1), Duration::from_secs(2)];
/// How often a pod that is ready is looked for.
const POLL: Duration = Duration::from_millis(500);
/// Pods that are looked at.
const MOST: u32 = 200;

/// The way to one Headlamp's pods.
#[derive(Clone)]
pub(crate) struct PortForward(Arc<Shared>);

struct Shared {
    client: Client,
    /// `headlamp/my-headlamp`.
    name: String,
    namespace: String,
    pods: Pods,
    port: Port,
    /// One looks for a pod, the others wait for what is found.
    choosing: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    chosen: Option<Chosen>,
    /// The pod that failed last.
    suspect: Option<String>,
    /// Why there is no stream now.
    reason: Option<Error>,
    /// Ends the streams that there are.
    streams: CancellationToken,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Chosen {
    pod: String,
    port: u16,
}

/// Why a try came to nothing.
enum Failure {
    /// It would again.
    Final(Error),
    /// Another pod may do better.
    Pod(Error),
    /// The API server may do better.
    Cluster(Error),
}

impl PortForward {
    /// Nothing is asked before the first `connect`.
    pub(crate) fn new(client: Client, headlamp: &Headlamp) -> Self {
        Self(Arc::new(Shared {
            client,
            name: format!("{}/{}", headlamp.namespace, headlamp.name),
            namespace: headlamp.namespace.clone(),
            pods: headlamp.pods.clone(),
            port: headlamp.port.clone(),
            choosing: tokio::sync::Mutex::default(),
            state: Mutex::default(),
        }))
    }

    /// A stream to the port of a ready pod, within 10 s, in which one may become ready. While it is
    /// read, a way that has died is noticed within 30 s; nobody notices that of a stream which is
    /// not being read. A cut is an error, never an end. It cannot be half-closed.
    ///
    /// The error says what failed, what ails the pods, and which right is missing.
    pub(crate) async fn connect(&self) -> Result<PodStream> {
        timeout(CONNECT_LIMIT, self.0.stream()).await.unwrap_or_else(|_| Err(self.0.late()))
    }

    /// Forgets the chosen pod and breaks the streams that there are. For after a sleep, and for when
    /// one proved dead.
    pub(crate) fn reset(&self) {
        let state = std::mem::take(&mut *self.0.state());
        state.streams.cancel();
    }
}

/// The error of ours that a stream ended with, if it is one.
pub(crate) fn of_stream(error: &io::Error) -> Option<&Error> {
    error.get_ref()?.downcast_ref()
}

impl Shared {
    async fn stream(self: &Arc<Self>) -> Result<PodStream> {
        let mut pauses = PAUSES.iter();
        loop {
            let chosen = self.chosen().await?;
            let error = match self.dial(&chosen).await {
                Ok(stream) => return Ok(stream),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Cluster(error)) => error,
                Err(Failure::Pod(error)) => {
                    self.failed(&chosen);
                    error
                }
            };
            let Some(pause) = pauses.next() else { return Err(error) };
            self.state().reason = Some(error);
            sleep(*pause).await;
        }
    }

    async fn chosen(&self) -> Result<Chosen> {
        let _only = self.choosing.lock().await;
        loop {
            let suspect = {
                let state = self.state();
                if let Some(chosen) = &state.chosen {
                    return Ok(chosen.clone());
                }
                state.suspect.clone()
            };
            let pods = self.pods().await?;
            let Some(pod) = newest_ready(&pods, suspect.as_deref()) else {
                let error = Error::unreachable(format!("no pod of `{}` is ready", self.name));
                let error = error.cause(self.why_none(&pods).await);
                self.state().reason =
                    Some(error.hint(format!("`kubectl get pods --namespace {}` shows them", self.namespace)));
                sleep(POLL).await;
                continue;
            };
            let port = port_number(pod, &self.port).ok_or_else(|| self.no_such_port(pod))?;
            let chosen = Chosen { pod: name_of(pod), port };
            self.state().chosen = Some(chosen);
        }
    }

    async fn pods(&self) -> Result<Vec<Pod>> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        let pods = match &self.pods {
            Pods::Labelled(labels) => {
                let parameters = ListParams::default().labels(&selector(labels)).limit(MOST);
                api.list(&parameters).await.map(|list| list.items)
            }
            Pods::Named(name) => api.get_opt(name).await.map(|pod| pod.into_iter().collect()),
        };
        pods.map_err(|error| {
            let verb = if matches!(self.pods, Pods::Named(_)) { "get" } else { "list" };
            let message = format!("cannot look for the pods of `{}`", self.name);
            match status(&error) {
                Some(403) => self.forbidden(&error, &message, verb, "pods"),
                _ => explained(&error, message),
            }
        })
    }

    /// Whether the Deployment is to have pods at all, is told where it may be asked.
    async fn why_none(&self, pods: &[Pod]) -> String {
        if let Some(ailment) = what_ails(pods) {
            return ailment;
        }
        let labels = match &self.pods {
            Pods::Named(name) => return format!("there is no pod `{name}`"),
            Pods::Labelled(labels) => labels,
        };
        let api: Api<Deployment> = Api::namespaced(self.client.clone(), &self.namespace);
        let deployments = api.list(&ListParams::default().limit(MOST)).await.map(|list| list.items).unwrap_or_default();
        let idle = deployments.iter().find(|deployment| {
            let spec = deployment.spec.as_ref();
            let template = spec.and_then(|spec| spec.template.metadata.as_ref());
            spec.is_some_and(|spec| spec.replicas == Some(0))
                && template.is_some_and(|template| has_labels(template.labels.as_ref(), labels))
        });
        match idle.and_then(|deployment| deployment.metadata.name.as_ref()) {
            Some(name) => format!("the Deployment `{name}` is scaled to 0 replicas"),
            None => format!("there is no pod with the labels `{}`", selector(labels)),
        }
    }

    async fn dial(self: &Arc<Self>, chosen: &Chosen) -> Result<PodStream, Failure> {
        let request = kube::core::Request::new(Pod::url_path(&(), Some(&self.namespace)))
            .portforward(&chosen.pod, &[chosen.port])
            .map_err(|error| Failure::Final(Error::bug("cannot ask for a port").caused_by(&error)))?;
        let connection = match timeout(DIAL_LIMIT, self.client.connect(request)).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => return Err(self.refused(chosen, &error)),
            Err(_) => {
                let error = unreached(chosen).cause(format!("no answer within {} s", DIAL_LIMIT.as_secs()));
                return Err(Failure::Pod(error));
            }
        };
        let (suspected, streams) = {
            let state = self.state();
            (state.suspect.as_ref() == Some(&chosen.pod), state.streams.clone())
        };
        let listener = Listener { shared: self.clone(), chosen: chosen.clone() };
        let mut stream = PodBytes::new(connection.into_stream(), listener, PING_EVERY, streams);
        if suspected && let Ok(Err(error)) = timeout(PROOF, stream.first_word()).await {
            return Err(Failure::Pod(of_stream(&error).cloned().unwrap_or_else(|| unreached(chosen))));
        }
        Ok(Box::new(stream))
    }

    /// The API server gave no stream.
    fn refused(&self, chosen: &Chosen, error: &kube::Error) -> Failure {
        let message = format!("the pod `{}` cannot be reached", chosen.pod);
        match status(error) {
            Some(403) => {
                let message = format!("you may not forward ports to pods in the namespace `{}`", self.namespace);
                Failure::Final(self.forbidden(error, &message, "get,create", "pods/portforward"))
            }
            Some(401) => Failure::Final(explained(error, message)),
            Some(404) => Failure::Pod(explained(error, format!("the pod `{}` is gone", chosen.pod))),
            Some(_) => Failure::Pod(explained(error, message)),
            None => {
                let error = explained(error, message);
                if error.kind() == Kind::Unreachable { Failure::Cluster(error) } else { Failure::Final(error) }
            }
        }
    }

    fn forbidden(&self, error: &kube::Error, message: &str, verbs: &str, resource: &str) -> Error {
        let namespace = &self.namespace;
        // The second of two checks, new in Kubernetes 1.35, refuses without a reason.
        let said = match said(error).unwrap_or("the cluster answered with 403").trim_end() {
            said if said.ends_with("is forbidden:") => {
                format!("{said} no reason is given; since Kubernetes 1.35 the verb `get` alone is not enough")
            }
            said => said.to_owned(),
        };
        let user = said.split_once("User \"").and_then(|(_, rest)| rest.split_once('"')).map(|(user, _)| user);
        let user = user.and_then(|user| shlex::try_quote(user).ok()).unwrap_or("NAME".into()).into_owned();
        let role = format!("kubectl-headlamp-{}", resource.replace('/', "-"));
        Error::new(Kind::Other, message)
            .cause(said)
            .hint(format!(
                "that takes `{}` on `{resource}`; who runs the cluster can give it: `kubectl create role {role} --namespace {namespace} --verb={verbs} --resource={resource}`",
                verbs.replace(',', "` and `")
            ))
            .hint(format!("and `kubectl create rolebinding {role} --namespace {namespace} --role={role} --user={user}`"))
    }

    fn no_such_port(&self, pod: &Pod) -> Error {
        let port = match &self.port {
            Port::Number(number) => number.to_string(),
            Port::Named(name) => name.clone(),
        };
        Error::new(Kind::Other, format!("the pod `{}` has no port named `{port}`", name_of(pod)))
            .hint("name the port of the Service, or its number, with `--service-port`")
    }

    /// The next stream goes to another pod, if there is one.
    fn failed(&self, chosen: &Chosen) {
        let mut state = self.state();
        state.chosen.take_if(|now| now == chosen);
        state.suspect = Some(chosen.pod.clone());
    }

    fn late(&self) -> Error {
        let message = format!("no pod of `{}` was reached within {} s", self.name, CONNECT_LIMIT.as_secs());
        self.state().reason.clone().unwrap_or_else(|| Error::unreachable(message))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Hears from a stream how its pod does.
struct Listener {
    shared: Arc<Shared>,
    chosen: Chosen,
}

impl pod_stream::Listener for Listener {
    fn hear(&mut self, news: News) -> Option<io::Error> {
        let error = match news {
            News::Alive => {
                let mut state = self.shared.state();
                state.suspect.take_if(|suspect| *suspect == self.chosen.pod);
                state.reason = None;
                return None;
            }
            News::Failed(text) => {
                self.shared.failed(&self.chosen);
                told(&self.chosen, &text)
            }
            News::Cut => {
                self.shared.state().chosen.take_if(|now| *now == self.chosen);
                Error::unreachable(format!("the connection to the pod `{}` broke off", self.chosen.pod))
            }
        };
        Some(io::Error::new(io::ErrorKind::ConnectionReset, error))
    }
}

/// What a node says where it hands on no bytes.
fn told(chosen: &Chosen, text: &str) -> Error {
    let Chosen { pod, port } = chosen;
    let has = |words: &[&str]| words.iter().any(|word| text.contains(word));
    let message = if has(&["connection refused"]) {
        format!("nothing listens on port {port} of the pod `{pod}`")
    } else if has(&["not found", "is closed", "not running", "no such", "does not exist"]) {
        format!("the pod `{pod}` is gone")
    } else {
        format!("the connection to the pod `{pod}` broke off")
    };
    Error::unreachable(message).cause(text)
}

fn unreached(chosen: &Chosen) -> Error {
    Error::unreachable(format!("the pod `{}` cannot be reached", chosen.pod))
}

fn name_of(pod: &Pod) -> String {
    pod.metadata.name.clone().unwrap_or_default()
}

#[cfg(test)]
mod tests;
