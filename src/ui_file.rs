//! One file of Headlamp's page: what its address says, what is kept of it, how a browser gets it.
//!
//! A browser keeps a file for ever only if its name holds a hash of its content and its type is
//! what the name says: Headlamp answers for a file that it does not have with its index page.
//! Everything else is asked for anew, by an `ETag` made from the content: times of files may be
//! the same in two images.

use std::io::Read;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use hyper::body::Bytes;
use sha2::{Digest, Sha256};

use crate::api_connection::{empty, full};
use crate::error::{Error, Result};
use crate::http2_pool::Body;

/// Bytes; Headlamp's largest file has 5 MB.
pub(crate) const LARGEST: usize = 64 * 1024 * 1024;

/// Whether the body is compressed. Headlamp knows brotli alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    Plain,
    Brotli,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UiFile {
    pub(crate) content_type: String,
    pub(crate) encoding: Encoding,
    /// As the pod wrote it; only for asking it again.
    pub(crate) last_modified: Option<String>,
    pub(crate) body: Bytes,
    /// SHA-256 of the body, in hexadecimal.
    pub(crate) digest: String,
}

/// What an address of the page is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// A place in the application; it gets the index page.
    Page,
    /// A file whose name holds a hash of its content.
    Hashed,
    /// A file whose content may change.
    Named,
}

/// Where hashed files are: in builds of Vite and of webpack.
const HASHED_FOLDERS: [&str; 2] = ["assets", "static"];
/// Where everything is a file, whatever its name.
const FILE_FOLDERS: [&str; 5] = ["assets", "static", "plugins", "static-plugins", "user-plugins"];

/// What a file of this name is, for files in a folder and as a check of what a pod says.
const TYPES: [(&str, &str); 26] = [
    ("js", "text/javascript; charset=utf-8"),
    ("mjs", "text/javascript; charset=utf-8"),
    ("css", "text/css; charset=utf-8"),
    ("html", "text/html; charset=utf-8"),
    ("htm", "text/html; charset=utf-8"),
    ("json", "application/json"),
    ("map", "application/json"),
    ("webmanifest", "application/manifest+json"),
    ("wasm", "application/wasm"),
    ("svg", "image/svg+xml"),
    ("png", "image/png"),
    ("ico", "image/x-icon"),
    ("jpg", "image/jpeg"),
    ("jpeg", "image/jpeg"),
    ("gif", "image/gif"),
    ("webp", "image/webp"),
    ("avif", "image/avif"),
    ("icns", "image/icns"),
    ("woff", "font/woff"),
    ("woff2", "font/woff2"),
    ("ttf", "font/ttf"),
    ("otf", "font/otf"),
    ("eot", "application/vnd.ms-fontobject"),
    ("txt", "text/plain; charset=utf-8"),
    ("md", "text/plain; charset=utf-8"),
    ("xml", "text/xml; charset=utf-8"),
];

/// Judges a path without the base.
pub(crate) fn role(path: &str) -> Role {
    let (folder, name) = parts(path);
    if HASHED_FOLDERS.contains(&folder) && has_hash(name) {
        Role::Hashed
    } else if path == "/index.html" {
        Role::Page
    } else if FILE_FOLDERS.contains(&folder) && !name.is_empty() || type_of(path).is_some() {
        Role::Named
    } else {
        Role::Page
    }
}

/// The first folder and the last segment.
fn parts(path: &str) -> (&str, &str) {
    let path = path.trim_start_matches('/');
    match (path.split_once('/'), path.rsplit_once('/')) {
        (Some((folder, _)), Some((_, name))) => (folder, name),
        _ => ("", path),
    }
}

fn extension(path: &str) -> Option<&str> {
    let (_, name) = parts(path);
    name.rsplit_once('.').filter(|(stem, _)| !stem.is_empty()).map(|(_, extension)| extension)
}

/// The type that the name stands for, where it is one of those that pages are made of.
pub(crate) fn type_of(path: &str) -> Option<&'static str> {
    let extension = extension(path)?;
    TYPES.iter().find(|(known, _)| extension.eq_ignore_ascii_case(known)).map(|(_, content_type)| *content_type)
}

