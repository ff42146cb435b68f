//! The one question that is asked of the cluster: who am I.
