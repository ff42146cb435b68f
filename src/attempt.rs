//! The values of one sign-in in a browser.

use crate::secret::Secret;

/// One try to sign in with a browser. Its values serve once and are never written down.
pub(crate) struct Attempt {
    /// Where the person signs in. It holds the state and the nonce.
    pub(crate) url: Secret,
    pub(crate) state: Secret,
    pub(crate) nonce: Secret,
    /// PKCE's secret, of which the URL holds the hash.
    pub(crate) verifier: Secret,
}
