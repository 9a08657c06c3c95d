//! The peers' run: join, settle, be counted; and what is particular to a shape.

use std::net::SocketAddr;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::{Client, Result, Role};
use crate::flood::Flood;
use crate::pipe::{hear, say, say_phase};
use crate::video::Video;
use crate::{Options, Shape};

/// Sockets are looked at this often and never waited for: else the sender would pay for waking the receiver, which no
/// client elsewhere costs it.
const NAP: Duration = Duration::from_millis(2);
/// Offers that wait for an answer at once while the room fills.
const MAX_UNDER_WAY: usize = 8;
const JOIN_TIMEOUT: Duration = Duration::from_secs(60);
const WARM_UP: Duration = Duration::from_secs(5);
/// What an idle room needs to come to rest.
const SETTLE: Duration = Duration::from_secs(2);

/// All peers; the first one publishes, unless nobody does.
struct Crowd {
    clients: Vec<Client>,
    video: Option<Video>,
    answers: Receiver<Value>,
    epoch: Instant,
}

impl Crowd {
    fn turn(&mut self) -> Result<()> {
        for line in self.answers.try_iter() {
            let index = line["client"].as_u64().ok_or("an answer to nobody")? as usize;
            let client = self.clients.get_mut(index).ok_or("an answer to nobody")?;
            client.take_answer(line["answer"].as_str().ok_or("no answer")?)?;
        }
        if let (Some(video), Some(publisher)) = (&mut self.video, self.clients.first_mut())
            && publisher.is_connected
        {
            let mid = publisher.mid();
            video.send_due(publisher, mid)?;
        }
        self.clients.iter_mut().try_for_each(Client::step)?;
        let frame_at = self.video.as_ref().map_or(NAP, |v| v.next_at().saturating_duration_since(Instant::now()));
        std::thread::sleep(NAP.min(frame_at));
        Ok(())
    }

    fn turn_for(&mut self, time: Duration) -> Result<()> {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.turn()?;
        }
        Ok(())
    }

    /// Turns until `is_done`; false if that takes too long.
    fn turn_until(&mut self, is_done: impl Fn(&[Client]) -> bool) -> Result<bool> {
        let give_up_at = Instant::now() + JOIN_TIMEOUT;
        while !is_done(&self.clients) {
            if Instant::now() > give_up_at {
                return Ok(false);
            }
            self.turn()?;
        }
        Ok(true)
    }

    /// Where the publisher sends its media.
    fn target(&self) -> Result<SocketAddr> {
        self.clients.first().and_then(|c| c.server).ok_or_else(|| "nobody is connected".into())
    }

    /// Adds a peer that has not offered yet.
    fn add(&mut self, role: Role, loss_percent: usize) -> Result<&mut Client> {
        self.clients.push(Client::new(self.clients.len(), role, loss_percent, self.epoch)?);
        self.clients.last_mut().ok_or_else(|| "no client".into())
    }

    /// Joins, a few at a time.
    fn join(&mut self, role: Role, loss_percent: usize) -> Result<()> {
        self.add(role, loss_percent)?.offer()?;
        let is_done = |clients: &[Client]| clients.iter().filter(|c| !c.is_connected).count() < MAX_UNDER_WAY;
        if !self.turn_until(is_done)? {
            return Err("clients do not connect".into());
        }
        Ok(())
    }

    fn join_all(&mut self, options: &Options) -> Result<()> {
        let role = if options.shape == Shape::Idle { Role::Idle } else { Role::Play };
        let loss_percent = if options.shape == Shape::Loss { options.extra } else { 0 };
        for _ in 0..options.subscribers {
            self.join(role, loss_percent)?;
        }
        if !self.turn_until(|clients| clients.iter().all(|c| c.is_connected))? {
            return Err("not all clients connected".into());
        }
        Ok(())
    }
}

/// Runs a shape; says when phases begin, and at the end what was counted.
pub fn run(options: &Options) -> Result<()> {
    let epoch = Instant::now();
    let mut crowd = Crowd { clients: Vec::new(), video: None, answers: hear(), epoch };
    say_phase("start")?;
    if options.shape != Shape::Idle {
        let is_simulcast = options.shape == Shape::Simulcast;
        crowd.join(Role::Publish { is_simulcast }, 0)?;
        crowd.turn_until(|clients| clients[0].is_connected)?;
        crowd.video = Some(Video::new(epoch, is_simulcast));
        crowd.turn_for(SETTLE)?;
    }
    say_phase("empty")?;
    crowd.join_all(options)?;
    say_phase("joined")?;
    if options.shape == Shape::Idle {
        crowd.turn_for(SETTLE)?;
    } else {
        crowd.turn_for(WARM_UP)?;
    }
    crowd.clients.iter_mut().for_each(|c| c.counts = Default::default());
    let flood = match options.shape {
        Shape::Flood => Some(Flood::start(crowd.target()?, options.extra as u64)?),
        _ => None,
    };
    say_phase("begin")?;
    crowd.turn_for(Duration::from_secs(options.seconds))?;
    say_phase("end")?;
    let flooded = flood.map(Flood::end);
    let mut result = counted(&mut crowd.clients);
    if let Some(sent) = flooded {
        result["flood_datagrams_per_s"] = (sent as f64 / options.seconds as f64).into();
    }
    if options.shape == Shape::Storm {
        storm(&mut crowd, options.extra, &mut result)?;
    }
    say(&json!({ "result": result }))
}

/// All of them offer at once; how long until each has a packet, and what the others lost meanwhile.
fn storm(crowd: &mut Crowd, count: usize, result: &mut Value) -> Result<()> {
    let before = crowd.clients.len();
    for _ in 0..count {
        crowd.add(Role::Play, 0)?;
    }
    crowd.clients.iter_mut().for_each(|c| c.counts = Default::default());
    crowd.turn()?;
    say_phase("storm")?;
    let began = Instant::now();
    crowd.clients[before..].iter_mut().try_for_each(Client::offer)?;
    crowd.turn_until(|clients| clients[before..].iter().all(|c| c.received_at.is_some()))?;
    say_phase("stormed")?;
    crowd.turn_for(SETTLE)?;
    let times = crowd.clients[before..].iter().filter_map(|c| c.received_at);
    let mut seconds: Vec<f64> = times.map(|at| at.duration_since(began).as_secs_f64()).collect();
    seconds.sort_unstable_by(f64::total_cmp);
    let others = counted(&mut crowd.clients[..before]);
    result["storm_receiving"] = seconds.len().into();
    result["storm_s_p50"] = seconds.get(seconds.len() / 2).copied().into();
    result["storm_s"] = seconds.last().copied().into();
    result["storm_loss_of_others"] = others["loss"].clone();
    Ok(())
}

fn counted(clients: &mut [Client]) -> Value {
    let received: u64 = clients.iter().map(|c| c.counts.received).sum();
    let expected: u64 = clients.iter().map(|c| c.counts.expected()).sum();
    let receiving = clients.iter().filter(|c| c.counts.received > 0).count();
    let mut delays: Vec<u32> = clients.iter_mut().flat_map(|c| std::mem::take(&mut c.counts.delays_us)).collect();
    delays.sort_unstable();
    let quantile = |q: f64| delays.get((delays.len() as f64 * q) as usize).map_or(0.0, |us| f64::from(*us) / 1e3);
    json!({
        "received": received,
        "receiving": receiving,
        "loss": if expected == 0 { 0.0 } else { 1.0 - received as f64 / expected as f64 },
        "delay_ms_p50_p95_p99": [quantile(0.5), quantile(0.95), quantile(0.99)],
    })
}