/// `index-CqULmv_h.js` as Vite names files, `main.0a1b2c3d.chunk.js` as webpack does.
fn has_hash(name: &str) -> bool {
    let Some((stem, _)) = name.rsplit_once('.') else { return false };
    let hexadecimal =
        |part: &str| part.len() >= 8 && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    // A word of eight small letters is no hash; a hash is such a word once in a thousand times.
    let telling = |part: &str| part.bytes().any(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase());
    let base64 = |part: &str| part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    let vite = stem
        .len()
        .checked_sub(HASH)
        .and_then(|at| stem.split_at_checked(at))
        .is_some_and(|(before, hash)| before.len() > 1 && before.ends_with('-') && base64(hash) && telling(hash));
    vite || stem.split('.').skip(1).any(|part| hexadecimal(part) && telling(part))
}

/// Characters of Vite's hashes.
const HASH: usize = 8;

/// Whether a person looks at the answer, in a tab.
pub(crate) fn navigates(headers: &HeaderMap) -> bool {
    match headers.get(HeaderName::from_static("sec-fetch-dest")) {
        Some(destination) => destination == "document",
        None => headers
            .get(header::ACCEPT)
            .and_then(|accept| accept.to_str().ok())
            .is_some_and(|accept| accept.contains("text/html")),
    }
}

impl UiFile {
    pub(crate) fn new(content_type: String, encoding: Encoding, last_modified: Option<String>, body: Bytes) -> Self {
        let digest = digest(&body);
        Self { content_type, encoding, last_modified, body, digest }
    }

    pub(crate) fn is_html(&self) -> bool {
        self.essence() == "text/html"
    }

    /// The type without its parameters.
    fn essence(&self) -> &str {
        self.content_type.split(';').next().unwrap_or_default().trim()
    }

    /// Whether this can be what the path names. Only scripts and styles must be of their very type:
    /// servers know few others, but never call them HTML.
    pub(crate) fn fits(&self, path: &str) -> bool {
        let essence = self.essence();
        match type_of(path) {
            Some(expected) if expected.starts_with("text/javascript") => essence.contains("javascript"),
            Some(expected) if expected.starts_with("text/css") => essence == "text/css",
            Some(expected) if expected.starts_with("text/html") => self.is_html(),
            Some(_) => !self.is_html(),
            None => role(path) == Role::Page || !self.is_html(),
        }
    }

    /// The body as it is meant.
    pub(crate) fn plain(&self) -> Result<Bytes> {
        match self.encoding {
            Encoding::Plain => Ok(self.body.clone()),
            Encoding::Brotli => unpacked(&self.body, LARGEST),
        }
    }

    /// The answer to a browser; `lasting`: it need never ask again.
    pub(crate) async fn answer(self: &Arc<Self>, asked: &HeaderMap, lasting: bool) -> Response<Body> {
        let packed = self.encoding == Encoding::Brotli && accepts_brotli(asked);
        let tag = self.tag(packed);
        let (status, body) = if names_tag(asked, &tag) {
            (StatusCode::NOT_MODIFIED, empty())
        } else if packed || self.encoding == Encoding::Plain {
            (StatusCode::OK, full(self.body.clone()))
        } else {
            let file = self.clone();
            // A large file takes a while, and everything else runs on this thread.
            match tokio::task::spawn_blocking(move || file.plain()).await {
                Ok(Ok(plain)) => (StatusCode::OK, full(plain)),
                Ok(Err(error)) => return failure(error),
                Err(error) => return failure(Error::bug("a file cannot be unpacked").caused_by(&error)),
            }
        };
        let mut answer = Response::new(body);
        *answer.status_mut() = status;
        let headers = answer.headers_mut();
        if let Ok(tag) = HeaderValue::try_from(tag) {
            headers.insert(header::ETAG, tag);
        }
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(if lasting { LASTING } else { ASK_ANEW }));
        headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
        if status == StatusCode::OK {
            let content_type = HeaderValue::try_from(&self.content_type);
            headers.insert(
                header::CONTENT_TYPE,
                content_type.unwrap_or(HeaderValue::from_static("application/octet-stream")),
            );
            if packed {
                headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("br"));
            }
        }
        answer
    }

    /// One for each form of the body.
    fn tag(&self, packed: bool) -> String {
        let form = if packed { "-br" } else { "" };
        format!("\"{}{form}\"", self.digest.get(..32).unwrap_or(&self.digest))
    }
}

