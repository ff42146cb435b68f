//! Whose one TCP socket of this machine is, asked of Linux by its addresses (`sock_diag(7)`). Where it
//! does not say, `tcp_table` may: that is a list of all sockets, and a hundred times dearer.

use std::net::SocketAddr;

use netlink_packet_core::{NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP};
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, SocketId, StateFlags};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, netlink, recv, send, socket};

use crate::tcp_table::ESTABLISHED;

/// The user whose socket the end `local` is of the open connection to `remote`; `None`: not known.
pub(crate) fn of(local: SocketAddr, remote: SocketAddr) -> Option<u32> {
    let bare = if local.is_ipv4() { SocketId::new_v4() } else { SocketId::new_v6() };
    let asked = SocketId {
        source_port: local.port(),
        destination_port: remote.port(),
        source_address: local.ip(),
        destination_address: remote.ip(),
        // Not known either (`INET_DIAG_NOCOOKIE`).
        cookie: [0xff; 8],
        ..bare
    };
    let kernel = socket(AddressFamily::NETLINK, SocketType::RAW, Some(netlink::SOCK_DIAG)).ok()?;
    send(&kernel, &question(asked.clone()), SendFlags::empty()).ok()?;
    let mut answer = [0; LONGEST_ANSWER];
    // The answer is there as soon as the question is sent.
    let (length, _) = recv(&kernel, &mut answer[..], RecvFlags::DONTWAIT).ok()?;
    let answer = NetlinkMessage::<SockDiagMessage>::deserialize(answer.get(..length)?).ok()?;
    let NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(found)) = answer.payload else { return None };
    // Without such a connection, one that listens on the same port is told.
    let id = &found.header.socket_id;
    let same = id.source_port == asked.source_port && id.destination_port == asked.destination_port;
    (same && found.header.state == ESTABLISHED && found.header.inode != 0).then_some(found.header.uid)
}

fn question(socket_id: SocketId) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST;
    let family = if socket_id.source_address.is_ipv4() { AF_INET } else { AF_INET6 };
    let request = InetRequest {
        family,
        protocol: IPPROTO_TCP,
        extensions: ExtensionFlags::empty(),
        states: StateFlags::all(),
        socket_id,
    };
    let mut message = NetlinkMessage::new(header, SockDiagMessage::InetRequest(request).into());
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

/// Bytes; a header and one attribute.
const LONGEST_ANSWER: usize = 1024;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, TcpStream};

    use super::*;

    #[test]
    fn both_ends_of_a_connection_are_this_users() {
        let user = Some(rustix::process::geteuid().as_raw());
        for address in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
            let listener = TcpListener::bind((address, 0)).unwrap();
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (local, remote) = (client.local_addr().unwrap(), client.peer_addr().unwrap());
            let (server, _) = listener.accept().unwrap();
            assert_eq!(of(local, remote), user);
            assert_eq!(of(remote, local), user);
            drop(server);
            // Its end has come.
            assert_eq!(client.peek(&mut [0]).unwrap(), 0);
            assert_eq!(of(local, remote), None, "it is half closed");
        }
    }

    #[test]
    fn one_that_listens_is_not_taken_for_an_end_of_a_connection() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        assert_eq!(of(listener.local_addr().unwrap(), (Ipv4Addr::LOCALHOST, 1).into()), None);
    }
}
