//! Entra ID's error codes.
