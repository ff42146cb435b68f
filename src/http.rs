//! stub
use crate::{clock::Clock, error::Result, settings::ConnectionSettings, ui::Ui};
pub(crate) struct Http;
impl Http {
    pub(crate) fn new(_: &ConnectionSettings, _: Ui, _: Clock) -> Result<Http> { todo!() }
    pub(crate) fn clock_skew(&self) -> Option<jiff::SignedDuration> { todo!() }
}
