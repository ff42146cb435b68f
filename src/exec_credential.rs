//! kubectl's question and our answer: the `client.authentication.k8s.io` exec credential.
