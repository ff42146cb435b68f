//! The one way out to the provider.
