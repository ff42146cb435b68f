//! A proxy that every host is reached through (RFC 9110 §9.3.6): all of them are one port of this
//! machine.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use crate::server::lock;

/// A proxy that listens until the test's process ends.
pub struct ConnectProxy {
    port: u16,
    seen: Arc<Mutex<Vec<Tunnel>>>,
}

/// A tunnel that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// Host and port.
    pub target: String,
    /// The value of `Proxy-Authorization`.
    pub authorization: Option<String>,
}

impl ConnectProxy {
    /// A proxy whose tunnels all end at this port of 127.0.0.1.
    pub fn to(port: u16) -> Self {
        Self::start(Some(port), 200)
    }

    /// A proxy that answers with this status, and lets nobody through.
    pub fn refusing(status: u16) -> Self {
        Self::start(None, status)
    }

    fn start(end: Option<u16>, status: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a loopback port");
        let port = listener.local_addr().expect("a bound address").port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&seen);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let noted = Arc::clone(&noted);
                std::thread::spawn(move || drop(serve(client, end, status, &noted)));
            }
        });
        Self { port, seen }
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The tunnels that were asked for, in order.
    pub fn tunnels(&self) -> Vec<Tunnel> {
        lock(&self.seen).clone()
    }
}

fn serve(mut client: TcpStream, end: Option<u16>, status: u16, seen: &Mutex<Vec<Tunnel>>) -> io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let target = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut authorization = None;
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        match line.trim_end().split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("proxy-authorization") => {
                authorization = Some(value.to_owned());
            }
            Some(_) => {}
            None => break,
        }
    }
    lock(seen).push(Tunnel { target, authorization });
    write!(client, "HTTP/1.1 {status} Double\r\n\r\n")?;
    let Some(end) = end else { return Ok(()) };
    let server = TcpStream::connect((Ipv4Addr::LOCALHOST, end))?;
    let (up, down) = (server.try_clone()?, client.try_clone()?);
    std::thread::spawn(move || copy(reader, up));
    copy(server, down);
    Ok(())
}

/// Until one side has ended; then the other is told.
fn copy(mut from: impl Read, mut to: TcpStream) {
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(std::net::Shutdown::Write);
}
