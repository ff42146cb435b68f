//! stub
use crate::{error::{Error, Result}, secret::Secret, settings::CallbackSettings};
pub(crate) enum Bind { Listening(Listener), Taken(Vec<Taken>) }
pub(crate) struct Taken { pub port: u16, pub by: Option<PortHolder> }
pub(crate) struct PortHolder { pub pid: Option<u32>, pub name: Option<String>, pub ours: bool }
pub(crate) async fn bind(_: &CallbackSettings) -> Result<Bind> { todo!() }
pub(crate) struct Listener;
impl Listener {
    pub(crate) fn redirect(&self) -> &str { todo!() }
    pub(crate) fn start_url(&self) -> Secret { todo!() }
    pub(crate) async fn answer(&self, _: &Secret, _: &Secret) -> Result<Answer> { todo!() }
}
pub(crate) struct Answer { pub result: std::result::Result<Secret, CallbackRefusal>, pub issuer: Option<String>, pub reply: Reply }
pub(crate) struct CallbackRefusal { pub error: String, pub description: Option<String>, pub uri: Option<String> }
pub(crate) struct Reply;
impl Reply { pub(crate) async fn show(self, _: &Page) { todo!() } }
pub(crate) enum Page { Success { who: Option<String>, cluster: Option<String>, until: String, open_next: Option<url::Url> }, Failure { message: String, causes: Vec<String>, hints: Vec<String> } }
impl Page { pub(crate) fn of_error(_: &Error) -> Page { todo!() } }
pub(crate) struct Pasted { pub result: std::result::Result<Secret, CallbackRefusal>, pub issuer: Option<String> }
pub(crate) fn parse_pasted(_: &str, _: &Secret) -> Result<Pasted> { todo!() }
