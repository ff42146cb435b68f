//! A long way: a TCP proxy behind which a server is as far away as the test says.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, sleep_until};

use crate::runner::Runner;
use crate::server::lock;
use crate::wire::{State, Wire, WireControl};

/// A proxy on loopback to one address. Every byte, and every end, arrives later by a fixed time each
/// way; the bandwidth is without limit. A new connection costs its round trip too, as a handshake
/// does. A half-close stays one; a reset too.
pub struct DelayLine {
    address: SocketAddr,
    wires: Wires,
    _runner: Runner,
}

type Wires = Arc<Mutex<Connections>>;

struct Connections {
    /// What new ones do.
    state: State,
    counted: usize,
    open: Vec<Ends>,
}

/// Both ends of one connection: the client's, the server's.
#[derive(Clone)]
struct Ends([Arc<WireControl>; 2]);

impl Ends {
    fn set(&self, state: State) {
        self.0.iter().for_each(|end| end.set(state));
    }
}

impl DelayLine {
    /// A line to this address; `one_way` is half a round trip.
    pub fn to(target: SocketAddr, one_way: Duration) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a loopback port");
        let address = listener.local_addr().expect("a bound address");
        listener.set_nonblocking(true).expect("a socket");
        let wires: Wires = Arc::new(Mutex::new(Connections { state: State::Open, counted: 0, open: Vec::new() }));
        let runner = Runner::start();
        runner.spawn(accept(listener, target, one_way, Arc::clone(&wires)));
        Self { address, wires, _runner: runner }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections there were.
    pub fn connections(&self) -> usize {
        lock(&self.wires).counted
    }

    /// Resets all connections.
    pub fn cut(&self) {
        lock(&self.wires).open.drain(..).for_each(|ends| ends.set(State::Reset));
    }

    /// From now on nothing arrives, and nothing is closed either, for connections to come too: a
    /// laptop that slept, a VPN that is gone.
    pub fn go_silent(&self) {
        self.set(State::Silent);
    }

    /// Ends [`DelayLine::go_silent`]: what was on the way arrives.
    pub fn speak(&self) {
        self.set(State::Open);
    }

    fn set(&self, state: State) {
        let mut wires = lock(&self.wires);
        wires.state = state;
        wires.open.iter().for_each(|ends| ends.set(state));
    }
}

async fn accept(listener: TcpListener, target: SocketAddr, one_way: Duration, wires: Wires) {
    let listener = tokio::net::TcpListener::from_std(listener).expect("a socket");
    loop {
        let Ok((client, _)) = listener.accept().await else { continue };
        let ends = {
            let mut wires = lock(&wires);
            let ends = Ends([WireControl::new(wires.state), WireControl::new(wires.state)]);
            wires.open.retain(|ends| Arc::strong_count(&ends.0[0]) > 1);
            wires.counted += 1;
            wires.open.push(ends.clone());
            ends
        };
        tokio::spawn(async move {
            let began = Instant::now();
            let Ok(server) = TcpStream::connect(target).await else {
                ends.set(State::Reset);
                drop(Wire::new(client, &ends.0[0]));
                return;
            };
            let _ = (client.set_nodelay(true), server.set_nodelay(true));
            let (from_client, to_client) = tokio::io::split(Wire::new(client, &ends.0[0]));
            let (from_server, to_server) = tokio::io::split(Wire::new(server, &ends.0[1]));
            let up = carry(from_client, to_server, one_way, began + 2 * one_way, &ends);
            let down = carry(from_server, to_client, one_way, began, &ends);
            tokio::select! {
                _ = async { tokio::join!(up, down) } => {}
                () = ends.0[0].reset() => {}
            }
        });
    }
}

/// One direction. Nothing that is read counts as sent before `earliest`.
async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    delay: Duration,
    earliest: Instant,
    ends: &Ends,
) {
    let (sender, mut arriving) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    let room = Arc::new(Semaphore::new(ON_THE_WAY));
    let reading = async {
        let mut buffer = vec![0; PIECE];
        loop {
            let Ok(count) = from.read(&mut buffer).await else {
                ends.set(State::Reset);
                return;
            };
            let piece = buffer[..count].to_vec();
            // The end is a piece without bytes.
            let Ok(permit) = room.acquire_many(u32::try_from(count).unwrap_or(u32::MAX)).await else { return };
            permit.forget();
            if sender.send((Instant::now().max(earliest) + delay, piece)).is_err() || count == 0 {
                return;
            }
        }
    };
    let writing = async {
        while let Some((due, piece)) = arriving.recv().await {
            sleep_until(due).await;
            if piece.is_empty() {
                let _ = to.shutdown().await;
                return;
            }
            if to.write_all(&piece).await.is_err() {
                ends.set(State::Reset);
                return;
            }
            room.add_permits(piece.len());
        }
    };
    tokio::join!(reading, writing);
}

/// Bytes.
const PIECE: usize = 64 * 1024;
/// Bytes that may be on the way at once, each way; a reader that stops reading is noticed.
const ON_THE_WAY: usize = 64 * 1024 * 1024;
