//! What a provider says of itself (`OpenID` Connect Discovery §3 and §4, RFC 8414), as far as it is used here.

use serde_json::{Value, json};
use url::Url;

use crate::entra::preset as entra;
use crate::error::{Error, Result};
use crate::json_object::JsonObject;
use crate::loopback::is_loopback;

/// A provider's metadata, checked: its issuer is the configured one, and no endpoint would be
/// spoken to unencrypted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Metadata {
    /// As the provider writes it. Entra ID's documents for several tenants have the literal
    /// `{tenantid}` in it.
    pub(crate) issuer: String,
    pub(crate) authorization_endpoint: Option<Url>,
    pub(crate) token_endpoint: Url,
    pub(crate) jwks_uri: Url,
    pub(crate) device_authorization_endpoint: Option<Url>,
    pub(crate) revocation_endpoint: Option<Url>,
    pub(crate) scopes_supported: Vec<String>,
    /// `None`: nothing is said.
    pub(crate) code_challenge_methods_supported: Option<Vec<String>>,
    pub(crate) token_endpoint_auth_methods_supported: Option<Vec<String>>,
    /// The callback will name the issuer (RFC 9207 §3).
    pub(crate) authorization_response_iss_parameter_supported: bool,
}

/// Where the metadata is: a slash at the issuer's end is taken off first (Discovery §4.1).
pub(crate) fn location(issuer: &str) -> String {
    format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'))
}

impl Metadata {
    /// `configured` is the issuer of the settings, which the document must name character for
    /// character (Discovery §4.3).
    pub(crate) fn of(document: &JsonObject, configured: &str) -> Result<Self> {
        let issuer =
            document.text("issuer").ok_or_else(|| no_provider(configured).cause("its metadata has no `issuer`"))?;
        if issuer != configured && !entra::stands_for(configured, issuer) {
            return Err(other_issuer(configured, issuer));
        }
        let unusable = |name: &str, text: &str, reason| {
            Error::settings(format!("the provider `{configured}` names an unusable `{name}`: `{text}`")).cause(reason)
        };
        let checked = |name: &str, text: &str| endpoint(text).map_err(|reason| unusable(name, text, reason));
        let optional = |name: &str| document.text(name).map(|text| checked(name, text)).transpose();
        let required = |name: &str| {
            optional(name)?.ok_or_else(|| no_provider(configured).cause(format!("its metadata has no `{name}`")))
        };
        Ok(Self {
            issuer: issuer.to_owned(),
            authorization_endpoint: optional("authorization_endpoint")?,
            token_endpoint: required("token_endpoint")?,
            jwks_uri: required("jwks_uri")?,
            device_authorization_endpoint: optional("device_authorization_endpoint")?,
            revocation_endpoint: optional("revocation_endpoint")?,
            scopes_supported: document.texts("scopes_supported").unwrap_or_default(),
            code_challenge_methods_supported: document.texts("code_challenge_methods_supported"),
            token_endpoint_auth_methods_supported: document.texts("token_endpoint_auth_methods_supported"),
            authorization_response_iss_parameter_supported: document
                .is_true("authorization_response_iss_parameter_supported"),
        })
    }

    /// The document again, without what is not used.
    pub(crate) fn to_document(&self) -> Value {
        let text = |url: &Option<Url>| url.as_ref().map(Url::as_str).map(str::to_owned);
        json!({
            "issuer": self.issuer,
            "authorization_endpoint": text(&self.authorization_endpoint),
            "token_endpoint": self.token_endpoint.as_str(),
            "jwks_uri": self.jwks_uri.as_str(),
            "device_authorization_endpoint": text(&self.device_authorization_endpoint),
            "revocation_endpoint": text(&self.revocation_endpoint),
            "scopes_supported": self.scopes_supported,
            "code_challenge_methods_supported": self.code_challenge_methods_supported,
            "token_endpoint_auth_methods_supported": self.token_endpoint_auth_methods_supported,
            "authorization_response_iss_parameter_supported": self.authorization_response_iss_parameter_supported,
        })
    }

