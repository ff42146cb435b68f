//! stub
use crate::{clock::Clock, environment::Environment, error::Result, ui::Ui};
/// x
#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {}
pub(crate) fn run(_: &Arguments, _: Ui, _: &Environment, _: Clock) -> Result<()> { todo!() }
