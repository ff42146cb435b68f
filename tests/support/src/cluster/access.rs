//! Who asks, as whom, and what they may.

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;

use hyper::Response;
use serde_json::{Value, json};

use super::answer::{self, Body};
use super::kind::KINDS;
use crate::provider::Person;
use crate::server::{Request, lock};

/// Whom the cluster takes somebody for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// The name.
    pub name: String,
    /// The unique id, if there is one.
    pub uid: String,
    /// The groups, with `system:authenticated`.
    pub groups: Vec<String>,
    /// Further facts.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl User {
    /// Somebody in these groups.
    pub fn new(name: &str, groups: &[&str]) -> Self {
        let mut groups: Vec<String> = groups.iter().map(|group| (*group).to_owned()).collect();
        groups.push(AUTHENTICATED.to_owned());
        Self { name: name.to_owned(), groups, ..Self::default() }
    }

    fn of(person: &Person) -> Self {
        let groups: Vec<&str> = person.groups.iter().map(String::as_str).collect();
        Self::new(&person.email, &groups)
    }

    fn anonymous() -> Self {
        let groups = vec!["system:unauthenticated".to_owned()];
        Self { name: ANONYMOUS.to_owned(), groups, ..Self::default() }
    }

    fn info(&self) -> Value {
        let mut info = json!({"username": self.name, "groups": self.groups});
        if !self.uid.is_empty() {
            info["uid"] = json!(self.uid);
        }
        if !self.extra.is_empty() {
            info["extra"] = json!(self.extra);
        }
        info
    }
}

