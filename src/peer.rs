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
    /// This system says of each connection whose it is, but not of this one.
    Nobody,
}

impl Peer {
    pub(crate) fn may_come(self) -> bool {
        matches!(self, Self::SameUser | Self::Unknown)
    }
}

/// The users who may connect.
#[derive(Clone, Debug)]
pub(crate) struct Owners {
    /// By their numbers.
    users: Vec<u32>,
    /// Whether loopback leads in from another system, whose sockets are listed nowhere here: Windows'
    /// browsers come so to WSL with mirrored networking.
    #[cfg(target_os = "linux")]
    relayed: bool,
}

impl Owners {
    /// This process's user, and root: it can do anything here anyway, and so does the relay through
    /// which Windows' browsers reach WSL.
    #[cfg(unix)]
    pub(crate) fn of_this_process() -> Self {
        Self {
            users: vec![rustix::process::geteuid().as_raw(), 0],
            #[cfg(target_os = "linux")]
            relayed: is_wsl(),
        }
    }

    #[cfg(not(unix))]
    pub(crate) fn of_this_process() -> Self {
        Self { users: Vec::new() }
    }

    #[cfg(test)]
    pub(crate) fn these(users: &[u32]) -> Self {
        Self {
            users: users.to_owned(),
            #[cfg(target_os = "linux")]
            relayed: false,
        }
    }

    /// Whose the other end is of the connection between these addresses, `ours` being this end.
    #[cfg(target_os = "linux")]
    pub(crate) async fn peer(&self, ours: SocketAddr, theirs: SocketAddr) -> Peer {
        let look_up = async || {
            if let Some(user) = crate::socket_owner::of(theirs, ours) {
                return self.of_user(user);
            }
            let owners = self.clone();
            let look_up = move || owners.in_table(&crate::tcp_table::read(), ours, theirs);
            tokio::task::spawn_blocking(look_up).await.unwrap_or(Peer::Unknown)
        };
        // Connections come and go while the table is read, and it may miss one.
        match look_up().await {
            Peer::Nobody => look_up().await,
            told => told,
        }
    }

    #[cfg(not(target_os = "linux"))]
    pub(crate) async fn peer(&self, _: SocketAddr, _: SocketAddr) -> Peer {
        Peer::Unknown
    }

    /// An end that no process holds any more needs no answer. One beyond this machine is listed nowhere.
    #[cfg(target_os = "linux")]
    fn in_table(&self, table: &str, ours: SocketAddr, theirs: SocketAddr) -> Peer {
        use crate::tcp_table::{ESTABLISHED, sockets};
        // IPv4 within IPv6 stands in the table as what it is.
        let [ours, theirs] = [ours, theirs].map(|end| SocketAddr::new(end.ip().to_canonical(), end.port()));
        if let Some(their) = sockets(table).find(|socket| socket.local == theirs && socket.remote == ours) {
            return if their.inode == 0 { Peer::AnotherUser } else { self.of_user(their.user) };
        }
        match sockets(table).find(|socket| socket.local == ours && socket.remote == theirs) {
            Some(our) if our.state != ESTABLISHED => Peer::AnotherUser,
            _ if !theirs.ip().is_loopback() || self.relayed => Peer::Unknown,
            None if sockets(table).next().is_none() => Peer::Unknown,
            _ => Peer::Nobody,
        }
    }

    #[cfg(target_os = "linux")]
    fn of_user(&self, user: u32) -> Peer {
        if self.users.contains(&user) { Peer::SameUser } else { Peer::AnotherUser }
    }
}

#[cfg(target_os = "linux")]
fn is_wsl() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    release.to_ascii_lowercase().contains("microsoft")
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
    fn an_end_on_loopback_that_is_not_in_the_table_is_nobodys() {
        let loopback = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let table = "1: 0100007F:1F40 0100007F:9C40 01 0:0 0:0 0 1000 0 12\n2: 0100007F:1F40 0100007F:9C41 08 0:0 0:0 0 1000 0 13\n\
            3: 0100007F:9C43 0100007F:1F40 01 0:0 0:0 0 1000 0 14\n";
        let owners = Owners::these(&[1000]);
        let told = |theirs| owners.in_table(table, loopback(8000), theirs);
        assert_eq!(told(loopback(40_000)), Peer::Nobody);
        assert_eq!(told(loopback(40_001)), Peer::AnotherUser, "it has hung up");
        assert_eq!(told(loopback(40_002)), Peer::Nobody);
        assert_eq!(told(loopback(40_003)), Peer::SameUser);
        let within = |port| SocketAddr::from((Ipv4Addr::LOCALHOST.to_ipv6_mapped(), port));
        assert_eq!((told(within(40_000)), told(within(40_003))), (Peer::Nobody, Peer::SameUser));
        // Another machine, tables that cannot be read, and Windows around WSL.
        assert_eq!(told(SocketAddr::from(([192, 0, 2, 1], 40_000))), Peer::Unknown);
        assert_eq!(owners.in_table("", loopback(8000), loopback(40_000)), Peer::Unknown);
        let relayed = Owners { relayed: true, ..Owners::these(&[1000]) };
        assert_eq!(relayed.in_table(table, loopback(8000), loopback(40_000)), Peer::Unknown);
        assert_eq!(relayed.in_table(table, loopback(8000), loopback(40_003)), Peer::SameUser);
    }

    #[tokio::test]
    async fn an_end_that_is_listed_nowhere_may_not_come() {
        let (client, server) = connection((Ipv4Addr::LOCALHOST, 0));
        let ours = server.local_addr().unwrap();
        // As if the system had not listed it: no connection has this end.
        let theirs = SocketAddr::from(([127, 77, 77, 77], client.local_addr().unwrap().port()));
        let owners = Owners { relayed: false, ..Owners::of_this_process() };
        let told = owners.peer(ours, theirs).await;
        assert!(told == Peer::Nobody && !told.may_come(), "{told:?}");
    }
}
