//! What is asked, and the answers of a server without faults.

use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::{Request, Response};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use super::access::{Attempt, User, VERBS};
use super::answer::{self, Body};
use super::form::Form;
use super::kind::{KINDS, Kind};
use super::pod::Pod;
use super::serve::Connection;
use super::store::{Key, Refused, Selection};
use super::watch::{self, is_true};
use super::{Asked, Shared, socket};
use crate::api_server::SelfSubjectReview;
use crate::server::lock;

/// Where something is in the API.
struct Place {
    kind: &'static Kind,
    namespace: String,
    name: String,
    subresource: String,
}

impl Place {
    fn of(path: &[&str]) -> Option<Self> {
        let (group, version, rest) = match path {
            ["api", version, rest @ ..] => ("", version, rest),
            ["apis", group, version, rest @ ..] => (*group, version, rest),
            _ => return None,
        };
        let (namespace, rest) = match rest {
            ["namespaces", _] | ["namespaces", _, "status" | "finalize"] => ("", rest),
            ["namespaces", namespace, rest @ ..] => (*namespace, rest),
            rest => ("", rest),
        };
        let (resource, rest) = rest.split_first()?;
        let kind = Kind::at(group, version, resource)?;
        if !namespace.is_empty() && !kind.namespaced {
            return None;
        }
        let name = rest.first().copied().unwrap_or_default().to_owned();
        let subresource = rest.get(1..).unwrap_or_default().join("/");
        Some(Self { kind, namespace: namespace.to_owned(), name, subresource })
    }

    fn key(&self) -> Key {
        let (group, resource) = (self.kind.group, self.kind.resource);
        Key { group, resource, namespace: self.namespace.clone(), name: self.name.clone() }
    }

    fn attempt(&self, user: &User, verb: &str) -> Attempt {
        Attempt {
            user: user.clone(),
            verb: verb.to_owned(),
            group: self.kind.group.to_owned(),
            resource: self.kind.resource.to_owned(),
            subresource: self.subresource.clone(),
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            path: String::new(),
        }
    }

    fn refused(&self, why: Refused) -> Response<Body> {
        let Kind { group, resource, .. } = self.kind;
        let place = if group.is_empty() { (*resource).to_owned() } else { format!("{resource}.{group}") };
        let mut details = json!({"name": self.name, "kind": resource});
        if !group.is_empty() {
            details["group"] = json!(group);
        }
        let name = &self.name;
        let (code, reason, message) = match why {
            Refused::NotFound => (404, "NotFound", format!("{place} {name:?} not found")),
            Refused::Exists => (409, "AlreadyExists", format!("{place} {name:?} already exists")),
            Refused::Conflict => (
                409,
                "Conflict",
                format!(
                    "Operation cannot be fulfilled on {place} {name:?}: the object has been modified; please apply your \
                     changes to the latest version and try again"
                ),
            ),
            Refused::NoNamespace => (404, "NotFound", format!("namespaces {:?} not found", self.namespace)),
        };
        answer::refusal(code, reason, &message, Some(details))
    }
}

/// The usual answer.
pub(crate) async fn answer(
    request: Request<Incoming>,
    asked: Asked,
    user: User,
    connection: &Arc<Connection>,
    shared: Arc<Shared>,
) -> Response<Body> {
    let segments: Vec<String> = asked
        .path
        .trim_start_matches('/')
        .trim_end_matches('/')
        .split('/')
        .map(|segment| percent_decode_str(segment).decode_utf8_lossy().into_owned())
        .collect();
    let path: Vec<&str> = segments.iter().map(String::as_str).collect();
    let verb = asked.method.to_ascii_lowercase();
    if let Some(place) = Place::of(&path) {
        return at_place(place, request, &asked, &user, connection, &shared).await;
    }
    let review = match path.as_slice() {
        ["apis", "authentication.k8s.io", version, resource @ "selfsubjectreviews"]
            if *version == review_version(&shared) =>
        {
            Some((*version, *resource))
        }
        ["apis", "authorization.k8s.io", "v1", resource @ ("selfsubjectaccessreviews" | "selfsubjectrulesreviews")] => {
            Some(("v1", *resource))
        }
        _ => None,
    };
    if let Some((version, resource)) = review {
        let attempt =
            Attempt { user: user.clone(), verb: "create".into(), resource: resource.into(), ..Attempt::default() };
        if !shared.access.allows(&attempt) {
            return attempt.forbidden();
        }
        let body = match body(request).await {
            Ok(body) => body,
            // There is nothing to be read, and kubectl sends it as protobuf.
            Err(_) if resource == "selfsubjectreviews" => Value::Null,
            Err(refusal) => return *refusal,
        };
        return shared.access.review(&user, version, resource, &body).unwrap_or_else(answer::no_such_path);
    }
    let attempt = Attempt { user, verb, path: asked.path.clone(), ..Attempt::default() };
    if !shared.access.allows(&attempt) {
        return attempt.forbidden();
    }
    if asked.method != "GET" && asked.method != "HEAD" {
        return answer::no_such_path();
    }
    discovery(&path, &shared)
}