const LASTING: &str = "public, max-age=31536000, immutable";
const ASK_ANEW: &str = "no-cache";

pub(crate) fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::with_capacity(64), |text, byte| text + &format!("{byte:02x}"))
}

fn unpacked(body: &[u8], most: usize) -> Result<Bytes> {
    let mut plain = Vec::new();
    let limit = u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1);
    let read = brotli_decompressor::Decompressor::new(body, 4096).take(limit).read_to_end(&mut plain);
    let unusable = || Error::unreachable("a compressed file of Headlamp's page cannot be unpacked");
    match read {
        Ok(_) if plain.len() <= most => Ok(Bytes::from(plain)),
        Ok(_) => Err(unusable().cause(format!("it has more than {most} bytes"))),
        Err(error) => Err(unusable().caused_by(&error)),
    }
}

fn accepts_brotli(headers: &HeaderMap) -> bool {
    let offered = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    offered.flat_map(|value| value.split(',')).any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let refused = parts.any(|part| part.strip_prefix("q=").is_some_and(|weight| weight.parse() == Ok(0.0)));
        name.eq_ignore_ascii_case("br") && !refused
    })
}

fn names_tag(headers: &HeaderMap, tag: &str) -> bool {
    let named = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    named.flat_map(|value| value.split(',')).any(|one| one.trim().trim_start_matches("W/") == tag)
}

/// The answer where a file cannot be had. The error stands in its extensions too.
pub(crate) fn failure(error: Error) -> Response<Body> {
    let lines: Vec<&str> = std::iter::once(error.message())
        .chain(error.causes().iter().map(String::as_str))
        .chain(error.hints().iter().map(String::as_str))
        .collect();
    let mut answer = told(StatusCode::BAD_GATEWAY, lines.join("\n"));
    answer.extensions_mut().insert(error);
    answer
}

/// The answer where there is no such file.
pub(crate) fn absent() -> Response<Body> {
    told(StatusCode::NOT_FOUND, "this Headlamp has no such file".to_owned())
}

