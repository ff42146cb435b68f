//! This machine by its loopback addresses: whose they are, and one port on both families.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr};

use tokio::net::TcpListener;
use url::Url;

/// What came of asking for a port.
#[derive(Debug)]
pub(crate) enum Bound<T = TcpListener> {
    /// One socket for each family that the machine has, all on one port.
    Listening(Vec<T>),
    /// Another program listens there, on one family at least: a browser that goes to `localhost`
    /// might reach that one.
    Taken,
    Failed(io::Error),
}

/// Whether the URL's host is this machine.
pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// Port 0: any that is free on both families.
pub(crate) async fn bind(port: u16) -> Bound {
    let mut bound = bind_once(port).await;
    for _ in 0..RETRIES {
        if port != 0 || !matches!(bound, Bound::Taken) {
            break;
        }
        bound = bind_once(port).await;
    }
    bound
}

async fn bind_once(port: u16) -> Bound {
    let first = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await;
    let port = first.as_ref().ok().and_then(|socket| socket.local_addr().ok()).map_or(port, |address| address.port());
    both(first, TcpListener::bind((Ipv6Addr::LOCALHOST, port)).await)
}

/// Systems disagree on the error of a family that they lack, so it is whatever is neither a port in
/// use nor a port that is forbidden, as long as the other family works.
fn both<T>(first: io::Result<T>, second: io::Result<T>) -> Bound<T> {
    let failed_as =
        |kind| [&first, &second].into_iter().any(|result| result.as_ref().is_err_and(|error| error.kind() == kind));
    if failed_as(ErrorKind::AddrInUse) {
        return Bound::Taken;
    }
    let forbidden = failed_as(ErrorKind::PermissionDenied);
    match (first, second) {
        (Ok(first), Ok(second)) => Bound::Listening(vec![first, second]),
        (Ok(only), Err(_)) | (Err(_), Ok(only)) if !forbidden => Bound::Listening(vec![only]),
        (Err(error), _) | (_, Err(error)) => Bound::Failed(error),
    }
}

/// Ports that the system thought free and the other family has in use.
const RETRIES: usize = 16;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use super::*;
    use crate::api_connection::test_server::at_once;

    fn outcome(first: Result<u8, ErrorKind>, second: Result<u8, ErrorKind>) -> String {
        match both(first.map_err(Into::into), second.map_err(Into::into)) {
            Bound::Listening(sockets) => format!("{sockets:?}"),
            Bound::Taken => "taken".to_owned(),
            Bound::Failed(error) => format!("{:?}", error.kind()),
        }
    }

    #[test]
    fn a_family_that_the_machine_lacks_is_done_without() {
        assert_eq!(outcome(Ok(4), Ok(6)), "[4, 6]");
        assert_eq!(outcome(Ok(4), Err(ErrorKind::AddrNotAvailable)), "[4]");
        assert_eq!(outcome(Err(ErrorKind::Unsupported), Ok(6)), "[6]");
        assert_eq!(outcome(Err(ErrorKind::AddrNotAvailable), Err(ErrorKind::Unsupported)), "AddrNotAvailable");
    }

    #[test]
    fn a_port_that_is_taken_on_one_family_is_taken() {
        assert_eq!(outcome(Ok(4), Err(ErrorKind::AddrInUse)), "taken");
        assert_eq!(outcome(Err(ErrorKind::AddrInUse), Ok(6)), "taken");
        assert_eq!(outcome(Err(ErrorKind::AddrInUse), Err(ErrorKind::AddrNotAvailable)), "taken");
        assert_eq!(outcome(Ok(4), Err(ErrorKind::PermissionDenied)), "PermissionDenied");
    }

    #[test]
    fn two_sockets_of_ours_never_share_a_port() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let port = runtime.block_on(async {
            let Bound::Listening(sockets) = bind(0).await else { panic!("no free port") };
            let addresses: Vec<_> = sockets.iter().map(|socket| socket.local_addr().unwrap()).collect();
            assert!(
                addresses
                    .iter()
                    .all(|address| address.ip().is_loopback() && address.port() == addresses.first().unwrap().port())
            );
            let port = addresses.first().unwrap().port();
            assert!(matches!(bind(port).await, Bound::Taken));
            port
        });
        at_once("the port is free", || match runtime.block_on(bind(port)) {
            Bound::Listening(sockets) => Some(sockets),
            Bound::Taken | Bound::Failed(_) => None,
        });
    }
}
