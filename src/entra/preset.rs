//! What the Headlamp tutorial for AKS has one type: issuer, scopes, and the token that AKS accepts.

use url::Url;

use crate::error::{Error, Result};

/// The application that every AKS cluster with Entra ID takes tokens for; the same in every tenant.
pub(crate) const AKS_SERVER: &str = "6dae42f8-4368-4678-94ff-3960e28e3630";

/// The tutorial's scopes, and `offline_access`, without which there is no refresh token.
pub(crate) const AKS_SCOPES: &[&str] =
    &["6dae42f8-4368-4678-94ff-3960e28e3630/user.read", "openid", "email", "profile", "offline_access"];

/// The hosts of Entra ID: public, US Government, China.
const HOSTS: &[&str] =
    &["login.microsoftonline.com", "login.microsoftonline.us", "login.partner.microsoftonline.cn", "sts.windows.net"];

/// Whether the issuer is Entra ID's.
pub(crate) fn is_entra(issuer: &str) -> bool {
    Url::parse(issuer).is_ok_and(|url| url.host_str().is_some_and(|host| HOSTS.contains(&host)))
}

/// The issuer of a tenant: a GUID, a domain name, or one of the words for several tenants. Entra ID
/// itself writes them in lower case, and issuers are compared as they are written.
pub(crate) fn issuer(tenant: &str) -> Result<String> {
    let plain = tenant.chars().all(|character| character.is_ascii_alphanumeric() || matches!(character, '-' | '.'));
    if tenant.is_empty() || !plain {
        return Err(Error::usage(format!("`--tenant` is not a directory (tenant) ID: `{tenant}`"))
            .hint("it stands on the overview page of the app registration and looks like `00000000-0000-0000-0000-000000000000`"));
    }
    Ok(format!("https://login.microsoftonline.com/{}/v2.0", tenant.to_ascii_lowercase()))
}

/// The issuer that AKS wants an access token to name: version 1's, with the slash at its end. A
/// domain name does not tell it; only the tenant's GUID does.
pub(crate) fn token_issuer(tenant: &str) -> Option<String> {
    is_guid(tenant).then(|| format!("https://sts.windows.net/{}/", tenant.to_ascii_lowercase()))
}

/// Whether a configured issuer that names its tenant by a word (`common`) or a domain is answered
/// for by this one, which names it by GUID or leaves it open (`{tenantid}`).
pub(crate) fn stands_for(configured: &str, found: &str) -> bool {
    let (configured, found): (Vec<_>, Vec<_>) = (configured.split('/').collect(), found.split('/').collect());
    match (configured.as_slice(), found.as_slice()) {
        (["https:", "", host, tenant, end @ ..], ["https:", "", same_host, guid, same_end @ ..]) => {
            HOSTS.contains(host)
                && host == same_host
                && end == same_end
                && !is_guid(tenant)
                && (is_guid(guid) || *guid == "{tenantid}")
        }
        _ => false,
    }
}

/// The tenant in an issuer of Entra ID's, of either version.
pub(crate) fn tenant_of(issuer: &str) -> Option<&str> {
    let path = issuer.strip_prefix("https://").filter(|_| is_entra(issuer))?;
    path.split('/').nth(1).filter(|tenant| is_guid(tenant))
}

/// Eight, four, four, four and twelve hexadecimal digits.
pub(crate) fn is_guid(text: &str) -> bool {
    let groups: Vec<&str> = text.split('-').collect();
    let lengths: Vec<usize> = groups.iter().map(|group| group.len()).collect();
    lengths == [8, 4, 4, 4, 12] && groups.iter().all(|group| group.chars().all(|digit| digit.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_in_capitals_is_the_same_tenant() {
        let tenant = "72F988BF-86F1-41AF-91AB-2D7CD011DB47";
        let version_2 = "https://login.microsoftonline.com/72f988bf-86f1-41af-91ab-2d7cd011db47/v2.0";
        assert_eq!(issuer(tenant), Ok(version_2.to_owned()));
        let version_1 = "https://sts.windows.net/72f988bf-86f1-41af-91ab-2d7cd011db47/";
        assert_eq!(token_issuer(tenant).as_deref(), Some(version_1));
    }
}