/// What somebody wants to do.
#[derive(Clone, Debug, Default)]
pub struct Attempt {
    /// Who.
    pub user: User,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`, `impersonate`
    pub verb: String,
    /// The API group; empty for the core's.
    pub group: String,
    /// `pods`; empty where it is about a path.
    pub resource: String,
    /// `log`, `exec`, `portforward`; else empty.
    pub subresource: String,
    /// Empty: all of them, or none.
    pub namespace: String,
    /// Empty: any.
    pub name: String,
    /// Where it is not about resources.
    pub path: String,
}

impl Attempt {
    pub(crate) fn forbidden(&self) -> Response<Body> {
        let Self { user, verb, group, resource, subresource, namespace, name, path } = self;
        let user = &user.name;
        if resource.is_empty() {
            let message = format!("forbidden: User {user:?} cannot {verb} path {path:?}");
            return answer::refusal(403, "Forbidden", &message, Some(json!({})));
        }
        let what = if subresource.is_empty() { resource.clone() } else { format!("{resource}/{subresource}") };
        let scope = if namespace.is_empty() {
            "at the cluster scope".to_owned()
        } else {
            format!("in the namespace {namespace:?}")
        };
        let place = if group.is_empty() { resource.clone() } else { format!("{resource}.{group}") };
        let named = if name.is_empty() { String::new() } else { format!(" {name:?}") };
        let message = format!(
            "{place}{named} is forbidden: User {user:?} cannot {verb} resource {what:?} in API group {group:?} {scope}"
        );
        let mut details = json!({"kind": resource});
        for (key, value) in [("name", name), ("group", group)] {
            if !value.is_empty() {
                details[key] = json!(value);
            }
        }
        answer::refusal(403, "Forbidden", &message, Some(details))
    }
}

pub(crate) type Authenticate = Box<dyn Fn(&str) -> Option<Person> + Send + Sync>;
type Authorize = Box<dyn Fn(&Attempt) -> bool + Send + Sync>;

/// What decides.
pub(crate) struct Access {
    pub(crate) authenticate: Authenticate,
    pub(crate) authorize: Mutex<Authorize>,
    /// The users of tokens that the cluster itself gave.
    pub(crate) tokens: Mutex<HashMap<String, User>>,
    /// Those of client certificates, by the certificate.
    pub(crate) certificates: Mutex<HashMap<Vec<u8>, User>>,
    /// How often a token is still refused.
    pub(crate) refused: Mutex<HashMap<String, usize>>,
}

/// Who asks, and as whom.
pub(crate) struct Asking {
    /// As whom the request is made.
    pub(crate) user: User,
    /// Who makes it.
    pub(crate) signed_in: User,
}

impl Access {
    pub(crate) fn new(authenticate: Authenticate) -> Self {
        Self {
            authenticate,
            authorize: Mutex::new(Box::new(|_| true)),
            tokens: Mutex::default(),
            certificates: Mutex::default(),
            refused: Mutex::default(),
        }
    }

    /// Who asks; or how they are turned away.
    pub(crate) fn asking(
        &self,
        request: &Request,
        certificate: Option<&[u8]>,
        anonymous: bool,
    ) -> Result<Asking, Box<Response<Body>>> {
        let unauthorized = || Box::new(answer::refusal(401, "Unauthorized", "Unauthorized", None));
        let certified = certificate.and_then(|certificate| lock(&self.certificates).get(certificate).cloned());
        let signed_in = match (certified, request.bearer()) {
            (Some(user), _) => user,
            (None, Some(token)) => self.bearer(token).ok_or_else(unauthorized)?,
            (None, None) if anonymous => User::anonymous(),
            (None, None) => return Err(unauthorized()),
        };
        let user = self.impersonated(request, &signed_in)?;
        Ok(Asking { user, signed_in })
    }

    fn bearer(&self, token: &str) -> Option<User> {
        if let Some(left) = lock(&self.refused).get_mut(token).filter(|left| **left > 0) {
            if *left != usize::MAX {
                *left -= 1;
            }
            return None;
        }
        lock(&self.tokens).get(token).cloned().or_else(|| (self.authenticate)(token).map(|person| User::of(&person)))
    }

    fn impersonated(&self, request: &Request, by: &User) -> Result<User, Box<Response<Body>>> {
        let all = |name: &str| -> Vec<String> {
            request.headers.iter().filter(|(key, _)| key == name).map(|(_, value)| value.clone()).collect()
        };
        let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, value) in &request.headers {
            if let Some(key) = name.strip_prefix("impersonate-extra-") {
                let key = percent_encoding::percent_decode_str(key).decode_utf8_lossy().into_owned();
                extra.entry(key).or_default().push(value.clone());
            }
        }
        let (names, groups, uids) = (all("impersonate-user"), all("impersonate-group"), all("impersonate-uid"));
        let Some(name) = names.into_iter().next() else {
            if groups.is_empty() && uids.is_empty() && extra.is_empty() {
                return Ok(by.clone());
            }
            return Err(Box::new(answer::bad_request("requested groups without impersonating a user")));
        };
        let mut wanted = vec![("users", name.clone())];
        wanted.extend(groups.iter().map(|group| ("groups", group.clone())));
        wanted.extend(uids.iter().map(|uid| ("uids", uid.clone())));
        for (resource, name) in wanted {
            let (verb, resource) = ("impersonate".to_owned(), resource.to_owned());
            let attempt = Attempt { user: by.clone(), verb, resource, name, ..Attempt::default() };
            if !self.allows(&attempt) {
                return Err(Box::new(attempt.forbidden()));
            }
        }
        let mut user = User { name, uid: uids.into_iter().next().unwrap_or_default(), groups, extra };
        if user.name != ANONYMOUS && !user.groups.iter().any(|group| group == AUTHENTICATED) {
            user.groups.push(AUTHENTICATED.to_owned());
        }
        Ok(user)
    }

    pub(crate) fn allows(&self, attempt: &Attempt) -> bool {
        let public = ["/version", "/healthz", "/livez", "/readyz"];
        if attempt.resource.is_empty() && public.iter().any(|path| attempt.path.starts_with(path)) {
            return true;
        }
        // Anybody who is somebody may ask about themselves, and what there is.
        let known = attempt.user.name != ANONYMOUS;
        if known && (attempt.resource.is_empty() || attempt.resource.starts_with("selfsubject")) {
            return true;
        }
        known && lock(&self.authorize)(attempt)
    }

    /// The answer to a review that is about the asker alone.
    pub(crate) fn review(&self, user: &User, version: &str, resource: &str, body: &Value) -> Option<Response<Body>> {
        let mut review = body.clone();
        match resource {
            "selfsubjectreviews" => {
                review = json!({
                    "kind": "SelfSubjectReview", "apiVersion": format!("authentication.k8s.io/{version}"),
                    "metadata": {"creationTimestamp": null}, "status": {"userInfo": user.info()},
                });
            }
            "selfsubjectaccessreviews" => {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                let (wanted, path) = (&body["spec"]["resourceAttributes"], &body["spec"]["nonResourceAttributes"]);
                let attempt = Attempt {
                    user: user.clone(),
                    verb: text(if wanted.is_object() { &wanted["verb"] } else { &path["verb"] }),
                    group: text(&wanted["group"]),
                    resource: text(&wanted["resource"]),
                    subresource: text(&wanted["subresource"]),
                    namespace: text(&wanted["namespace"]),
                    name: text(&wanted["name"]),
                    path: text(&path["path"]),
                };
                review["status"] = json!({"allowed": self.allows(&attempt)});
            }
            "selfsubjectrulesreviews" => review["status"] = self.rules(user, &body["spec"]["namespace"]),
            _ => return None,
        }
        Some(answer::json(201, &review))
    }

    fn rules(&self, user: &User, namespace: &Value) -> Value {
        let namespace = namespace.as_str().unwrap_or("default").to_owned();
        let mut rules = Vec::new();
        for kind in KINDS {
            let may = |verb: &&str| {
                let namespace = if kind.namespaced { namespace.clone() } else { String::new() };
                let (user, verb) = (user.clone(), (*verb).to_owned());
                let (group, resource) = (kind.group.to_owned(), kind.resource.to_owned());
                self.allows(&Attempt { user, verb, group, resource, namespace, ..Attempt::default() })
            };
            let verbs: Vec<&str> = VERBS.iter().copied().filter(|verb| may(verb)).collect();
            if !verbs.is_empty() {
                rules.push(json!({"verbs": verbs, "apiGroups": [kind.group], "resources": [kind.resource]}));
            }
        }
        let paths = json!([{"verbs": ["get"], "nonResourceURLs": ["/api", "/api/*", "/apis", "/apis/*", "/version"]}]);
        json!({"resourceRules": rules, "nonResourceRules": paths, "incomplete": false})
    }
}

/// What can be done to objects.
pub(crate) const VERBS: [&str; 8] = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
const AUTHENTICATED: &str = "system:authenticated";
const ANONYMOUS: &str = "system:anonymous";
