//! Lists of Kubernetes objects, read page by page.
//!
//! Only what tells objects and their versions apart is looked at; the objects stay the text that
//! the server wrote. The page size shrinks where objects are too large for it.

use std::error::Error as Cause;
use std::time::Duration;

use http::{Response, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body, Bytes};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use url::form_urlencoded;

use crate::error::Result;

/// A `GET` that is to be sent to an API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ask {
    pub(crate) path_and_query: String,
    pub(crate) accept: &'static str,
    /// The answer is a watch: it wants a connection of its own.
    pub(crate) endless: bool,
}

/// Objects as they are.
pub(crate) const WHOLE: &str = "application/json";
/// Their metadata alone, where the server can leave out the rest.
pub(crate) const METADATA: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";

/// Why there is no list.
#[derive(Debug)]
pub(crate) enum Stop<B> {
    /// The server will not give it, and will not change its mind.
    Refused(Response<B>),
    /// The server no longer holds the version that was asked for, or the rest of the list.
    Expired(Response<B>),
    /// Something that passes: the network, an overloaded server, a sign-in that is under way. The
    /// server may have said how long to wait.
    Failed(Option<Duration>),
}

/// Which list.
#[derive(Clone, Debug)]
pub(crate) struct Wanted<'a> {
    pub(crate) path: &'a str,
    /// Selectors, as a query.
    pub(crate) query: &'a str,
    pub(crate) accept: &'static str,
    /// This very version, else the newest.
    pub(crate) exactly: Option<&'a str>,
}

/// What a list says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct About {
    /// The objects' kind and version, which typed lists leave out of each object.
    pub(crate) kind: String,
    pub(crate) api_version: String,
    pub(crate) resource_version: String,
}

/// An object of a list.
#[derive(Debug)]
pub(crate) struct Object<'a> {
    pub(crate) metadata: Metadata,
    /// JSON, as the server wrote it.
    pub(crate) text: &'a str,
    /// Whether the text says its kind.
    pub(crate) typed: bool,
}

/// What tells objects and their versions apart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Metadata {
    pub(crate) uid: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) namespace: Option<String>,
    pub(crate) resource_version: Option<String>,
}

/// Objects on a page of a list, to begin with.
const PAGE: usize = 500;
/// Bytes of a page; a single object has at most some 1.5 MiB.
const LARGEST_PAGE: usize = 32 * 1024 * 1024;

/// Reads the whole list; `each` is handed every object, page by page. After a failure it has seen
/// some of them, and the next attempt begins anew.
pub(crate) async fn read<S, F, B>(
    send: &S,
    wanted: &Wanted<'_>,
    patience: Duration,
    mut each: impl FnMut(&About, Object<'_>),
) -> Result<About, Stop<B>>
where
    S: Fn(Ask) -> F,
    F: Future<Output = Result<Response<B>>>,
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn Cause + Send + Sync>>,
{
    let mut limit = PAGE;
    let mut rest = None;
    loop {
        let page = tokio::time::timeout(patience, page(send, wanted.ask(limit, rest.as_deref()))).await;
        let body = match page.unwrap_or(Err(Stop::Failed(None)))? {
            Some(body) => body,
            None if limit == 1 => return Err(Stop::Failed(None)),
            None => {
                limit = (limit / 8).max(1);
                continue;
            }
        };
        let (about, more) = parse(&body, &mut each).map_err(|_| Stop::Failed(None))?;
        match more {
            Some(more) => rest = Some(more),
            None => return Ok(about),
        }
    }
}

/// The text of one page, `None` if it is too large.
async fn page<S, F, B>(send: &S, ask: Ask) -> Result<Option<Bytes>, Stop<B>>
where
    S: Fn(Ask) -> F,
    F: Future<Output = Result<Response<B>>>,
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn Cause + Send + Sync>>,
{
    let answer = send(ask).await.map_err(|_| Stop::Failed(None))?;
    let answer = sort(answer)?;
    match Limited::new(answer.into_body(), LARGEST_PAGE).collect().await {
        Ok(body) => Ok(Some(body.to_bytes())),
        Err(error) if error.is::<LengthLimitError>() => Ok(None),
        Err(_) => Err(Stop::Failed(None)),
    }
}

impl Wanted<'_> {
    fn ask(&self, limit: usize, rest: Option<&str>) -> Ask {
        let mut query = form_urlencoded::Serializer::new(self.query.to_owned());
        query.append_pair("limit", &limit.to_string());
        match (rest, self.exactly) {
            // The rest of a list is of the version that its beginning was.
            (Some(rest), _) => query.append_pair("continue", rest),
            (None, Some(version)) => {
                query.append_pair("resourceVersion", version).append_pair("resourceVersionMatch", "Exact")
            }
            (None, None) => &mut query,
        };
        Ask { path_and_query: format!("{}?{}", self.path, query.finish()), accept: self.accept, endless: false }
    }
}

