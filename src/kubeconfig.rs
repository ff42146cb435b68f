//! The kubeconfig, read for its exec entries.
