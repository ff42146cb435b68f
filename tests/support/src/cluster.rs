//! A Kubernetes API server that holds objects and can be made to misbehave: for what a real one cannot
//! be made to do. `tests/it/cluster_double.rs` proves that, left alone, it behaves as a real one.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::ops::Deref;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use tokio::sync::broadcast;
use tokio_rustls::TlsAcceptor;

use crate::api_server::SelfSubjectReview;
use crate::authority::{Authority, Certificate, server_config_for_anybody};
use crate::kept_port::KeptPort;
use crate::provider::Person;
use crate::runner::{Panics, Runner};
use crate::server::{Request, lock};
use crate::wire::State;

mod access;
mod answer;
mod api;
mod fault;
mod form;
mod headlamp;
mod kind;
mod pod;
mod serve;
mod socket;
mod store;
mod watch;

pub use access::{Attempt, User};
pub use fault::Fault;
pub use headlamp::{HeadlampInstall, Layout};

use access::Access;
use fault::Faults;
use kind::Kind;
use pod::Insides;
use serve::Connections;
use store::{Key, Refused, Store};
use watch::Order;

/// What the cluster does. [`Cluster::set`] changes it.
#[derive(Clone, Debug)]
pub struct ClusterBehaviour {
    /// What it says of its version.
    pub version: String,
    /// Which version of `SelfSubjectReview` it serves.
    pub self_subject_review: SelfSubjectReview,
    /// Whether who shows nothing is `system:anonymous` (403) or turned away (401).
    pub anonymous: bool,
    /// How long a watch lasts, whatever it asks for; `None`: as long as it asks for, else 45 minutes.
    pub watch_lifetime: Option<Duration>,
    /// How often a watch that asks for bookmarks gets one.
    pub bookmark_every: Duration,
    /// Whether websockets to pods need the right to `create` too, as since 1.35.
    pub websockets_need_create: bool,
}

/// How a cluster starts.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClusterOptions {
    /// It offers no HTTP/2.
    pub http1_only: bool,
    /// What comes before every path, as behind Rancher: `/k8s/clusters/c-1`; empty: nothing.
    pub path: &'static str,
}

/// An API server that listens until it is dropped.
pub struct Cluster {
    shared: Arc<Shared>,
    authority: Authority,
    tls: TlsAcceptor,
    port: KeptPort,
    acceptor: Mutex<Option<tokio::task::JoinHandle<()>>>,
    runner: Runner,
}

/// A request that came in.
#[derive(Clone, Debug)]
pub struct Asked {
    /// What was asked, without the body.
    pub request: Request,
    /// As whom: after authentication and impersonation. `None`: turned away.
    pub user: Option<User>,
    /// Who it was before impersonation.
    pub signed_in: Option<User>,
    /// Whether it came by HTTP/2.
    pub http2: bool,
    /// The number of its connection, counted from 1.
    pub connection: usize,
}

impl Deref for Asked {
    type Target = Request;

    fn deref(&self) -> &Request {
        &self.request
    }
}

pub(crate) struct Shared {
    store: Store,
    insides: Insides,
    access: Access,
    faults: Faults,
    behaviour: Mutex<ClusterBehaviour>,
    requests: Mutex<Vec<Asked>>,
    connections: Connections,
    watches: AtomicUsize,
    orders: broadcast::Sender<Order>,
    panics: Panics,
    /// What comes before every path.
    path: &'static str,
}

impl Shared {
    fn has_namespace(&self, name: &str) -> bool {
        self.store.get(&namespace_key(name)).is_some()
    }

    /// Removes an object; with a namespace all that is in it.
    fn delete(&self, key: &Key) -> Result<Arc<Value>, Refused> {
        if key.resource == "namespaces" {
            for key in self.store.within(&key.name) {
                let _ = self.store.edit(&key, |_| Ok(None));
            }
        }
        self.store.edit(key, |_| Ok(None))
    }
}