fn told(status: StatusCode, text: String) -> Response<Body> {
    let mut answer = Response::new(full(text));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

    use http_body_util::BodyExt;
    use proptest::prelude::*;

    use super::*;

    /// `hello hello hello hello` in brotli's stored form.
    const PLAIN: &str = "hello hello hello hello";

    fn packed(plain: &str) -> Bytes {
        // One uncompressed meta-block of the format, then the last, empty one (RFC 7932 §9.2).
        let length = u32::try_from(plain.len() - 1).unwrap();
        // Window bits `0`; not last; 4 nibbles; length; uncompressed.
        let head = (length << 4) | (1 << 20);
        let mut bytes = head.to_le_bytes()[..3].to_vec();
        bytes.extend_from_slice(plain.as_bytes());
        bytes.push(3);
        Bytes::from(bytes)
    }

    fn headers(lines: &[(&str, &str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap())).collect()
    }

    async fn text(answer: Response<Body>) -> Bytes {
        answer.into_body().collect().await.unwrap().to_bytes()
    }

    #[test]
    fn names_with_a_hash_are_known_and_others_are_not() {
        for hashed in [
            "/assets/index-CqULmv_h.js",
            "/assets/csp-5Rap-vPy.js",
            "/assets/elk-worker.min--dAJroGl.js",
            "/assets/GraphView-Cdd0UtY8.css",
            "/static/js/main.0a1b2c3d.chunk.js",
            "/static/js/2.8f7e1b2c.js",
        ] {
            assert_eq!(role(hashed), Role::Hashed, "{hashed}");
        }
        for named in [
            "/favicon-32x32.png",
            "/android-chrome-192x192.png",
            "/index-CqULmv_h.js",
            "/assets/my-document.js",
            "/assets/-CqULmv_h.js",
            "/assets/é-CqULmv_é.js",
            "/plugins/a/main-CqULmv_h.js",
            "/plugins/a/main.js",
            "/static-plugins/b/package.json",
            "/plugins/a/anything",
            "/robots.txt",
        ] {
            assert_eq!(role(named), Role::Named, "{named}");
        }
        for page in [
            "/",
            "/index.html",
            "/c/main/pods",
            "/c/main/pods/default/nginx-1.27",
            "/c/main/crds/a.example.com",
            "/assets/",
        ] {
            assert_eq!(role(page), Role::Page, "{page}");
        }
    }

    #[test]
    fn a_page_in_place_of_a_file_does_not_fit() {
        let of = |content_type: &str| UiFile::new(content_type.into(), Encoding::Plain, None, Bytes::new());
        assert!(!of("text/html; charset=utf-8").fits("/assets/a-CqULmv_h.js"));
        assert!(!of("text/html").fits("/assets/a-CqULmv_h.woff2"));
        assert!(!of("TEXT/PLAIN").fits("/assets/a-CqULmv_h.css"));
        assert!(of("application/javascript").fits("/assets/a-CqULmv_h.js"));
        assert!(of("application/octet-stream").fits("/assets/a-CqULmv_h.woff2"));
        assert!(of("text/html").fits("/c/main"));
    }

    #[tokio::test]
    async fn brotli_reaches_whoever_asked_for_it_and_nobody_else() {
        let file = Arc::new(UiFile::new("text/javascript".into(), Encoding::Brotli, None, packed(PLAIN)));
        let answer = file.answer(&headers(&[("accept-encoding", "gzip, deflate, br")]), true).await;
        assert_eq!(answer.headers()["content-encoding"], "br");
        assert_eq!(answer.headers()["cache-control"], LASTING);
        let tag = answer.headers()["etag"].clone();
        assert_eq!(text(answer).await, packed(PLAIN));
        for accepted in ["gzip", "br;q=0, gzip", "brotli", ""] {
            let answer = file.answer(&headers(&[("accept-encoding", accepted)]), false).await;
            assert!(!answer.headers().contains_key("content-encoding"), "{accepted}");
            assert_eq!(answer.headers()["cache-control"], "no-cache");
            assert_ne!(answer.headers()["etag"], tag);
            assert_eq!(text(answer).await, PLAIN);
        }
    }

    #[tokio::test]
    async fn the_same_content_is_not_sent_twice() {
        let file = Arc::new(UiFile::new("text/css".into(), Encoding::Plain, None, Bytes::from("a{}")));
        let tag = file.answer(&HeaderMap::new(), false).await.headers()["etag"].to_str().unwrap().to_owned();
        let again = file.answer(&headers(&[("if-none-match", &format!("\"other\", W/{tag}"))]), false).await;
        assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
        assert_eq!(again.headers()["etag"], tag.as_str());
        assert!(text(again).await.is_empty());
        let other = Arc::new(UiFile::new("text/css".into(), Encoding::Plain, None, Bytes::from("b{}")));
        let changed = other.answer(&headers(&[("if-none-match", &tag)]), false).await;
        assert_eq!(changed.status(), StatusCode::OK);
    }

    #[test]
    fn a_packed_file_that_unpacks_without_end_is_given_up() {
        assert_eq!(unpacked(&packed(PLAIN), PLAIN.len()).unwrap(), PLAIN);
        assert!(unpacked(&packed(PLAIN), PLAIN.len() - 1).is_err());
        assert!(unpacked(b"no brotli", 100).is_err());
        let whole = packed(PLAIN);
        assert!(unpacked(&whole[..whole.len() - 4], 100).is_err());
    }

    proptest! {
        #[test]
        fn no_path_and_no_header_make_it_panic(path in "/?\\PC{0,40}", value in "[ -~]{0,40}", bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = (role(&path), type_of(&path), unpacked(&bytes, 1000));
            let asked = headers(&[("accept-encoding", value.trim()), ("if-none-match", value.trim()), ("accept", value.trim())]);
            let _ = (accepts_brotli(&asked), names_tag(&asked, "\"a\""), navigates(&asked));
        }
    }
}
