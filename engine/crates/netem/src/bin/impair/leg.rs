//! A leg: the clients of one port, each with a socket of its own towards the server.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;

use mrtc_netem::{LinkConfig, LinkStats};

use crate::pipe::{Parcel, Pipe};

/// A browser tries each of its addresses; a machine has a few.
const MAX_CLIENTS: usize = 64;

/// The largest UDP payload.
const MAX_DATAGRAM: usize = 65_507;

/// Which way packets go.
#[derive(Clone, Copy)]
pub enum Direction {
    /// To the server.
    Up,
    /// To the client.
    Down,
}

/// A port of the proxy.
pub struct Leg {
    address: SocketAddr,
    up: Arc<Pipe<Arc<UdpSocket>>>,
    down: Arc<Pipe<SocketAddr>>,
}

impl Leg {
    /// Opens a port whose packets go to `server`, and starts its threads; they end with the process.
    pub fn open(server: SocketAddr, seed: u64) -> io::Result<Self> {
        let door = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?);
        let address = door.local_addr()?;
        let up = Pipe::start(seed, |parcel: Parcel<Arc<UdpSocket>>| drop(parcel.to.send(&parcel.bytes)));
        let out = Arc::clone(&door);
        // Another seed: the two directions have luck of their own.
        let down = Pipe::start(!seed, move |parcel| drop(out.send_to(&parcel.bytes, parcel.to)));
        let (to_server, to_client) = (Arc::clone(&up), Arc::clone(&down));
        std::thread::spawn(move || receive_up(&door, server, &to_server, &to_client));
        Ok(Self { address, up, down })
    }

    /// Where clients send to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes one direction from now on.
    pub fn set(&self, direction: Direction, config: LinkConfig) {
        match direction {
            Direction::Up => self.up.set(config),
            Direction::Down => self.down.set(config),
        }
    }

    /// Both directions' figures as text.
    pub fn stats(&self) -> String {
        let text = |stats: LinkStats| {
            let LinkStats { sent, delivered, lost, queue_dropped } = stats;
            format!("sent={sent} delivered={delivered} lost={lost} queue_dropped={queue_dropped}")
        };
        format!("up {} down {}", text(self.up.stats()), text(self.down.stats()))
    }
}

/// Takes what clients send; each new client gets a socket, so that the server can tell them apart.
fn receive_up(door: &UdpSocket, server: SocketAddr, up: &Pipe<Arc<UdpSocket>>, down: &Arc<Pipe<SocketAddr>>) {
    let mut sockets: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
    let mut buffer = vec![0; MAX_DATAGRAM];
    loop {
        // A refused datagram of before is told as an error of a later call: no reason to end.
        let Ok((len, client)) = door.recv_from(&mut buffer) else { continue };
        if !sockets.contains_key(&client) && sockets.len() < MAX_CLIENTS {
            match connect(server, client, Arc::clone(down)) {
                Ok(socket) => drop(sockets.insert(client, socket)),
                Err(error) => eprintln!("impair: no socket for {client}: {error}"),
            }
        }
        if let Some(socket) = sockets.get(&client) {
            up.send(Parcel { to: Arc::clone(socket), bytes: buffer[..len].to_vec() });
        }
    }
}

fn connect(server: SocketAddr, client: SocketAddr, down: Arc<Pipe<SocketAddr>>) -> io::Result<Arc<UdpSocket>> {
    let socket = Arc::new(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?);
    socket.connect(server)?;
    let back = Arc::clone(&socket);
    std::thread::spawn(move || {
        let mut buffer = vec![0; MAX_DATAGRAM];
        loop {
            // The server may be down for a moment (ECONNREFUSED); it may come back.
            let Ok(len) = back.recv(&mut buffer) else { continue };
            down.send(Parcel { to: client, bytes: buffer[..len].to_vec() });
        }
    });
    Ok(socket)
}