impl Cluster {
    /// Takes the tokens that `authenticate` says belong to somebody, such as
    /// [`crate::Provider::authenticator`], beside those of [`Cluster::token`].
    pub fn start(authenticate: impl Fn(&str) -> Option<Person> + Send + Sync + 'static) -> Self {
        Self::start_with(ClusterOptions::default(), authenticate)
    }

    /// The same, but otherwise.
    pub fn start_with(
        options: ClusterOptions,
        authenticate: impl Fn(&str) -> Option<Person> + Send + Sync + 'static,
    ) -> Self {
        let authority = Authority::new("the cluster's CA");
        let certificate = authority.server(&["localhost", "127.0.0.1", "::1", "cluster.test"]);
        let protocols: &[&str] = if options.http1_only { &["http/1.1"] } else { &["h2", "http/1.1"] };
        let tls = TlsAcceptor::from(server_config_for_anybody(&certificate, &authority, protocols));
        let port = KeptPort::new();
        let listener = listen(&port);
        let runner = Runner::start();
        let shared = Arc::new(Shared {
            store: Store::default(),
            insides: Insides::default(),
            access: Access::new(Box::new(authenticate)),
            faults: Faults::default(),
            behaviour: Mutex::new(ClusterBehaviour {
                version: "v1.35.0".to_owned(),
                self_subject_review: SelfSubjectReview::V1,
                anonymous: true,
                watch_lifetime: None,
                bookmark_every: Duration::from_secs(60),
                websockets_need_create: true,
            }),
            requests: Mutex::default(),
            connections: Connections::default(),
            watches: AtomicUsize::new(0),
            orders: broadcast::Sender::new(64),
            panics: runner.panics(),
            path: options.path,
        });
        let cluster = Self { shared, authority, tls, port, acceptor: Mutex::new(None), runner };
        cluster.accept(listener);
        for namespace in ["default", "kube-system"] {
            cluster.add_namespace(namespace);
        }
        cluster
    }

    fn accept(&self, listener: TcpListener) {
        let task = serve::accept(listener, self.tls.clone(), Arc::clone(&self.shared));
        *lock(&self.acceptor) = Some(self.runner.handle.spawn(task));
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("https://{}{}", self.address(), self.shared.path)
    }

    /// The certificate of its authority.
    pub fn ca_pem(&self) -> String {
        self.authority.pem()
    }

    /// Changes what it does.
    pub fn set(&self, change: impl FnOnce(&mut ClusterBehaviour)) {
        change(&mut lock(&self.shared.behaviour));
    }
}

/// Who may come, and a kubeconfig for them.
impl Cluster {
    /// A new token of somebody in these groups.
    pub fn token(&self, name: &str, groups: &[&str]) -> String {
        let mut tokens = lock(&self.shared.access.tokens);
        let token = format!("token-{}-of-{name}", tokens.len() + 1);
        tokens.insert(token.clone(), User::new(name, groups));
        token
    }

    /// A new client certificate of somebody in these groups.
    pub fn client_certificate(&self, name: &str, groups: &[&str]) -> Certificate {
        let certificate = self.authority.client_in(name, groups);
        lock(&self.shared.access.certificates).insert(certificate.der().to_vec(), User::new(name, groups));
        certificate
    }

    /// The next so many requests with this token get a 401; `usize::MAX`: all.
    pub fn refuse_token(&self, token: &str, times: usize) {
        lock(&self.shared.access.refused).insert(token.to_owned(), times);
    }

    /// From now on this decides who may do what; all else is a 403. Everybody but `system:anonymous`
    /// may ask who they are, what they may, and what kinds there are.
    pub fn authorize(&self, allows: impl Fn(&Attempt) -> bool + Send + Sync + 'static) {
        *lock(&self.shared.access.authorize) = Box::new(allows);
    }

    /// A kubeconfig whose one context, `dev`, is this cluster with `jane`, who is this `user` entry:
    /// `{"exec": exec_entry(…)}`, [`with_token`], [`with_token_file`], [`with_certificate`].
    pub fn kubeconfig(&self, user: &Value) -> Value {
        self.kubeconfig_at(&self.url(), user)
    }