fn review_version(shared: &Shared) -> &'static str {
    match lock(&shared.behaviour).self_subject_review {
        SelfSubjectReview::V1 => "v1",
        SelfSubjectReview::V1beta1 => "v1beta1",
        SelfSubjectReview::Absent => "",
    }
}

async fn at_place(
    mut place: Place,
    request: Request<Incoming>,
    asked: &Asked,
    user: &User,
    connection: &Arc<Connection>,
    shared: &Arc<Shared>,
) -> Response<Body> {
    let watches = is_true(&asked.parameter("watch").unwrap_or_default());
    let verb = match (asked.method.as_str(), place.name.is_empty()) {
        ("GET", true) if watches => "watch",
        ("GET", true) => "list",
        ("GET" | "HEAD", false) => "get",
        ("POST", _) => "create",
        ("PUT", false) => "update",
        ("PATCH", false) => "patch",
        ("DELETE", true) => "deletecollection",
        ("DELETE", false) => "delete",
        _ => {
            return answer::refusal(
                405,
                "MethodNotAllowed",
                "the server does not allow this method on the requested resource",
                None,
            );
        }
    };
    let mut verbs = vec![verb];
    // Since Kubernetes 1.35.
    if matches!(place.subresource.as_str(), "exec" | "attach" | "portforward")
        && socket::is_wanted(request.headers())
        && lock(&shared.behaviour).websockets_need_create
    {
        verbs.push("create");
    }
    for verb in verbs {
        let attempt = place.attempt(user, verb);
        if !shared.access.allows(&attempt) {
            return attempt.forbidden();
        }
    }
    if !place.subresource.is_empty() {
        return within_pod(&place, request, asked, shared);
    }
    let selection = Selection {
        kind: place.kind,
        namespace: place.namespace.clone(),
        labels: asked.parameter("labelSelector").unwrap_or_default(),
        fields: asked.parameter("fieldSelector").unwrap_or_default(),
    };
    let form = Form::of(asked);
    match verb {
        "watch" => watch::answer(request, asked, selection, connection, shared),
        "list" => list(asked, &selection, form, shared),
        "get" => match shared.store.get(&place.key()) {
            Some(object) => answer::json(200, &form.object(place.kind, &object)),
            None => place.refused(Refused::NotFound),
        },
        "delete" => match shared.delete(&place.key()) {
            Ok(object) => answer::json(200, &form.object(place.kind, &object)),
            Err(why) => place.refused(why),
        },
        "deletecollection" => {
            let (_, objects) = shared.store.list(&selection, None).unwrap_or_default();
            for (key, _) in &objects {
                let _ = shared.delete(key);
            }
            let metadata = json!({"resourceVersion": shared.store.revision().to_string()});
            answer::json(200, &form.list(place.kind, objects.iter().map(|(_, object)| &**object), &metadata))
        }
        _ => match body(request).await {
            Ok(body) => write(verb, &mut place, body, form, shared),
            Err(refusal) => *refusal,
        },
    }
}

fn within_pod(place: &Place, request: Request<Incoming>, asked: &Asked, shared: &Arc<Shared>) -> Response<Body> {
    if place.kind.resource != "pods" {
        return answer::no_such_path();
    }
    let Some(pod) = Pod::new(place.key(), shared) else { return place.refused(Refused::NotFound) };
    match place.subresource.as_str() {
        "log" => pod.log(request, asked),
        "exec" | "attach" => pod.exec(request, asked),
        "portforward" => pod.port_forward(request, asked),
        _ => answer::no_such_path(),
    }
}

