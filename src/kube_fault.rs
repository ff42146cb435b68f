//! What kube's client says where it has no object for us.

use std::fmt::Display;

use kube::client::UpgradeConnectionError;

use crate::error::{Error, Kind};

/// The HTTP status that the cluster answered with, if it answered.
pub(crate) fn status(error: &kube::Error) -> Option<u16> {
    match error {
        kube::Error::Api(status) => Some(status.code),
        kube::Error::UpgradeConnection(UpgradeConnectionError::ProtocolSwitch(status)) => Some(status.as_u16()),
        _ => None,
    }
}

/// The cluster's own words on it, if it answered.
pub(crate) fn said(error: &kube::Error) -> Option<&str> {
    match error {
        kube::Error::Api(status) if !status.message.is_empty() => Some(&status.message),
        _ => None,
    }
}

/// The same as an error of ours. `message` says what did not happen.
pub(crate) fn explained(error: &kube::Error, message: impl Display) -> Error {
    if let kube::Error::Service(inner) = error
        && let Some(ours) = inner.downcast_ref::<Error>()
    {
        return Error::new(ours.kind(), message).because(ours.clone());
    }
    match (said(error), status(error)) {
        (Some(said), _) => Error::new(Kind::Other, message).cause(said),
        (None, Some(status)) => Error::new(Kind::Other, message).cause(format!("the cluster answered with {status}")),
        (None, None) => Error::unreachable(message).caused_by(error),
    }
}
