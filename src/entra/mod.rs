//! What is known of Microsoft Entra ID.

pub(crate) mod aadsts;
pub(crate) mod preset;
