//! The loopback listener that the provider sends the browser back to.
