//! Byte streams to pods.

use tokio::io::{AsyncRead, AsyncWrite};

/// What a port-forwarded connection is.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

pub(crate) type PodStream = Box<dyn Stream>;