fn list(asked: &Asked, selection: &Selection, form: Form, shared: &Shared) -> Response<Body> {
    let parameter = |name: &str| asked.parameter(name).filter(|value| !value.is_empty());
    let limit = parameter("limit").and_then(|limit| limit.parse::<usize>().ok()).filter(|limit| *limit > 0);
    let wanted = parameter("resourceVersion").and_then(|version| version.parse::<u64>().ok()).unwrap_or(0);
    let newest = shared.store.revision();
    if wanted > newest {
        let message = format!("Too large resource version: {wanted}, current: {newest}");
        let cause = json!({"reason": "ResourceVersionTooLarge", "message": "Too large resource version"});
        return answer::refusal(504, "Timeout", &message, Some(json!({"causes": [cause], "retryAfterSeconds": 1})));
    }
    let exact = parameter("resourceVersionMatch").is_some_and(|rule| rule == "Exact").then_some(wanted);
    let (version, after) = match parameter("continue") {
        None => (exact, None),
        Some(token) => match Token::read(&token) {
            Some(token) => (Some(token.version), Some(token.last)),
            None => return answer::bad_request("continue key is not valid: unable to decode"),
        },
    };
    let Ok((version, objects)) = shared.store.list(selection, version) else {
        let (reason, message) = answer::reason(410);
        return answer::refusal(410, reason, message, None);
    };
    let place = |key: &Key| (key.namespace.clone(), key.name.clone());
    let rest: Vec<_> =
        objects.iter().filter(|(key, _)| after.as_ref().is_none_or(|after| place(key) > *after)).collect();
    let count = limit.unwrap_or(rest.len()).min(rest.len());
    let mut metadata = json!({"resourceVersion": version.to_string()});
    if let (true, Some((key, _))) = (count < rest.len(), count.checked_sub(1).and_then(|last| rest.get(last))) {
        metadata["continue"] = json!(Token { version, last: place(key) }.text());
        // With a selector nobody knows.
        if selection.labels.is_empty() && selection.fields.is_empty() {
            metadata["remainingItemCount"] = json!(rest.len() - count);
        }
    }
    answer::json(200, &form.list(selection.kind, rest.iter().take(count).map(|(_, object)| &**object), &metadata))
}

/// Where a list goes on.
struct Token {
    version: u64,
    last: (String, String),
}

impl Token {
    fn text(&self) -> String {
        BASE64_STANDARD.encode(json!([self.version, self.last.0, self.last.1]).to_string())
    }

    fn read(text: &str) -> Option<Self> {
        let value: Value = serde_json::from_slice(&BASE64_STANDARD.decode(text).ok()?).ok()?;
        let text = |index: usize| value[index].as_str().map(str::to_owned);
        Some(Self { version: value[0].as_u64()?, last: (text(1)?, text(2)?) })
    }
}

fn write(verb: &str, place: &mut Place, body: Value, form: Form, shared: &Shared) -> Response<Body> {
    if verb == "create" {
        let metadata = &body["metadata"];
        let generated =
            || metadata["generateName"].as_str().map(|prefix| format!("{prefix}{:05x}", shared.store.revision()));
        let Some(name) = metadata["name"].as_str().map(str::to_owned).or_else(generated) else {
            return answer::refusal(422, "Invalid", "name or generateName is required", None);
        };
        place.name = name;
    }
    let key = place.key();
    let in_namespace = !place.kind.namespaced || shared.has_namespace(&place.namespace);
    let stored = shared.store.edit(&key, |known| match (verb, known) {
        ("create", _) if !in_namespace => Err(Refused::NoNamespace),
        ("create", Some(_)) => Err(Refused::Exists),
        ("create", None) => Ok(Some(body)),
        (_, None) => Err(Refused::NotFound),
        (_, Some(known)) => {
            let version = &body["metadata"]["resourceVersion"];
            if version.is_string() && *version != known["metadata"]["resourceVersion"] {
                return Err(Refused::Conflict);
            }
            if verb == "update" {
                return Ok(Some(body));
            }
            let mut merged = known.clone();
            merge(&mut merged, body);
            Ok(Some(merged))
        }
    });
    match stored {
        Ok(object) => answer::json(if verb == "create" { 201 } else { 200 }, &form.object(place.kind, &object)),
        Err(why) => place.refused(why),
    }
}