    /// The same, reached at another URL: behind a [`crate::DelayLine`], with a path.
    pub fn kubeconfig_at(&self, url: &str, user: &Value) -> Value {
        let authority = BASE64_STANDARD.encode(self.ca_pem());
        json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "dev",
            "clusters": [{"name": "dev", "cluster": {"server": url, "certificate-authority-data": authority}}],
            "users": [{"name": "jane", "user": user}],
            "contexts": [{"name": "dev", "context": {"cluster": "dev", "user": "jane"}}],
        })
    }
}

/// The `user` entry of a kubeconfig with a token.
pub fn with_token(token: &str) -> Value {
    json!({"token": token})
}

/// The `user` entry of a kubeconfig with a file that has a token.
pub fn with_token_file(file: &Path) -> Value {
    json!({"tokenFile": file})
}

/// The `user` entry of a kubeconfig with a client certificate.
pub fn with_certificate(certificate: &Certificate) -> Value {
    json!({
        "client-certificate-data": BASE64_STANDARD.encode(&certificate.pem),
        "client-key-data": BASE64_STANDARD.encode(&certificate.key_pem),
    })
}

/// What the cluster holds.
impl Cluster {
    /// Makes the namespace, if it is not there.
    pub fn add_namespace(&self, name: &str) {
        if !self.shared.has_namespace(name) {
            let metadata = json!({"name": name, "labels": {"kubernetes.io/metadata.name": name}});
            let status = json!({"phase": "Active"});
            self.store(&namespace_key(name), json!({"metadata": metadata, "spec": {}, "status": status}));
        }
    }

    /// Makes an object, or replaces it; its namespace is made, if need be. What was stored.
    ///
    /// # Panics
    /// If the cluster does not know its kind.
    pub fn put(&self, object: Value) -> Value {
        let key = key_of(&object);
        if !key.namespace.is_empty() {
            self.add_namespace(&key.namespace);
        }
        self.store(&key, object)
    }

    fn store(&self, key: &Key, object: Value) -> Value {
        let stored = self.shared.store.edit(key, |_| Ok(Some(object))).expect("an object");
        Value::clone(&stored)
    }

    /// The object, by resource (`pods`), namespace (or `""`) and name.
    pub fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Value> {
        self.shared.store.get(&key(resource, namespace, name)).map(|object| Value::clone(&object))
    }

    /// Changes an object that is there.
    ///
    /// # Panics
    /// If it is not.
    pub fn edit(&self, resource: &str, namespace: &str, name: &str, change: impl FnOnce(&mut Value)) -> Value {
        let edited = self.shared.store.edit(&key(resource, namespace, name), |known| {
            let mut object = known.cloned().ok_or(Refused::NotFound)?;
            change(&mut object);
            Ok(Some(object))
        });
        Value::clone(&edited.unwrap_or_else(|_| panic!("no {resource} {name:?} in {namespace:?}")))
    }

    /// Removes an object, at once; with a namespace all that is in it. Whether it was there.
    pub fn delete(&self, resource: &str, namespace: &str, name: &str) -> bool {
        self.shared.delete(&key(resource, namespace, name)).is_ok()
    }

    /// All objects of a resource in a namespace (`""`: in all), by name.
    pub fn list(&self, resource: &str, namespace: &str) -> Vec<Value> {
        let kind = kind_named(resource);
        let (labels, fields) = (String::new(), String::new());
        let selection = store::Selection { kind, namespace: namespace.to_owned(), labels, fields };
        let (_, objects) = self.shared.store.list(&selection, None).unwrap_or_default();
        objects.into_iter().map(|(_, object)| Value::clone(&object)).collect()
    }

