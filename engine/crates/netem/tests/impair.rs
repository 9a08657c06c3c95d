//! The proxy as a process: packets pass both ways, late and thinned out as told, and wrong commands are refused.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

struct Proxy {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Proxy {
    fn start() -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_impair"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts");
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().expect("piped"));
        Self { child, input, output }
    }

    fn ask(&mut self, command: &str) -> String {
        writeln!(self.input.as_mut().expect("open"), "{command}").expect("taken");
        let mut answer = String::new();
        self.output.read_line(&mut answer).expect("answered");
        answer.trim().to_owned()
    }

    fn leg(&mut self, server: &UdpSocket) -> SocketAddr {
        let answer = self.ask(&format!("leg a {} 5", server.local_addr().unwrap()));
        answer.strip_prefix("ok ").expect("opened").parse().expect("an address")
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        drop(self.input.take());
        assert!(self.child.wait().expect("ends").success());
    }
}

fn socket() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    socket
}

#[test]
fn two_clients_are_told_apart_and_packets_come_late() {
    let (mut proxy, server, clients) = (Proxy::start(), socket(), [socket(), socket()]);
    let door = proxy.leg(&server);
    assert_eq!(proxy.ask("set a down delay_ms=40"), "ok");
    let mut buffer = [0; 16];
    for (number, client) in clients.iter().enumerate() {
        let sent_at = Instant::now();
        client.send_to(&[number as u8], door).unwrap();
        let (_, from) = server.recv_from(&mut buffer).unwrap();
        assert_eq!(usize::from(buffer[0]), number);
        server.send_to(&[10 + number as u8], from).unwrap();
        assert_eq!(client.recv_from(&mut buffer).unwrap(), (1, door));
        assert_eq!(usize::from(buffer[0]), 10 + number);
        assert!(sent_at.elapsed() >= Duration::from_millis(40));
    }
}

#[test]
fn loss_is_drawn_and_told() {
    let (mut proxy, server, client) = (Proxy::start(), socket(), socket());
    let door = proxy.leg(&server);
    assert_eq!(proxy.ask("set a up loss=0.5"), "ok");
    for number in 0..100u8 {
        client.send_to(&[number], door).unwrap();
    }
    // The last one passes for certain, behind all others.
    let deadline = Instant::now() + Duration::from_secs(10);
    while !proxy.ask("stats a").contains("up sent=100 ") {
        assert!(Instant::now() < deadline, "{}", proxy.ask("stats a"));
    }
    assert_eq!(proxy.ask("set a up"), "ok");
    client.send_to(&[255], door).unwrap();
    let (mut count, mut buffer) = (0, [0; 16]);
    while server.recv_from(&mut buffer).is_ok() && buffer[0] != 255 {
        count += 1;
    }
    assert!((30..70).contains(&count), "{count}");
    let stats = proxy.ask("stats a");
    assert!(stats.contains(&format!("delivered={} lost={}", count + 1, 100 - count)), "{stats}");
}

#[test]
fn wrong_commands_change_nothing() {
    let (mut proxy, server) = (Proxy::start(), socket());
    proxy.leg(&server);
    for wrong in ["", "leg b nowhere 1", "leg b 127.0.0.1:9", "set b up", "set a left", "set a up loss=7", "stats"] {
        assert!(proxy.ask(wrong).starts_with("error "), "{wrong}");
    }
    assert!(proxy.ask("stats a").starts_with("ok up sent=0 "));
}
