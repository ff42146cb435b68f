//! stub
use crate::{error::{Error, Result}, secret::Secret, settings::Settings, http::Http, cache::Cache, callback::CallbackRefusal};
use jiff::Timestamp;
use std::time::Duration;
pub(crate) struct Provider;
impl Provider {
    pub(crate) fn issuer(&self) -> &str { todo!() }
    pub(crate) fn keys(&self) -> &openidconnect::core::CoreJsonWebKeySet { todo!() }
    pub(crate) fn device_endpoint(&self) -> bool { todo!() }
    pub(crate) async fn keys_again(&mut self, _: &Http, _: Option<&Cache>, _: Timestamp) -> Result<bool> { todo!() }
}
pub(crate) async fn discover(_: &Http, _: &Settings, _: Option<&Cache>, _: Timestamp) -> Result<Provider> { todo!() }
pub(crate) struct Client<'a> { pub settings: &'a Settings, pub provider: &'a Provider, pub http: &'a Http, pub secret: Option<&'a Secret> }
pub(crate) struct Attempt { pub url: Secret, pub state: Secret, pub nonce: Secret, pub verifier: Secret }
pub(crate) struct AuthorizationExtra<'a> { pub prompt: Option<&'a str>, pub claims: Option<&'a str> }
pub(crate) fn authorization(_: &Client<'_>, _: &str, _: &AuthorizationExtra<'_>) -> Result<Attempt> { todo!() }
pub(crate) enum GrantError { Refused(Refusal), Failed(Error) }
pub(crate) struct Refusal { pub error: String, pub claims: Option<String> }
impl Refusal {
    pub(crate) fn from_callback(_: CallbackRefusal) -> Self { todo!() }
    pub(crate) fn explained(&self, _: &str, _: &Settings) -> Error { todo!() }
}
pub(crate) struct Reply { pub id_token: Option<Secret>, pub access_token: Option<Secret>, pub refresh_token: Option<Secret>, pub expires_in: Option<Duration>, pub scope: Option<String>, pub refresh_expires_in: Option<Duration> }
pub(crate) async fn exchange(_: &Client<'_>, _: &Secret, _: &str, _: &Secret) -> Result<Reply, GrantError> { todo!() }
pub(crate) async fn refresh(_: &Client<'_>, _: &Secret) -> Result<Reply, GrantError> { todo!() }
pub(crate) async fn password(_: &Client<'_>, _: &str, _: &Secret) -> Result<Reply, GrantError> { todo!() }
pub(crate) async fn client_credentials(_: &Client<'_>) -> Result<Reply, GrantError> { todo!() }
pub(crate) struct DeviceCode { pub device_code: Secret, pub user_code: String, pub verification_uri: String, pub verification_uri_complete: Option<String>, pub expires_in: Duration, pub interval: Duration }
pub(crate) enum DevicePoll { Pending, SlowDown, Done(Box<Reply>) }
pub(crate) async fn device_code(_: &Client<'_>) -> Result<DeviceCode, GrantError> { todo!() }
pub(crate) async fn device_token(_: &Client<'_>, _: &DeviceCode) -> Result<DevicePoll, GrantError> { todo!() }
pub(crate) fn check_callback_issuer(_: &Provider, _: Option<&str>) -> Result<()> { todo!() }
pub(crate) fn no_refresh_token_reason(_: &Provider, _: &Settings) -> Option<String> { todo!() }
