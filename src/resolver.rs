//! Addresses of names, as kubectl finds them: on Linux from `/etc/hosts` and the name servers in
//! `/etc/resolv.conf`, elsewhere from the system.
//!
//! A statically linked C library cannot load the plug-ins that its own look-up needs.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::vec;

use hyper_util::client::legacy::connect::dns::Name;
use tower_service::Service;

/// Reads the system's configuration at each look-up: a VPN changes it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Resolver;

impl Service<Name> for Resolver {
    type Response = vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        Box::pin(async move { Ok(addresses(&name).await?.into_iter()) })
    }
}

#[cfg(target_os = "linux")]
async fn addresses(name: &Name) -> io::Result<Vec<SocketAddr>> {
    use hickory_resolver::TokioResolver;
    use hickory_resolver::config::LookupIpStrategy;

    let configured = |error| io::Error::other(format!("`/etc/resolv.conf` cannot be used: {error}"));
    let mut builder = TokioResolver::builder_tokio().map_err(configured)?;
    builder.options_mut().ip_strategy = LookupIpStrategy::Ipv6AndIpv4;
    let resolver = builder.build().map_err(configured)?;
    match resolver.lookup_ip(name.as_str()).await {
        Ok(found) => Ok(found.iter().map(|address| SocketAddr::new(address, 0)).collect()),
        Err(error) if error.is_nx_domain() || error.is_no_records_found() => {
            Err(io::Error::new(io::ErrorKind::NotFound, format!("no address is known for `{name}`")))
        }
        Err(error) => Err(io::Error::other(format!("the name servers do not say where `{name}` is: {error}"))),
    }
}

#[cfg(not(target_os = "linux"))]
async fn addresses(name: &Name) -> io::Result<Vec<SocketAddr>> {
    use hyper_util::client::legacy::connect::dns::GaiResolver;

    Ok(GaiResolver::new().call(name.clone()).await?.collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[tokio::test]
    async fn localhost_is_known_without_a_name_server() {
        let found: Vec<_> = Resolver.call("localhost".parse().unwrap()).await.unwrap().collect();
        assert!(!found.is_empty() && found.iter().all(|address| address.ip().is_loopback()), "{found:?}");
    }
}
