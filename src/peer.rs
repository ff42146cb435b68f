//! Who is at the other end of a connection on this machine. Loopback is open to every user of it;
//! on Linux the kernel says whose socket the other end is, elsewhere nothing is known.

use std::net::SocketAddr;

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    SameUser,
    /// This system does not say.
    Unknown,
    /// Or one who has hung up before it could be told who it was.
    AnotherUser,
}

/// The users who may connect, by their numbers.
#[derive(Clone, Debug)]
pub(crate) struct Owners(Vec<u32>);

impl Owners {
    /// This process's user, and root: it can do anything here anyway, and so does the relay through
    /// which Windows' browsers reach WSL.
    #[cfg(unix)]
    pub(crate) fn of_this_process() -> Self {
        Self(vec![rustix::process::geteuid().as_raw(), 0])
    }

    #[cfg(not(unix))]
    pub(crate) fn of_this_process() -> Self {
        Self(Vec::new())
    }

    #[cfg(test)]
    pub(crate) fn these(users: &[u32]) -> Self {
        Self(users.to_owned())
    }

    /// Whose the other end is of the connection between these addresses, `ours` being this end.
    #[cfg(target_os = "linux")]
    pub(crate) async fn peer(&self, ours: SocketAddr, theirs: SocketAddr) -> Peer {
        if let Some(user) = crate::socket_owner::of(theirs, ours) {
            return self.of_user(user);
        }
        let owners = self.clone();
        let look_up = move || owners.in_table(&crate::tcp_table::read(), ours, theirs);
        tokio::task::spawn_blocking(look_up).await.unwrap_or(Peer::Unknown)
    }

    #[cfg(not(target_os = "linux"))]
    pub(crate) async fn peer(&self, _: SocketAddr, _: SocketAddr) -> Peer {
        Peer::Unknown
    }

    /// An end that no process holds any more needs no answer. One that is not listed while ours is
    /// open lies outside: Windows' browsers come so to WSL with mirrored networking.
    #[cfg(target_os = "linux")]
    fn in_table(&self, table: &str, ours: SocketAddr, theirs: SocketAddr) -> Peer {
        use crate::tcp_table::{ESTABLISHED, sockets};
        if let Some(their) = sockets(table).find(|socket| socket.local == theirs && socket.remote == ours) {
            return if their.inode == 0 { Peer::AnotherUser } else { self.of_user(their.user) };
        }
        match sockets(table).find(|socket| socket.local == ours && socket.remote == theirs) {
            Some(our) if our.state != ESTABLISHED => Peer::AnotherUser,
            _ => Peer::Unknown,
        }
    }

    #[cfg(target_os = "linux")]
    fn of_user(&self, user: u32) -> Peer {
        if self.0.contains(&user) { Peer::SameUser } else { Peer::AnotherUser }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream};

    use super::*;

    fn connection(address: impl Into<SocketAddr>) -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind(address.into()).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (client, listener.accept().unwrap().0)
    }

    async fn peer(owners: &Owners, server: &TcpStream) -> Peer {
        owners.peer(server.local_addr().unwrap(), server.peer_addr().unwrap()).await
    }

    #[tokio::test]
    async fn a_connection_of_this_user_is_told_from_one_of_another() {
        let user = rustix::process::geteuid().as_raw();
        for address in [SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), (Ipv6Addr::LOCALHOST, 0).into()] {
            let (_client, server) = connection(address);
            assert_eq!(peer(&Owners::of_this_process(), &server).await, Peer::SameUser);
            assert_eq!(peer(&Owners::these(&[user.wrapping_add(1)]), &server).await, Peer::AnotherUser);
        }
    }

    #[tokio::test]
    async fn whoever_has_hung_up_is_nobody_of_ours() {
        let (client, server) = connection((Ipv4Addr::LOCALHOST, 0));
        drop(client);
        server.peek(&mut [0]).unwrap();
        assert_eq!(peer(&Owners::of_this_process(), &server).await, Peer::AnotherUser);
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn an_end_outside_the_table_is_unknown() {
        let addresses =
            |port| (SocketAddr::from((Ipv4Addr::LOCALHOST, 8000)), SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        let table = "1: 0100007F:1F40 0100007F:9C40 01 0:0 0:0 0 1000 0 12\n2: 0100007F:1F40 0100007F:9C41 08 0:0 0:0 0 1000 0 13\n";
        let owners = Owners::these(&[1000]);
        let told = |port| {
            let (ours, theirs) = addresses(port);
            owners.in_table(table, ours, theirs)
        };
        assert_eq!(told(40_000), Peer::Unknown);
        assert_eq!(told(40_001), Peer::AnotherUser);
        assert_eq!(told(40_002), Peer::Unknown);
        assert_eq!(owners.in_table("", addresses(40_000).0, addresses(40_000).1), Peer::Unknown);
    }
}