/// An answer by what is to be done about it.
pub(crate) fn sort<B>(answer: Response<B>) -> Result<Response<B>, Stop<B>> {
    match answer.status() {
        status if status.is_success() => Ok(answer),
        StatusCode::GONE => Err(Stop::Expired(answer)),
        // A renewed credential, a little time: the same request may go through then.
        StatusCode::UNAUTHORIZED | StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => {
            Err(Stop::Failed(retry_after(&answer)))
        }
        status if status.is_client_error() => Err(Stop::Refused(answer)),
        _ => Err(Stop::Failed(retry_after(&answer))),
    }
}

/// API servers say it in seconds.
fn retry_after<B>(answer: &Response<B>) -> Option<Duration> {
    let value = answer.headers().get(header::RETRY_AFTER)?.to_str().ok()?;
    value.trim().parse().ok().map(Duration::from_secs)
}

fn parse(body: &[u8], each: &mut impl FnMut(&About, Object<'_>)) -> serde_json::Result<(About, Option<String>)> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct List<'a> {
        #[serde(default)]
        kind: Option<String>,
        #[serde(default)]
        api_version: Option<String>,
        #[serde(default)]
        metadata: Option<OfList>,
        #[serde(borrow, default)]
        items: Option<Vec<&'a RawValue>>,
    }
    #[derive(Default, Deserialize)]
    #[serde(default, rename_all = "camelCase")]
    struct OfList {
        resource_version: Option<String>,
        r#continue: Option<String>,
    }
    #[derive(Deserialize)]
    struct OfObject {
        #[serde(default)]
        kind: Option<IgnoredAny>,
        #[serde(default)]
        metadata: Option<Metadata>,
    }
    let list: List<'_> = serde_json::from_slice(body)?;
    let metadata = list.metadata.unwrap_or_default();
    let kind = list.kind.unwrap_or_default();
    let about = About {
        kind: kind.strip_suffix("List").map(str::to_owned).unwrap_or(kind),
        api_version: list.api_version.unwrap_or_default(),
        resource_version: metadata.resource_version.unwrap_or_default(),
    };
    for item in list.items.unwrap_or_default() {
        let object: OfObject = serde_json::from_str(item.get())?;
        let metadata = object.metadata.unwrap_or_default();
        each(&about, Object { metadata, text: item.get(), typed: object.kind.is_some() });
    }
    Ok((about, metadata.r#continue.filter(|rest| !rest.is_empty())))
}

impl Metadata {
    /// What the object is known by: its uid, or its place where a server gives none.
    pub(crate) fn identity(&self) -> String {
        match &self.uid {
            Some(uid) if !uid.is_empty() => uid.clone(),
            _ => format!(
                "{}/{}",
                self.namespace.as_deref().unwrap_or_default(),
                self.name.as_deref().unwrap_or_default()
            ),
        }
    }

    pub(crate) fn version(&self) -> &str {
        self.resource_version.as_deref().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use std::sync::Mutex;

    use http_body_util::Full;
    use proptest::prelude::*;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);
    const WANTED: Wanted<'_> =
        Wanted { path: "/api/v1/pods", query: "labelSelector=a%3Db", accept: METADATA, exactly: None };

    fn answer(status: u16, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
        Response::builder().status(status).body(Full::new(body.into())).unwrap()
    }

    async fn names(answers: &[(&str, &str)]) -> Result<Vec<String>, Stop<Full<Bytes>>> {
        let answers = Mutex::new(answers.iter());
        let send = |ask: Ask| {
            let (asked, body) = answers.lock().unwrap().next().unwrap();
            assert_eq!(ask.path_and_query, *asked);
            std::future::ready(Ok(answer(200, (*body).to_owned())))
        };
        let mut names = Vec::new();
        read(&send, &WANTED, PATIENCE, |_, object| names.extend(object.metadata.name)).await?;
        Ok(names)
    }

    #[tokio::test]
    async fn a_list_is_read_to_its_last_page() {
        let names = names(&[
            (
                "/api/v1/pods?labelSelector=a%3Db&limit=500",
                r#"{"metadata":{"resourceVersion":"7","continue":"a b&c"},"items":[{"metadata":{"name":"one"}}]}"#,
            ),
            (
                "/api/v1/pods?labelSelector=a%3Db&limit=500&continue=a+b%26c",
                r#"{"metadata":{"resourceVersion":"7","continue":""},"items":[{"metadata":{"name":"two"}},{"metadata":null}]}"#,
            ),
        ]);
        assert_eq!(names.await.unwrap(), ["one", "two"]);
    }

    #[tokio::test]
    async fn pages_shrink_until_they_fit() {
        let limits = Mutex::new(Vec::new());
        let send = |ask: Ask| {
            let limit: usize = ask.path_and_query.rsplit_once('=').unwrap().1.parse().unwrap();
            limits.lock().unwrap().push(limit);
            let fits = r#"{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"7"},"items":null}"#;
            let body = if limit > 10 { vec![b' '; LARGEST_PAGE + 1] } else { fits.into() };
            std::future::ready(Ok(answer(200, body)))
        };
        let about = read(&send, &WANTED, PATIENCE, |_, _| {}).await.unwrap();
        assert_eq!(about, About { kind: "Pod".into(), api_version: "v1".into(), resource_version: "7".into() });
        assert_eq!(*limits.lock().unwrap(), [500, 62, 7]);
    }

    #[test]
    fn answers_are_sorted_by_what_helps() {
        let sorted = |status: u16| match sort(answer(status, "")) {
            Ok(_) => "answered",
            Err(Stop::Expired(_)) => "list anew",
            Err(Stop::Refused(_)) => "refused",
            Err(Stop::Failed(_)) => "wait",
        };
        assert_eq!([200, 206].map(sorted), ["answered"; 2]);
        assert_eq!([401, 408, 429, 500, 502, 503, 504, 301].map(sorted), ["wait"; 8]);
        assert_eq!([400, 403, 404, 405, 406, 422].map(sorted), ["refused"; 6]);
        assert_eq!(sorted(410), "list anew");
    }

    #[test]
    fn the_server_says_how_long_to_wait() {
        let after = |value: &str| {
            let answer = Response::builder().status(429).header("retry-after", value).body(()).unwrap();
            match sort(answer) {
                Err(Stop::Failed(after)) => after,
                _ => panic!("{value}"),
            }
        };
        assert_eq!(after("7"), Some(Duration::from_secs(7)));
        assert_eq!(after("Wed, 21 Oct 2026 07:28:00 GMT"), None);
        assert_eq!(after("-1"), None);
    }

    proptest! {
        #[test]
        fn no_answer_makes_it_panic(body in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..60),
            "\\{\"(items|metadata|kind)\":[\\[\\]{}\"a-z0-9:,]{0,30}\\}".prop_map(String::into_bytes),
        ]) {
            let _ = parse(&body, &mut |_, _| {});
        }
    }
}