    pub(crate) fn lists_scope(&self, scope: &str) -> bool {
        self.scopes_supported.iter().any(|listed| listed == scope)
    }
}

/// What is at the issuer's address does not serve as a provider.
pub(crate) fn no_provider(configured: &str) -> Error {
    Error::settings(format!("`{configured}` does not answer as an OpenID provider"))
        .hint(format!("check `--issuer-url`: `{}` must show a JSON document", location(configured)))
}

/// https, or http on loopback; no fragment (RFC 6749 §3.1 and §3.2), and no user name, which would
/// be sent as one.
pub(crate) fn endpoint(text: &str) -> Result<Url, &'static str> {
    let url = Url::parse(text).map_err(|_| "it is not a URL")?;
    let encrypted = url.scheme() == "https" || (url.scheme() == "http" && is_loopback(&url));
    if !encrypted {
        return Err("it is not https, and not on this machine");
    }
    if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
        return Err("it has a user name or a fragment");
    }
    Ok(url)
}

fn other_issuer(configured: &str, found: &str) -> Error {
    let error = Error::settings(format!("the provider at `{configured}` says that it is another one: `{found}`"));
    if let Some(tenant) = found.strip_prefix("https://sts.windows.net/").map(|rest| rest.trim_end_matches('/')) {
        let tenant = if entra::is_guid(tenant) { tenant } else { "<tenant id>" };
        return error
            .cause("without `/v2.0` at its end, an Entra ID address is that of version 1")
            .hint(format!("use version 2: `--issuer-url https://login.microsoftonline.com/{tenant}/v2.0`"));
    }
    let hint = format!("`--issuer-url {found}`");
    if found.trim_end_matches('/') == configured.trim_end_matches('/') {
        return error
            .cause("the two differ in the slash at their end")
            .hint(format!("write it as the provider does: {hint}"));
    }
    error.hint(format!("if that is your provider, write its issuer as it does: {hint}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::*;
    use crate::error::Kind;

    const ISSUER: &str = "https://id.example.com/realm";
    const GUID: &str = "11111111-2222-3333-4444-555555555555";

    fn document(changes: Value) -> JsonObject {
        let mut document = json!({
            "issuer": ISSUER,
            "authorization_endpoint": "https://id.example.com/authorize?tenant=a",
            "token_endpoint": "https://tokens.example.com/token",
            "jwks_uri": "https://id.example.com/keys",
        });
        let (members, Value::Object(changes)) = (document.as_object_mut().unwrap(), changes) else { unreachable!() };
        members.extend(changes);
        JsonObject::parse(document.to_string().as_bytes()).unwrap()
    }

    fn refusal(changes: Value, configured: &str) -> String {
        let error = Metadata::of(&document(changes), configured).unwrap_err();
        assert_eq!(error.kind(), Kind::Settings);
        error.to_string()
    }

    #[test]
    fn odd_members_that_are_not_needed_do_no_harm() {
        let odd = json!({ "scopes_supported": "openid", "code_challenge_methods_supported": [1, "S256"], "revocation_endpoint": "", "x": [{}] });
        let metadata = Metadata::of(&document(odd), ISSUER).unwrap();
        assert_eq!(metadata.scopes_supported, Vec::<String>::new());
        assert_eq!(metadata.code_challenge_methods_supported.as_deref(), Some(&["S256".to_owned()][..]));
        assert_eq!((metadata.revocation_endpoint, metadata.token_endpoint_auth_methods_supported), (None, None));
    }

    #[test]
    fn the_document_that_is_kept_reads_back_the_same() {
        let full = json!({
            "device_authorization_endpoint": "http://localhost:1/device",
            "revocation_endpoint": "https://id.example.com/revoke",
            "scopes_supported": ["openid", "offline_access"],
            "token_endpoint_auth_methods_supported": ["client_secret_post"],
            "authorization_response_iss_parameter_supported": true,
        });
        for changes in [full, json!({})] {
            let metadata = Metadata::of(&document(changes), ISSUER).unwrap();
            let kept = JsonObject::parse(metadata.to_document().to_string().as_bytes()).unwrap();
            assert_eq!(Metadata::of(&kept, ISSUER).unwrap(), metadata);
        }
    }

    #[test]
    fn the_issuer_is_compared_character_for_character() {
        for configured in [
            "https://id.example.com/realm/",
            "https://ID.example.com/realm",
            "https://id.example.com:443/realm",
            "https://id.example.com",
        ] {
            let error = refusal(json!({}), configured);
            assert!(
                error.contains(&format!("`{configured}`"))
                    && error.contains("`--issuer-url https://id.example.com/realm`"),
                "{error}"
            );
        }
        assert!(refusal(json!({}), "https://id.example.com/realm/").contains("slash"));
        assert!(refusal(json!({ "issuer": 1 }), ISSUER).contains("no `issuer`"));
        assert!(refusal(json!({ "issuer": [ISSUER] }), ISSUER).contains("no `issuer`"));
    }

    #[test]
    fn entras_issuers_for_words_and_domains_are_taken_and_version_1_is_explained() {
        let entra = |tenant: &str| format!("https://login.microsoftonline.com/{tenant}/v2.0");
        for (configured, found) in [
            ("common", "{tenantid}"),
            ("organizations", "{tenantid}"),
            ("consumers", GUID),
            ("contoso.onmicrosoft.com", GUID),
        ] {
            let metadata = Metadata::of(&document(json!({ "issuer": entra(found) })), &entra(configured)).unwrap();
            assert_eq!(metadata.issuer, entra(found));
        }
        let other = "99999999-2222-3333-4444-555555555555";
        refusal(json!({ "issuer": entra(other) }), &entra(GUID));
        refusal(json!({ "issuer": entra("{tenantid}") }), &entra(GUID));
        refusal(json!({ "issuer": "https://id.example.com/{tenantid}/v2.0" }), "https://id.example.com/common/v2.0");
        refusal(json!({ "issuer": "https://evil.example/{tenantid}/v2.0" }), &entra("common"));
        let version_1 = json!({ "issuer": format!("https://sts.windows.net/{GUID}/") });
        let error = refusal(version_1, &format!("https://login.microsoftonline.com/{GUID}"));
        assert!(error.contains(&format!("`--issuer-url {}`", entra(GUID))), "{error}");
    }

    #[test]
    fn endpoints_must_be_encrypted_or_on_this_machine() {
        for bad in [
            "http://id.example.com/token",
            "ftp://a/",
            "/token",
            "nonsense",
            "https://jane@a/",
            "https://a/#b",
            "javascript:1",
        ] {
            for name in [
                "authorization_endpoint",
                "token_endpoint",
                "jwks_uri",
                "device_authorization_endpoint",
                "revocation_endpoint",
            ] {
                assert!(refusal(json!({ name: bad }), ISSUER).contains(&format!("`{name}`")), "{bad}");
            }
        }
        for good in ["http://127.0.0.1:1/t", "http://localhost/t", "http://[::1]:2/t", "https://other.example/t"] {
            assert!(Metadata::of(&document(json!({ "token_endpoint": good })), ISSUER).is_ok(), "{good}");
        }
        assert!(refusal(json!({ "token_endpoint": null }), ISSUER).contains("no `token_endpoint`"));
        assert!(refusal(json!({ "jwks_uri": 7 }), ISSUER).contains("no `jwks_uri`"));
    }

    #[test]
    fn the_document_is_below_the_issuer() {
        assert_eq!(location("https://a/b"), "https://a/b/.well-known/openid-configuration");
        assert_eq!(location("https://a/b/"), "https://a/b/.well-known/openid-configuration");
    }

    proptest! {
        #[test]
        fn no_document_panics(name in "issuer|token_endpoint|jwks_uri|scopes_supported", text in ".*") {
            let _ = Metadata::of(&document(json!({ name.as_str(): text.as_str() })), ISSUER);
            let _ = Metadata::of(&document(json!({ name.as_str(): [text.as_str()] })), text.as_str());
        }
    }
}
