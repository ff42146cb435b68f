//! One file per verb.

pub(crate) mod get_token;
pub(crate) mod login;
pub(crate) mod logout;
pub(crate) mod status;
