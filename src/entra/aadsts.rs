//! Entra ID's error codes (`AADSTS…`): what each means for a sign-in to a cluster, and the way out.
//!
//! Microsoft says that numbers and texts may change, so they decide nothing: they only make hints.
//! Where a step of the Headlamp tutorial for AKS was skipped, the way out begins with `step:`.

/// A code, explained. Both texts are one line in lower case; `<client-id>` and `<tenant-id>` stand
/// for the reader's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Explanation {
    pub(crate) meaning: &'static str,
    /// A command, or a step.
    pub(crate) fix: &'static str,
}

/// What is known of a code.
pub(crate) fn explain(code: u32) -> Option<Explanation> {
    let (_, meaning, fix) = TABLE.iter().find(|(codes, _, _)| codes.contains(&code))?;
    Some(Explanation { meaning, fix })
}

/// The code in an `error_description`: `AADSTS50011: The redirect URI …`.
pub(crate) fn code_in(description: &str) -> Option<u32> {
    description.split("AADSTS").skip(1).find_map(|rest| {
        let digits = rest.split(|character: char| !character.is_ascii_digit()).next()?;
        digits.parse().ok()
    })
}

/// Codes, what they mean, and what to do; in the order of the tutorial's steps.
const TABLE: &[(&[u32], &str, &str)] = &[
    // The redirect address.
    (
        &[50_011],
        "the redirect address of this sign-in is not registered",
        "step: register the redirect address, platform Web: `az ad app update --id <client-id> --web-redirect-uris http://localhost:8000/oidc-callback` (this replaces the list); it must be `localhost`, not `127.0.0.1`",
    ),
    (
        &[500_113, 900_971],
        "the app registration has no redirect address",
        "step: register the redirect address, platform Web: `az ad app update --id <client-id> --web-redirect-uris http://localhost:8000/oidc-callback` (this replaces the list)",
    ),
    (
        &[500_112],
        "the redirect address was another when the code was redeemed",
        "sign in again: `kubectl headlamp login`; whatever opens the page and whatever redeems the code must use one `--redirect-url`",
    ),
    (
        &[9_002_327],
        "the redirect address is registered for single-page applications, whose codes only a page can redeem",
        "step: take the address off the single-page application in the portal and register it for platform Web: `az ad app update --id <client-id> --web-redirect-uris http://localhost:8000/oidc-callback`",
    ),
    (
        &[700_084],
        "the refresh token has ended: those of a single-page application live 24 hours",
        "sign in again: `kubectl headlamp login`; step: to stay signed in longer, register the redirect address for platform Web in place of single-page application",
    ),
    // Permissions and consent.
    (
        &[65_001],
        "nobody has consented to what is asked for, or a scope was added since",
        "step: grant admin consent: `az ad app permission grant --id <client-id> --api 6dae42f8-4368-4678-94ff-3960e28e3630 --scope user.read`, or open `https://login.microsoftonline.com/<tenant-id>/adminconsent?client_id=<client-id>` as an administrator",
    ),
    (
        &[65_004],
        "consent was declined in the browser",
        "sign in again and accept: `kubectl headlamp login`; step: or grant admin consent for everyone at `https://login.microsoftonline.com/<tenant-id>/adminconsent?client_id=<client-id>`",
    ),
    (
        &[90_094],
        "only an administrator can consent to what is asked for",
        "step: grant admin consent: an administrator opens `https://login.microsoftonline.com/<tenant-id>/adminconsent?client_id=<client-id>`",
    ),
    (
        &[90_095],
        "consent has to be requested from an administrator",
        "send the request that the page offers; step: or an administrator grants consent at `https://login.microsoftonline.com/<tenant-id>/adminconsent?client_id=<client-id>`",
    ),
    (
        &[65_002],
        "client and API are both Microsoft's, and this client is not approved for this API",
        "name an app registration of your own: `--client-id <client-id>`",
    ),
    (
        &[65_005, 650_057],
        "the API that the scopes name is not among the permissions of the app registration",
        "step: add the permission: `az ad app permission add --id <client-id> --api 6dae42f8-4368-4678-94ff-3960e28e3630 --api-permissions 34a47c2f-cd0d-47b4-a93c-2c41130c671c=Scope`, then grant admin consent",
    ),
    (
        &[650_056],
        "the app registration lists no permissions, or nobody has consented to them",
        "step: add the permission: `az ad app permission add --id <client-id> --api 6dae42f8-4368-4678-94ff-3960e28e3630 --api-permissions 34a47c2f-cd0d-47b4-a93c-2c41130c671c=Scope`, then grant admin consent",
    ),
    (
        &[650_053],
        "a scope that is asked for does not exist",
        "leave out `--scope groups`, which Entra ID does not have, and write an API's scope with the API's ID: `--scope 6dae42f8-4368-4678-94ff-3960e28e3630/user.read`",
    ),
    (
        &[650_052, 500_011],
        "this tenant does not know the API that the scopes name",
        "step: make the AKS server known: `az ad sp create --id 6dae42f8-4368-4678-94ff-3960e28e3630`; if it is (`az ad sp show --id …`), the tenant is the wrong one: see `--tenant`",
    ),
    (
        &[50_001],
        "the resource is unknown or disabled",
        "name it by its ID: that of the AKS server is `6dae42f8-4368-4678-94ff-3960e28e3630`, which `--aks` fills in",
    ),
    (
        &[70_011, 28_002],
        "a scope is not valid",
        "step: check the scopes: one `--scope` for each, without quotes or stray commas; `--aks` fills in the tutorial's",
    ),
    (&[28_003], "no scope was sent", "step: name the scopes: one `--scope` for each; `--aks` fills in the tutorial's"),
    (
        &[700_022],
        "the scopes are those of several APIs, and a token is for one",
        "ask for one API: beside `6dae42f8-4368-4678-94ff-3960e28e3630/user.read` leave out scopes without an API, such as `User.Read`, which are Microsoft Graph's",
    ),
    // The client secret.
    (
        &[7_000_215],
        "the client secret is wrong",
        "step: copy the secret's Value, not its Secret ID, without a line end; or make a new one: `az ad app credential reset --id <client-id> --append --query password -o tsv`",
    ),
    (
        &[7_000_222],
        "the client secret has expired",
        "step: make a new client secret: `az ad app credential reset --id <client-id> --append --query password -o tsv`; Headlamp's Secret needs it too, then `kubectl rollout restart deployment -n headlamp`",
    ),
    (
        &[7_000_218],
        "the app registration wants a client secret, and none was sent",
        "give it one: `--client-secret-file <file>`; or register an address for clients without: `az ad app update --id <client-id> --public-client-redirect-uris http://localhost/kubectl-headlamp --is-fallback-public-client true`",
    ),
    (
        &[700_025],
        "a client secret was sent for a public client",
        "leave out the client secret; step: or register the redirect address for platform Web, not for mobile and desktop applications",
    ),
    (
        &[700_024],
        "the client's assertion is not valid at this time",
        "fetch a new one for each sign-in, and check this machine's clock: `date -u`",
    ),
    (
        &[700_027],
        "the client's assertion is signed by a key that is not registered",
        "use the certificate that is registered: `az ad app credential list --id <client-id> --cert`",
    ),
    (
        &[700_213],
        "no federated credential fits the client's assertion",
        "copy issuer and subject, as Entra ID's message prints them, into one: `az ad app federated-credential create --id <client-id> --parameters <file>`",
    ),
    // Client, tenant and cloud.
    (
        &[700_016],
        "the tenant has no application with this client ID",
        "step: copy client ID and tenant ID from the overview of the app registration: `az ad app show --id <client-id>` finds it in your tenant; one made just now needs up to two minutes",
    ),
    (
        &[7_000_112, 70_001],
        "the application is disabled",
        "enable it: `az ad sp update --id <client-id> --set accountEnabled=true`",
    ),
    (
        &[90_002],
        "there is no such tenant in this cloud",
        "step: copy the tenant ID: `az account show --query tenantId -o tsv`; another cloud has another issuer: `--issuer-url https://login.microsoftonline.us/<tenant-id>/v2.0`",
    ),
    (
        &[90_038],
        "the tenant lives in a national cloud",
        "name its issuer: `--issuer-url https://login.microsoftonline.us/<tenant-id>/v2.0` or `--issuer-url https://login.partner.microsoftonline.cn/<tenant-id>/v2.0`",
    ),
    (
        &[900_382],
        "a client with a secret cannot sign in across clouds",
        "name the issuer of the tenant's own cloud: `--issuer-url https://login.microsoftonline.us/<tenant-id>/v2.0` or `--issuer-url https://login.partner.microsoftonline.cn/<tenant-id>/v2.0`",
    ),
    (
        &[50_194],
        "the app registration is for one tenant, and the sign-in went to `common`",
        "step: name the tenant by its ID, here and in Headlamp's `issuerURL`: `--tenant <tenant-id>`",
    ),
    // The account.
    (
        &[50_020],
        "this account is of another tenant and no guest of this one",
        "sign in with another account: `kubectl headlamp login --prompt select_account`; or have this one invited as a guest",
    ),
    (
        &[50_034, 51_004],
        "this account does not exist in the tenant",
        "sign in with another account: `kubectl headlamp login --prompt select_account`; or have this one invited as a guest",
    ),
    (
        &[50_105],
        "this account is not assigned to the application",
        "assign it, or a group it is in, under Enterprise applications, Users and groups; or ask for no assignment: `az ad sp update --id <client-id> --set appRoleAssignmentRequired=false`",
    ),
    (
        &[500_212],
        "the account's own tenant forbids access to this one",
        "an administrator of the account's tenant has to allow it: cross-tenant access settings, outbound",
    ),
    (
        &[500_213],
        "this tenant forbids access to accounts of the other one",
        "an administrator of this tenant has to allow it: cross-tenant access settings, inbound",
    ),
    (
        &[500_021],
        "tenant restrictions of this network forbid this tenant",
        "sign in from another network, or have an administrator add the tenant to the restrictions' list",
    ),
    // Conditional Access and second factors.
    (
        &[53_003],
        "Conditional Access forbids this sign-in, often because it is by device code",
        "use the browser of this machine: `kubectl headlamp login --flow browser`; if that is refused too, Entra ID's sign-in log names the policy (look for Azure Kubernetes Service AAD Server)",
    ),
    (
        &[530_003, 53_000, 53_001, 50_097],
        "Conditional Access wants a device that is managed, compliant or joined, and none was shown",
        "use the browser of the managed device, signed in with the work account: `kubectl headlamp login --flow browser`",
    ),
    (
        &[53_002],
        "Conditional Access wants an approved application",
        "an administrator has to exempt this one: Entra ID's sign-in log names the policy",
    ),
    (
        &[530_035],
        "the tenant's security defaults forbid this sign-in",
        "use the browser of this machine: `kubectl headlamp login --flow browser`; if that is refused too, ask an administrator",
    ),
    (
        &[50_005],
        "Conditional Access does not allow this platform",
        "sign in on another system, or have an administrator change the policy: Entra ID's sign-in log names it",
    ),
    (&[50_076], "a second factor is needed", "give it in the browser: `kubectl headlamp login --flow browser`"),
    (
        &[50_079, 50_072],
        "a second factor has to be set up first",
        "set it up in the browser: `kubectl headlamp login --flow browser`",
    ),
    (&[50_074], "the second factor was not given", "give it in the browser: `kubectl headlamp login --flow browser`"),
    (
        &[50_078],
        "the second factor was given too long ago",
        "give it again in the browser: `kubectl headlamp login --flow browser`",
    ),
    // The course of a sign-in, and its end.
    (
        &[501_481],
        "the code belongs to another sign-in: two were mixed up, or an old page was used",
        "close old sign-in pages, then sign in again: `kubectl headlamp login`",
    ),
    (
        &[54_005],
        "the code has been redeemed already, perhaps because its page was loaded twice",
        "sign in again: `kubectl headlamp login`",
    ),
    (&[70_008], "the code or refresh token has expired for want of use", "sign in again: `kubectl headlamp login`"),
    (&[700_082], "the refresh token has expired for want of use", "sign in again: `kubectl headlamp login`"),
    (
        &[70_043],
        "the tenant's sign-in frequency wants a new sign-in",
        "sign in again: `kubectl headlamp login`; Entra ID's message tells how long a sign-in holds",
    ),
    (
        &[50_173],
        "the session was revoked: by a new password, or by an administrator",
        "sign in again: `kubectl headlamp login`",
    ),
    (
        &[70_000],
        "the code or refresh token is not valid, or is another client's",
        "sign in again: `kubectl headlamp login`",
    ),
    (&[70_016], "the device code waits to be typed in", "type it in at the address that is shown with it"),
    (
        &[70_018],
        "the device code that was typed in is wrong or has expired",
        "start again with a new code: `kubectl headlamp login --flow device`",
    ),
    (
        &[70_019, 70_020],
        "the device code has expired",
        "start again with a new code: `kubectl headlamp login --flow device`",
    ),
    (
        &[50_196],
        "too many sign-ins of this client: Entra ID takes it for a loop",
        "wait some minutes; keep the tokens (`--token-storage file`), and find what runs the sign-in again and again",
    ),
    (
        &[900_144],
        "the request lacks a parameter; from Headlamp: the sign-in was refused, and it redeemed an empty code",
        "read the refusal in the address bar of the page at `/oidc-callback`, or see it here: `kubectl headlamp login`",
    ),
    (
        &[9_002_313],
        "the request is malformed; from Headlamp: the sign-in was refused, and it redeemed an empty code",
        "read the refusal in the address bar of the page at `/oidc-callback`, or see it here: `kubectl headlamp login`",
    ),
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Every code that has been seen to end a sign-in to AKS.
    const KNOWN: &[u32] = &[
        50_011, 500_113, 900_971, 500_112, 65_001, 65_004, 90_094, 90_095, 65_002, 65_005, 650_056, 650_057, 650_053,
        650_052, 500_011, 50_001, 70_011, 28_002, 28_003, 700_022, 7_000_215, 7_000_222, 7_000_218, 700_025, 9_002_327,
        700_084, 501_481, 700_016, 7_000_112, 70_001, 90_002, 90_038, 900_382, 50_194, 50_020, 50_034, 51_004, 50_105,
        53_003, 530_003, 53_000, 53_001, 50_097, 53_002, 530_035, 50_005, 50_076, 50_079, 50_072, 50_074, 50_078,
        54_005, 70_008, 700_082, 70_043, 50_173, 70_000, 70_016, 70_018, 70_019, 70_020, 50_196, 700_024, 700_027,
        700_213, 500_212, 500_213, 500_021, 900_144, 9_002_313,
    ];

    #[test]
    fn every_known_code_is_explained_once() {
        for code in KNOWN {
            let rows = TABLE.iter().filter(|(codes, _, _)| codes.contains(code)).count();
            assert_eq!(rows, 1, "AADSTS{code}");
        }
        let listed: usize = TABLE.iter().map(|(codes, _, _)| codes.len()).sum();
        assert_eq!(listed, KNOWN.len());
        assert_eq!(explain(1), None);
    }

    #[test]
    fn every_text_can_stand_in_an_error_message() {
        for (codes, meaning, fix) in TABLE {
            for text in [meaning, fix] {
                let plain = !text.contains(['\n', '.', '!']) || text.contains('`');
                assert!(plain && !text.ends_with('.') && text.len() < 300, "{codes:?}: {text} ({})", text.len());
                assert_eq!(crate::error::printable(text), *text, "{codes:?}");
                assert_eq!(text.matches('`').count() % 2, 0, "{codes:?}: {text}");
                let name = text.starts_with("Conditional Access");
                assert!(name || text.starts_with(char::is_lowercase), "{codes:?}: {text}");
            }
        }
    }

    #[test]
    fn a_skipped_step_of_the_tutorial_is_named_with_its_command() {
        let fix = |code| explain(code).map(|explanation| explanation.fix).unwrap_or_default();
        assert!(fix(50_011).starts_with("step: register the redirect address"));
        assert!(fix(50_011).contains("`az ad app update --id <client-id> --web-redirect-uris"));
        assert!(fix(65_001).starts_with("step: grant admin consent: `az ad app permission grant"));
        assert!(fix(650_057).contains("--api-permissions 34a47c2f-cd0d-47b4-a93c-2c41130c671c=Scope`"));
        assert!(fix(500_011).contains("`az ad sp create --id 6dae42f8-4368-4678-94ff-3960e28e3630`"));
        assert!(fix(7_000_215).starts_with("step: copy the secret's Value, not its Secret ID"));
    }

    #[test]
    fn the_code_is_read_from_a_description() {
        let cases = [
            ("AADSTS50011: The redirect URI 'http://localhost' …", Some(50_011)),
            ("invalid_grant: AADSTS7000215: Invalid client secret provided", Some(7_000_215)),
            ("AADSTS, then AADSTS65001: consent", Some(65_001)),
            ("AADSTS99999999999999999999: no; AADSTS53003: yes", Some(53_003)),
            ("AADSTS 50011", None),
            ("aadsts50011", None),
            ("", None),
        ];
        for (description, code) in cases {
            assert_eq!(code_in(description), code, "{description}");
        }
    }

    proptest! {
        #[test]
        fn any_description_is_read_without_panic(description in ".{0,80}", code: u32) {
            let _ = code_in(&description);
            let found = code_in(&format!("{description} AADSTS{code}: {description}"));
            prop_assert!(found.is_some());
            let _ = explain(code);
        }
    }
}
