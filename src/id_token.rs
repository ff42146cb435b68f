//! stub
use crate::{error::{Error, Result}, secret::Secret, settings::Settings, oidc::Provider, cache::{Token, Person}};
use jiff::Timestamp;
pub(crate) struct Verified { pub expires: Timestamp, pub subject: String, pub person: Person, pub issuer: String, pub audience: Vec<String> }
pub(crate) struct Expectation<'a> { pub issuer: &'a str, pub client_id: &'a str, pub nonce: Option<&'a Secret>, pub access_token: Option<&'a Secret>, pub subject: Option<&'a str> }
pub(crate) struct Rejection;
impl Rejection { pub(crate) fn newer_keys_may_help(&self) -> bool { todo!() } }
impl From<Rejection> for Error { fn from(_: Rejection) -> Error { todo!() } }
pub(crate) fn verify(_: &Provider, _: &Secret, _: &Expectation<'_>, _: Timestamp) -> Result<Verified, Rejection> { todo!() }
#[derive(Default)]
pub(crate) struct Claims { pub expires: Option<Timestamp>, pub issuer: Option<String>, pub audience: Vec<String>, pub person: Option<Person> }
pub(crate) fn read_untrusted(_: &Secret) -> Option<Claims> { todo!() }
pub(crate) fn check_access_token(_: &Token, _: &Settings) -> Result<()> { todo!() }
