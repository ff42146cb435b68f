//! The TCP sockets of this machine, as Linux lists them in `/proc/net/tcp` and `/proc/net/tcp6`
//! (`proc_pid_net(5)`).

use std::fs;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// One end of a connection, or a socket that listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Socket {
    /// IPv4 addresses within IPv6 stand as what they are.
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
    pub(crate) state: u8,
    /// Whose it is; root's, if no process has it any more.
    pub(crate) user: u32,
    /// 0 if no process has it any more.
    pub(crate) inode: u64,
}

/// `TCP_ESTABLISHED` and `TCP_LISTEN`.
pub(crate) const ESTABLISHED: u8 = 0x01;
pub(crate) const LISTEN: u8 = 0x0a;

/// Both tables; one that cannot be read is left out.
pub(crate) fn read() -> String {
    ["/proc/net/tcp", "/proc/net/tcp6"].iter().filter_map(|table| fs::read_to_string(table).ok()).collect()
}

/// The sockets in a table; lines that are none are left out.
pub(crate) fn sockets(table: &str) -> impl Iterator<Item = Socket> {
    table.lines().filter_map(socket)
}

fn socket(line: &str) -> Option<Socket> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    Some(Socket {
        local: address(fields.next()?)?,
        remote: address(fields.next()?)?,
        state: u8::from_str_radix(fields.next()?, 16).ok()?,
        user: fields.nth(3)?.parse().ok()?,
        inode: fields.nth(1)?.parse().ok()?,
    })
}

fn address(field: &str) -> Option<SocketAddr> {
    let (address, port) = field.split_once(':')?;
    Some(SocketAddr::new(ip(address)?, u16::from_str_radix(port, 16).ok()?))
}

/// The kernel writes addresses as the machine's own 32-bit numbers.
fn ip(hexadecimal: &str) -> Option<IpAddr> {
    let word = |at: usize| Some(u32::from_str_radix(hexadecimal.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    if hexadecimal.len() == 8 {
        return word(0).map(IpAddr::from);
    }
    let mut octets = [0; 16];
    for (index, chunk) in octets.chunks_exact_mut(4).enumerate() {
        chunk.copy_from_slice(&word(index * 8)?);
    }
    Some(Ipv6Addr::from(octets).to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_endian = "little")]
    #[test]
    fn a_line_of_the_table_is_a_socket() {
        let line = "   1: 0000000000000000FFFF00000100007F:1F40 0100007F:9C40 01 00000000:00000000 00:00000000 00000000  1000        0 12 1 0 100 0 0 10 0";
        let expected = Socket {
            local: SocketAddr::from(([127, 0, 0, 1], 8000)),
            remote: SocketAddr::from(([127, 0, 0, 1], 40000)),
            state: ESTABLISHED,
            user: 1000,
            inode: 12,
        };
        assert_eq!(sockets(line).collect::<Vec<_>>(), [expected]);
        let header = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode";
        assert_eq!(sockets(header).count(), 0);
    }
}
