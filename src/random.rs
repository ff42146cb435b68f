//! Chance. Only `main` names the system's generator; what is below the commands is handed this one.

use std::io;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use crate::error::{Error, Result};
use crate::secret::Secret;

/// Where random numbers come from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Random(fn(&mut [u8]) -> io::Result<()>);

impl Random {
    /// The system's generator.
    pub(crate) fn system() -> Self {
        Self(|bytes| getrandom::fill(bytes).map_err(io::Error::from))
    }

    /// 256 random bits that fit into an address or a cookie.
    pub(crate) fn secret(self) -> Result<Secret> {
        let mut bits = [0; 32];
        (self.0)(&mut bits).map_err(|error| Error::bug("the system gives no random numbers").caused_by(&error))?;
        Ok(Secret::new(BASE64_URL_SAFE_NO_PAD.encode(bits)))
    }

    /// From 0 up to, not including, 1; for spreading things in time, where a generator that fails
    /// is no reason to.
    pub(crate) fn fraction(self) -> f64 {
        let mut bits = [0; 4];
        match (self.0)(&mut bits) {
            Ok(()) => f64::from(u32::from_le_bytes(bits)) / (f64::from(u32::MAX) + 1.0),
            Err(_) => 0.5,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn two_secrets_differ_and_fit_into_an_address() {
        let [one, other] = [Random::system().secret().unwrap(), Random::system().secret().unwrap()];
        assert_ne!(one, other);
        assert_eq!(one.expose().len(), 43);
        assert!(one.expose().bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)));
    }

    #[test]
    fn fractions_stay_below_one() {
        assert!(
            Random(|bytes| {
                bytes.fill(0xff);
                Ok(())
            })
            .fraction()
                < 1.0
        );
        assert!(Random(|_| Err(io::Error::other("none"))).fraction() < 1.0);
    }
}
