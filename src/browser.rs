//! stub
use crate::{error::Result, secret::Secret, settings::BrowserSettings, environment::Environment, options::Interactive};
pub(crate) struct Opener;
pub(crate) fn find(_: &BrowserSettings, _: Interactive, _: &Environment) -> std::result::Result<Opener, String> { todo!() }
impl Opener { pub(crate) async fn open(&self, _: &Secret) -> Result<Opened> { todo!() } }
pub(crate) struct Opened;
impl Opened { pub(crate) async fn failed(&mut self) -> String { todo!() } }
