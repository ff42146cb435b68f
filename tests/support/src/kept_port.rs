//! Ports that nobody else gets.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::TcpSocket;

/// A port of 127.0.0.1 that the system hands out to nobody while this lives: a socket is bound to it
/// and never listens. Who names it may listen there, again and again; meanwhile connections are refused.
pub struct KeptPort {
    _socket: TcpSocket,
    address: SocketAddr,
}

impl KeptPort {
    /// One that is free.
    #[expect(clippy::new_without_default, reason = "each is another")]
    pub fn new() -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        // Listeners have this too, and so get a port that is bound already if they name it.
        socket.set_reuseaddr(true).expect("a socket");
        socket.bind((Ipv4Addr::LOCALHOST, 0).into()).expect("a loopback port");
        let address = socket.local_addr().expect("a bound address");
        Self { _socket: socket, address }
    }

    /// Its number.
    pub fn number(&self) -> u16 {
        self.address.port()
    }

    /// With 127.0.0.1 before it.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn only_who_names_it_listens_there_and_until_then_it_refuses() {
        let kept = KeptPort::new();
        for _ in 0..2 {
            assert_eq!(TcpStream::connect(kept.address()).unwrap_err().kind(), ErrorKind::ConnectionRefused);
            let listener = TcpListener::bind(kept.address()).unwrap();
            let _connection = TcpStream::connect(kept.address()).unwrap();
            listener.accept().unwrap();
        }
        let others: Vec<TcpListener> = (0..200).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        assert!(others.iter().all(|other| other.local_addr().unwrap().port() != kept.number()));
    }
}