    /// Makes a running, ready pod with these labels, whose ports lead to these addresses. What is
    /// stored under `spec` is enough to show and to find it by.
    pub fn add_pod(&self, namespace: &str, name: &str, labels: &[(&str, &str)], ports: &[(u16, SocketAddr)]) {
        let ports: Vec<(&str, u16, SocketAddr)> = ports.iter().map(|(port, address)| ("", *port, *address)).collect();
        let containers = ports.iter().map(|(_, port, _)| json!({"containerPort": port})).collect::<Vec<_>>();
        let labels: BTreeMap<_, _> = labels.iter().copied().collect();
        let container = json!({"name": "main", "image": "example.com/main:1", "ports": containers});
        let metadata = json!({"name": name, "namespace": namespace, "labels": labels});
        self.run_pod(json!({"metadata": metadata, "spec": {"containers": [container]}}));
        for (_, port, address) in ports {
            self.open_port(namespace, name, port, address);
        }
    }

    /// Stores a pod as one that runs and is ready.
    fn run_pod(&self, mut pod: Value) {
        pod["kind"] = json!("Pod");
        pod["apiVersion"] = json!("v1");
        pod["spec"]["nodeName"] = json!("node");
        pod["status"] = running(&pod["spec"]);
        self.put(pod);
    }

    /// From now on this port of a pod leads there. Where none was named, connections are refused.
    pub fn open_port(&self, namespace: &str, name: &str, port: u16, address: SocketAddr) {
        self.shared.insides.open(namespace, name, port, address);
    }

    /// From now on this port of a pod refuses connections.
    pub fn close_port(&self, namespace: &str, name: &str, port: u16) {
        self.shared.insides.close(namespace, name, port);
    }

    /// Says whether a pod is ready.
    pub fn set_ready(&self, namespace: &str, name: &str, ready: bool) {
        self.edit("pods", namespace, name, |pod| {
            for condition in pod["status"]["conditions"].as_array_mut().into_iter().flatten() {
                if condition["type"] == "Ready" || condition["type"] == "ContainersReady" {
                    condition["status"] = json!(if ready { "True" } else { "False" });
                }
            }
            for status in pod["status"]["containerStatuses"].as_array_mut().into_iter().flatten() {
                status["ready"] = json!(ready);
            }
        });
    }

    /// Writes to a pod's log; lines end with `\n`.
    pub fn write_log(&self, namespace: &str, name: &str, text: &str) {
        self.shared.insides.write_log(namespace, name, text);
    }

    /// The newest version of the cluster.
    pub fn revision(&self) -> u64 {
        self.shared.store.revision()
    }

    /// So many things happen that no test cares for.
    pub fn pass(&self, revisions: u64) {
        self.shared.store.pass(revisions);
    }

    /// Forgets all that was before now: older versions are answered with `410 Gone`.
    pub fn compact(&self) {
        self.shared.store.compact();
    }
}

/// What it was asked.
impl Cluster {
    /// Every request, in order.
    pub fn requests(&self) -> Vec<Asked> {
        lock(&self.shared.requests).clone()
    }

    /// The requests to this path, in order.
    pub fn requests_to(&self, path: &str) -> Vec<Asked> {
        self.requests().into_iter().filter(|asked| asked.path == path).collect()
    }

    /// Forgets what it was asked.
    pub fn forget_requests(&self) {
        lock(&self.shared.requests).clear();
    }

    /// How many watches are open.
    pub fn watches(&self) -> usize {
        self.shared.watches.load(Ordering::SeqCst)
    }

    /// How many connections there were.
    pub fn connections(&self) -> usize {
        self.shared.connections.count()
    }

    /// How many are open.
    pub fn open_connections(&self) -> usize {
        self.shared.connections.open()
    }
}

/// What goes wrong.
impl Cluster {
    /// The next request to this path gets this.
    pub fn script(&self, path: &str, fault: Fault) {
        let path = path.to_owned();
        self.fail(1, fault, move |asked| asked.path == path);
    }

    /// The next so many requests that fit get this, before faults that came later; `usize::MAX`: all.
    pub fn fail(&self, times: usize, fault: Fault, fits: impl Fn(&Asked) -> bool + Send + Sync + 'static) {
        self.shared.faults.add(times, fault, fits);
    }

