//! Requests as lines of a log, and what of them could be a credential.

use serde_json::{Value, json};

use crate::server::Request;

/// The request with all that it brought, as one line of JSON.
pub fn line(request: &Request) -> String {
    let body = String::from_utf8_lossy(&request.body);
    json!({
        "method": request.method, "path": request.path, "query": request.query, "headers": request.headers,
        "body": body,
    })
    .to_string()
}

/// The request of a line that [`line()`] wrote; `None` for other lines.
pub fn parse(line: &str) -> Option<Request> {
    let value: Value = serde_json::from_str(line).ok()?;
    let text = |name: &str| value[name].as_str().map(str::to_owned);
    let pairs = |name: &str| serde_json::from_value(value[name].clone()).ok();
    Some(Request {
        method: text("method")?,
        path: text("path")?,
        query: pairs("query")?,
        headers: pairs("headers")?,
        body: text("body")?.into_bytes(),
    })
}

/// What of these requests could be, or could carry, a credential: each with the request's path.
///
/// Headers that exist to carry one count whatever is in them; elsewhere, what looks like a token.
pub fn credentials(requests: &[Request]) -> Vec<String> {
    requests.iter().flat_map(of_one).collect()
}

fn of_one(request: &Request) -> Vec<String> {
    let mut found = Vec::new();
    for (name, value) in &request.headers {
        let carries =
            CARRIERS.contains(&name.as_str()) || CARRYING_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
        if carries || looks_secret(value) {
            found.push(format!("{}: header `{name}: {value}`", request.path));
        }
    }
    for (name, value) in &request.query {
        if name.to_ascii_lowercase().contains("token") || looks_secret(value) {
            found.push(format!("{}: parameter `{name}={value}`", request.path));
        }
    }
    let body = String::from_utf8_lossy(&request.body);
    if looks_secret(&request.path) || looks_secret(&body) {
        found.push(format!("{}: body `{body}`", request.path));
    }
    found
}

/// A JWT, or the way that tokens travel in headers.
fn looks_secret(text: &str) -> bool {
    text.contains("eyJ") || text.to_ascii_lowercase().contains("bearer")
}

const CARRIERS: &[&str] = &["authorization", "proxy-authorization", "cookie", "kubeconfig"];
const CARRYING_PREFIXES: &[&str] = &["impersonate-", "x-forwarded-", "x-headlamp", "x-auth"];
