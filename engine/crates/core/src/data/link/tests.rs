use std::time::Duration;

use mrtc_netem::{Link, LinkConfig, WireLen};

use super::*;

#[derive(Clone)]
struct Datagram(Bytes);

impl WireLen for Datagram {
    fn wire_len(&self) -> usize {
        self.0.len() + 65
    }
}

/// Two links joined by lossy ones.
struct Pair {
    now: Instant,
    ends: [SctpLink; 2],
    wires: [Link<Datagram>; 2],
    events: [Vec<LinkEvent>; 2],
}

impl Pair {
    fn new(seed: u64, loss: f64) -> Self {
        let config = LinkConfig { delay: Duration::from_millis(20), loss, ..LinkConfig::default() };
        Self {
            now: Instant::now(),
            ends: [SctpLink::new(true, 65_536), SctpLink::new(false, 65_536)],
            wires: [Link::new(seed, config), Link::new(seed + 1, config)],
            events: [vec![], vec![]],
        }
    }

    fn step(&mut self) {
        self.now += Duration::from_millis(5);
        for at in 0..2 {
            if self.ends[at].next_timeout().is_some_and(|t| t <= self.now) {
                self.ends[at].handle_timeout(self.now);
            }
            while let Some(datagram) = self.ends[at].poll_transmit(self.now) {
                self.wires[at].send(self.now, Datagram(datagram));
            }
            while let Some(Datagram(bytes)) = self.wires[at].poll(self.now) {
                self.ends[1 - at].handle_input(self.now, &bytes);
            }
            while let Some(event) = self.ends[at].poll_event() {
                self.events[at].push(event);
            }
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.step();
        }
    }

    fn connect(&mut self) {
        let start = self.now;
        while !self.ends.iter().all(SctpLink::is_connected) {
            assert!(self.now < start + Duration::from_secs(20));
            self.step();
        }
    }

    fn read_all(&mut self, at: usize, stream: u16) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| self.ends[at].read(stream)).map(|(_, bytes)| bytes).collect()
    }
}

#[test]
fn reliable_messages_arrive_whole_and_in_order_at_20_percent_loss() {
    let mut pair = Pair::new(1, 0.2);
    pair.connect();
    assert!(pair.ends[0].open(2, Delivery::RELIABLE));
    let sent: Vec<Vec<u8>> = (0..50u8).map(|n| vec![n; 100 + usize::from(n) * 40]).collect();
    sent.iter().for_each(|m| assert!(pair.ends[0].write(2, Kind::Binary, m)));
    let mut got = Vec::new();
    for _ in 0..60 {
        pair.run(Duration::from_millis(500));
        got.extend(pair.read_all(1, 2));
    }
    assert_eq!(got, sent);
}

#[test]
fn lossy_messages_are_lost_and_block_nothing() {
    let mut pair = Pair::new(2, 0.0);
    pair.connect();
    pair.wires.iter_mut().for_each(|w| {
        w.set_config(LinkConfig { delay: Duration::from_millis(20), loss: 0.2, ..LinkConfig::default() })
    });
    assert!(pair.ends[0].open(2, Delivery::LOSSY));
    let (mut got, mut late) = (0, 0);
    for n in 0..500u32 {
        assert!(pair.ends[0].write(2, Kind::Binary, &n.to_be_bytes()));
        pair.run(Duration::from_millis(20));
        for message in pair.read_all(1, 2) {
            got += 1;
            late += u32::from(n - u32::from_be_bytes(message.try_into().unwrap()) > 25);
        }
    }
    assert!((330..500).contains(&got), "{got} of 500");
    assert!(late < 25, "{late} came more than half a second late");
}

#[test]
fn a_reader_that_does_not_read_holds_the_writer_back() {
    let mut pair = Pair::new(3, 0.0);
    pair.connect();
    assert!(pair.ends[0].open(2, Delivery::RELIABLE));
    let message = vec![7; 60_000];
    (0..20).for_each(|_| assert!(pair.ends[0].write(2, Kind::Binary, &message)));
    pair.run(Duration::from_secs(10));
    assert!(pair.ends[0].buffered(2) > 800_000, "{}", pair.ends[0].buffered(2));
    let mut got = 0;
    for _ in 0..20 {
        got += pair.read_all(1, 2).len();
        pair.run(Duration::from_secs(3));
    }
    assert_eq!(got + pair.read_all(1, 2).len(), 20);
    assert!(!pair.events.iter().flatten().any(|e| *e == LinkEvent::Lost));
}

#[test]
fn a_closed_stream_is_told_and_its_number_can_be_used_again() {
    let mut pair = Pair::new(4, 0.0);
    pair.connect();
    assert!(pair.ends[0].open(2, Delivery::RELIABLE));
    pair.ends[0].write(2, Kind::Text, b"hello");
    pair.run(Duration::from_millis(200));
    assert_eq!(pair.ends[1].read(2), Some((Kind::Text, b"hello".to_vec())));
    pair.ends[0].close(2);
    pair.run(Duration::from_secs(1));
    assert!(pair.events[1].contains(&LinkEvent::Closed(2)), "{:?}", pair.events);
    assert!(pair.ends[0].open(2, Delivery::LOSSY));
}

#[test]
fn no_datagram_is_larger_than_a_path_takes() {
    let mut pair = Pair::new(5, 0.0);
    pair.connect();
    pair.ends[0].open(2, Delivery::RELIABLE);
    pair.ends[0].write(2, Kind::Binary, &[1; 60_000]);
    let mut largest = 0;
    for _ in 0..200 {
        pair.now += Duration::from_millis(10);
        while let Some(datagram) = pair.ends[0].poll_transmit(pair.now) {
            largest = largest.max(datagram.len());
            pair.ends[1].handle_input(pair.now, &datagram);
        }
        while let Some(datagram) = pair.ends[1].poll_transmit(pair.now) {
            pair.ends[0].handle_input(pair.now, &datagram);
        }
    }
    // DTLS adds 37, UDP and IPv6 48.
    assert!(largest > 1_000 && largest + 37 + 48 <= 1_200, "{largest}");
}