    /// Forgets all faults that wait for their requests.
    pub fn heal(&self) {
        self.shared.faults.clear();
    }

    /// Ends all watches, as servers do.
    pub fn end_watches(&self) {
        let _ = self.shared.orders.send(Order::End);
    }

    /// Breaks all watches, and resets the connections of those through websockets.
    pub fn cut_watches(&self) {
        let _ = self.shared.orders.send(Order::Cut);
    }

    /// Forgets all that was before now, and tells all watches so: `410` within the watch.
    pub fn expire_watches(&self) {
        self.compact();
        let _ = self.shared.orders.send(Order::Expire);
    }

    /// Resets all connections.
    pub fn cut_all(&self) {
        self.shared.connections.set(State::Reset);
    }

    /// Asks all connections to end when what is under way is done (GOAWAY).
    pub fn go_away(&self) {
        self.shared.connections.leave();
    }

    /// All connections that are open do nothing any more, and are not closed. New ones work.
    pub fn silence_connections(&self) {
        self.shared.connections.set(State::Silent);
    }

    /// All connections do nothing any more, new ones too: they are accepted and never answered.
    pub fn go_silent(&self) {
        self.shared.connections.set_for_good(State::Silent);
    }

    /// Ends silence, also of connections.
    pub fn speak(&self) {
        self.shared.connections.set_for_good(State::Open);
    }

    /// Resets all connections and refuses new ones.
    pub fn go_down(&self) {
        if let Some(acceptor) = lock(&self.acceptor).take() {
            acceptor.abort();
            // The listener is closed when the task is gone.
            while !acceptor.is_finished() {
                std::thread::yield_now();
            }
        }
        self.cut_all();
    }

    /// Ends [`Cluster::go_down`].
    pub fn come_up(&self) {
        if lock(&self.acceptor).is_none() {
            self.accept(listen(&self.port));
        }
    }
}

fn listen(port: &KeptPort) -> TcpListener {
    let listener = TcpListener::bind(port.address()).expect("a loopback port");
    listener.set_nonblocking(true).expect("a socket");
    listener
}

fn namespace_key(name: &str) -> Key {
    Key { group: "", resource: "namespaces", namespace: String::new(), name: name.to_owned() }
}

fn kind_named(resource: &str) -> &'static Kind {
    let kind = kind::KINDS.iter().find(|kind| kind.resource == resource);
    kind.unwrap_or_else(|| panic!("no such resource: {resource}"))
}

fn key(resource: &str, namespace: &str, name: &str) -> Key {
    let kind = kind_named(resource);
    Key { group: kind.group, resource: kind.resource, namespace: namespace.to_owned(), name: name.to_owned() }
}

fn key_of(object: &Value) -> Key {
    let kind = Kind::of(object).unwrap_or_else(|| panic!("the cluster knows no such kind: {object}"));
    let namespace = match object["metadata"]["namespace"].as_str() {
        _ if !kind.namespaced => "",
        namespace => namespace.unwrap_or("default"),
    };
    key(kind.resource, namespace, object["metadata"]["name"].as_str().expect("a name"))
}

/// The status of a pod that runs and is ready.
fn running(spec: &Value) -> Value {
    let conditions: Vec<Value> = ["Initialized", "Ready", "ContainersReady", "PodScheduled"]
        .iter()
        .map(|condition| json!({"type": condition, "status": "True"}))
        .collect();
    let containers = spec["containers"].as_array().map(Vec::as_slice).unwrap_or_default();
    let started = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let statuses: Vec<Value> = containers
        .iter()
        .map(|container| {
            json!({
                "name": container["name"], "image": container["image"], "ready": true, "started": true,
                "restartCount": 0, "state": {"running": {"startedAt": started}},
            })
        })
        .collect();
    json!({
        "phase": "Running", "conditions": conditions, "containerStatuses": statuses, "podIP": "10.0.0.7",
        "hostIP": "10.0.0.1", "startTime": started,
    })
}
