//! Entries that were written for kubelogin.
