//! stub
use crate::{error::Result, secret::Secret, ui::Ui};
pub(crate) fn stdin_may_be_read(_: bool) -> bool { todo!() }
pub(crate) fn can_be_seen(_: Ui) -> bool { todo!() }
pub(crate) async fn read_line() -> Result<Option<Secret>> { todo!() }
pub(crate) async fn read_password(_: &str) -> Result<Secret> { todo!() }
