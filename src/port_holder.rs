//! Which process listens on a port of this machine. Known on Linux, where `/proc` tells it of one's
//! own processes; elsewhere, and of other users' processes, nothing is known.

/// The process that listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PortHolder {
    pub(crate) pid: u32,
    /// Its program's file name.
    pub(crate) name: String,
    /// It is this program too: it signs in, and will be done soon, or serves a page.
    pub(crate) ours: bool,
}

impl PortHolder {
    #[cfg(target_os = "linux")]
    pub(crate) fn of(port: u16) -> Option<Self> {
        linux::holder(port)
    }

    #[cfg(not(target_os = "linux"))]
    pub(crate) fn of(_: u16) -> Option<Self> {
        None
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::fs;
    use std::net::IpAddr;
    use std::path::Path;

    use super::PortHolder;
    use crate::tcp_table::{self, LISTEN, Socket};

    pub(super) fn holder(port: u16) -> Option<PortHolder> {
        let sockets: Vec<String> =
            listening(&tcp_table::read(), port).into_iter().map(|inode| format!("socket:[{inode}]")).collect();
        if sockets.is_empty() {
            return None;
        }
        let mut pids: Vec<u32> =
            fs::read_dir("/proc").ok()?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
        // Most often it began a moment ago.
        pids.sort_unstable_by(|one, other| other.cmp(one));
        let pid = pids.into_iter().find(|pid| holds(*pid, &sockets))?;
        let name = program(pid)?;
        Some(PortHolder { pid, ours: name == env!("CARGO_PKG_NAME"), name })
    }

    /// The inodes of the sockets that listen on this port of a loopback address or of all addresses.
    pub(super) fn listening(table: &str, port: u16) -> Vec<u64> {
        let here = |socket: &Socket| {
            socket.state == LISTEN && socket.local.port() == port && reaches_loopback(socket.local.ip())
        };
        tcp_table::sockets(table).filter(here).map(|socket| socket.inode).collect()
    }

    fn reaches_loopback(address: IpAddr) -> bool {
        address.is_loopback() || address.is_unspecified()
    }

    fn holds(pid: u32, sockets: &[String]) -> bool {
        let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
        let is_ours = |target: &Path| sockets.iter().any(|socket| Path::new(socket) == target);
        descriptors.flatten().any(|descriptor| fs::read_link(descriptor.path()).is_ok_and(|target| is_ours(&target)))
    }

    /// The file name of the program, also when it was replaced since it started.
    fn program(pid: u32) -> Option<String> {
        let file = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
        let name = file.file_name()?.to_string_lossy().into_owned();
        Some(name.strip_suffix(" (deleted)").map(str::to_owned).unwrap_or(name))
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_listening_process_is_found_whatever_it_listens_on() {
        let addresses: [SocketAddr; 4] = [
            (Ipv4Addr::LOCALHOST, 0).into(),
            (Ipv6Addr::LOCALHOST, 0).into(),
            (Ipv4Addr::UNSPECIFIED, 0).into(),
            (Ipv6Addr::UNSPECIFIED, 0).into(),
        ];
        for address in addresses {
            let socket = TcpListener::bind(address).unwrap();
            let holder = PortHolder::of(socket.local_addr().unwrap().port()).unwrap();
            assert_eq!(holder.pid, std::process::id());
            assert!(holder.name.starts_with("kubectl_headlamp"), "{}", holder.name);
            assert!(!holder.ours, "a test is no sign-in");
        }
    }

    #[test]
    fn a_port_that_is_only_connected_is_held_by_nobody() {
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let client = TcpStream::connect(socket.local_addr().unwrap()).unwrap();
        assert_eq!(PortHolder::of(client.local_addr().unwrap().port()), None);
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn the_table_is_read_as_the_kernel_writes_it() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            0: 0100007F:1F40 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 11 1 0 100 0 0 10 0\n\
            1: 0100007F:1F40 0100007F:9C40 01 00000000:00000000 00:00000000 00000000  1000        0 12 1 0 100 0 0 10 0\n\
            2: 0500A8C0:1F40 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 13 1 0 100 0 0 10 0\n\
            3: 00000000:1F41 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 14 1 0 100 0 0 10 0\n";
        assert_eq!(linux::listening(table, 8000), [11]);
        let table = "0: 0000000000000000FFFF00000100007F:1F40 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 21 1\n\
            1: 00000000000000000000000001000000:1F40 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 22 1\n\
            2: 000080FE000000000000000001000000:1F40 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 23 1\n";
        assert_eq!(linux::listening(table, 8000), [21, 22]);
    }

    proptest! {
        #[test]
        fn any_table_is_read(table in "([0-9A-Fg:]{0,40} ?){0,12}", other in any::<String>()) {
            linux::listening(&table, 0);
            linux::listening(&other, 8000);
        }
    }
}