/// RFC 7396; strategic merges are taken for the same.
fn merge(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (name, value) in patch {
        if value.is_null() {
            if let Some(fields) = target.as_object_mut() {
                fields.remove(&name);
            }
        } else {
            merge(&mut target[name.as_str()], value);
        }
    }
}

async fn body(request: Request<Incoming>) -> Result<Value, Box<Response<Body>>> {
    let kind = request.headers().get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or("application/json");
    if !kind.contains("json") {
        let message = format!("the body of the request was in an unknown format - {kind:?}");
        return Err(Box::new(answer::refusal(415, "UnsupportedMediaType", &message, None)));
    }
    let Ok(body) = Limited::new(request.into_body(), LARGEST_BODY).collect().await else {
        return Err(Box::new(answer::refusal(
            413,
            "RequestEntityTooLarge",
            "Request entity too large: limit is 3145728",
            None,
        )));
    };
    serde_json::from_slice(&body.to_bytes())
        .map_err(|error| Box::new(answer::bad_request(&format!("the object provided is unrecognized: {error}"))))
}

fn discovery(path: &[&str], shared: &Shared) -> Response<Body> {
    let review = review_version(shared);
    let mut groups: Vec<(&str, &str)> = Vec::new();
    for group in KINDS.iter().map(|kind| (kind.group, kind.version)).chain([("authorization.k8s.io", "v1")]) {
        if !group.0.is_empty() && !groups.contains(&group) {
            groups.push(group);
        }
    }
    if !review.is_empty() {
        groups.push(("authentication.k8s.io", review));
    }
    match path {
        ["version"] => {
            let version = lock(&shared.behaviour).version.clone();
            let mut parts = version.trim_start_matches('v').split('.');
            let (major, minor) = (parts.next(), parts.next());
            answer::json(
                200,
                &json!({"major": major, "minor": minor, "gitVersion": version, "platform": "linux/amd64"}),
            )
        }
        ["healthz" | "livez" | "readyz"] => answer::text(200, "ok"),
        ["api"] => answer::json(200, &json!({"kind": "APIVersions", "versions": ["v1"]})),
        ["apis"] => {
            let groups: Vec<Value> = groups.iter().map(|(name, version)| group(name, version)).collect();
            answer::json(200, &json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}))
        }
        ["apis", name] => match groups.iter().find(|(group, _)| group == name) {
            Some((name, version)) => answer::json(200, &group(name, version)),
            None => answer::no_such_path(),
        },
        ["api", "v1"] => answer::json(200, &resources("", "v1")),
        ["apis", group, version] if groups.contains(&(group, version)) => answer::json(200, &resources(group, version)),
        _ => answer::no_such_path(),
    }
}

fn group(name: &str, version: &str) -> Value {
    let version = json!({"groupVersion": format!("{name}/{version}"), "version": version});
    json!({"kind": "APIGroup", "apiVersion": "v1", "name": name, "versions": [version], "preferredVersion": version})
}

fn resources(group: &str, version: &str) -> Value {
    let mut resources: Vec<Value> = KINDS
        .iter()
        .filter(|kind| (kind.group, kind.version) == (group, version))
        .map(|kind| {
            let (name, namespaced, short) = (kind.resource, kind.namespaced, kind.short);
            let singular = kind.name.to_ascii_lowercase();
            json!({"name": name, "singularName": singular, "namespaced": namespaced, "kind": kind.name, "verbs": VERBS, "shortNames": short})
        })
        .collect();
    let mut add = |name: &str, kind: &str, namespaced: bool, verbs: Value| {
        resources
            .push(json!({"name": name, "singularName": "", "namespaced": namespaced, "kind": kind, "verbs": verbs}));
    };
    match group {
        "" => {
            add("pods/log", "Pod", true, json!(["get"]));
            add("pods/exec", "PodExecOptions", true, json!(["create", "get"]));
            add("pods/portforward", "PodPortForwardOptions", true, json!(["create", "get"]));
        }
        "authentication.k8s.io" => add("selfsubjectreviews", "SelfSubjectReview", false, json!(["create"])),
        "authorization.k8s.io" => {
            add("selfsubjectaccessreviews", "SelfSubjectAccessReview", false, json!(["create"]));
            add("selfsubjectrulesreviews", "SelfSubjectRulesReview", false, json!(["create"]));
        }
        _ => {}
    }
    let version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": resources})
}

/// Bytes, as API servers have it.
const LARGEST_BODY: usize = 3 * 1024 * 1024;
