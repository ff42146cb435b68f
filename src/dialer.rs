//! A connection to an API server: name, TCP, proxy and TLS, all within one deadline.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_rustls::{DefaultServerNameResolver, FixedServerNameResolver, HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::{SocksV5, Tunnel};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tower_service::Service;

use crate::api_proxy::Proxy;
use crate::resolver::Resolver;

pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Until a connection stands; kubectl waits 30 s, which is more than a person does.
pub(crate) const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// A peer that is gone is noticed at the latest 25 s later: the first question after this silence,
/// the next ones at these intervals, and no longer than this without an answer.
const KEEPALIVE: Duration = Duration::from_secs(15);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_RETRIES: u32 = 2;
#[cfg(target_os = "linux")]
const UNANSWERED_LIMIT: Duration = Duration::from_secs(25);

/// What a dialed connection is: TLS or not, over TCP or over TLS to a proxy.
pub(crate) type Stream = MaybeHttpsStream<Leg>;
type Leg = MaybeHttpsStream<TokioIo<TcpStream>>;
type Tcp = HttpConnector<Resolver>;
type Dialing<T> = Pin<Box<dyn Future<Output = Result<T, BoxError>> + Send>>;

/// Dials one server by one way.
#[derive(Clone)]
pub(crate) struct Dialer {
    way: HttpsConnector<Way>,
    limit: Duration,
}

impl Dialer {
    /// The ALPN protocols stand in `tls`; `name` is what the certificate must be for, where it is
    /// not the address's. `limit` is for all of it, [`CONNECT_LIMIT`] for TCP within it.
    pub(crate) fn new(tls: ClientConfig, name: Option<ServerName<'static>>, way: Way, limit: Duration) -> Self {
        let way = match name {
            Some(name) => HttpsConnector::new(way, tls, false, Arc::new(FixedServerNameResolver::new(name))),
            None => HttpsConnector::new(way, tls, false, Arc::new(DefaultServerNameResolver::default())),
        };
        Self { way, limit }
    }
}

impl Service<Uri> for Dialer {
    type Response = Stream;
    type Error = BoxError;
    type Future = Dialing<Stream>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.way.poll_ready(context)
    }

    fn call(&mut self, server: Uri) -> Self::Future {
        let (dialing, limit) = (self.way.call(server), self.limit);
        Box::pin(async move {
            let late =
                || io::Error::new(io::ErrorKind::TimedOut, format!("no connection within {} s", limit.as_secs()));
            tokio::time::timeout(limit, dialing).await.unwrap_or_else(|_| Err(late().into()))
        })
    }
}

/// How the server is reached.
#[derive(Clone)]
pub(crate) enum Way {
    Direct(Tcp),
    /// Through a proxy that understands CONNECT.
    Tunnel(Tunnel<HttpsConnector<Tcp>>),
    Socks(SocksV5<Tcp>),
}

impl Way {
    /// `tls` is for the way to a proxy that is itself reached by TLS; it offers HTTP/1.1 only.
    pub(crate) fn new(proxy: Option<&Proxy>, tls: ClientConfig) -> Self {
        let Some(proxy) = proxy else { return Self::Direct(tcp()) };
        let address = proxy.address.clone();
        if address.scheme_str() == Some("socks5") {
            let socks = SocksV5::new(address, tcp());
            return Self::Socks(match &proxy.login {
                Some((name, password)) => socks.with_auth(name.clone(), password.expose().to_owned()),
                None => socks,
            });
        }
        let tunnel = Tunnel::new(address, HttpsConnector::from((tcp(), tls)));
        Self::Tunnel(match proxy.authorization() {
            Some(authorization) => tunnel.with_auth(authorization),
            None => tunnel,
        })
    }
}

impl Service<Uri> for Way {
    type Response = Leg;
    type Error = BoxError;
    type Future = Dialing<Leg>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        match self {
            Self::Direct(tcp) => tcp.poll_ready(context).map_err(Into::into),
            Self::Tunnel(tunnel) => tunnel.poll_ready(context).map_err(Into::into),
            Self::Socks(socks) => socks.poll_ready(context).map_err(Into::into),
        }
    }

    fn call(&mut self, server: Uri) -> Self::Future {
        match self {
            Self::Direct(tcp) => {
                let dialing = tcp.call(server);
                Box::pin(async move { Ok(Leg::Http(dialing.await?)) })
            }
            Self::Tunnel(tunnel) => {
                let dialing = tunnel.call(server);
                Box::pin(async move { Ok(dialing.await?) })
            }
            Self::Socks(socks) => {
                let dialing = socks.call(server);
                Box::pin(async move { Ok(Leg::Http(dialing.await?)) })
            }
        }
    }
}

fn tcp() -> Tcp {
    let mut tcp = HttpConnector::new_with_resolver(Resolver);
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    // Shared out among the server's addresses.
    tcp.set_connect_timeout(Some(CONNECT_LIMIT));
    tcp.set_keepalive(Some(KEEPALIVE));
    tcp.set_keepalive_interval(Some(KEEPALIVE_INTERVAL));
    tcp.set_keepalive_retries(Some(KEEPALIVE_RETRIES));
    #[cfg(target_os = "linux")]
    tcp.set_tcp_user_timeout(Some(UNANSWERED_LIMIT));
    tcp
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use rustix::net::sockopt;
    use tokio::net::TcpListener;

    use super::*;
    use crate::kubeconfig::ClusterEntry;
    use crate::tls;

    #[tokio::test]
    async fn small_writes_leave_at_once_and_a_peer_that_is_gone_is_noticed_within_half_a_minute() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server: Uri = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
        let tls = tls::configuration(&ClusterEntry::default(), None).unwrap_or_else(|error| panic!("{error}"));
        let mut dialer = Dialer::new(tls.clone(), None, Way::new(None, tls), CONNECT_LIMIT);
        let Ok(Stream::Http(Leg::Http(stream))) = dialer.call(server).await else { panic!("no plain connection") };
        let stream = stream.inner();
        assert!(sockopt::tcp_nodelay(stream).unwrap() && sockopt::socket_keepalive(stream).unwrap());
        let silence = sockopt::tcp_keepidle(stream).unwrap();
        let questions = sockopt::tcp_keepintvl(stream).unwrap() * sockopt::tcp_keepcnt(stream).unwrap();
        assert!(silence + questions <= Duration::from_secs(30));
        assert_eq!(sockopt::tcp_user_timeout(stream).unwrap(), 25_000);
    }
}
