//! The engine's side: answers the child's offers, and measures this process while the child counts.

use std::collections::HashMap;
use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command as Process, Stdio};
use std::time::{Duration, Instant};

use mrtc_core::command::{Command, Kind, Subscription};
use mrtc_core::event::{Event, Reply};
use mrtc_core::id::{CommandId, TrackId, TransportId};
use mrtc_net::{Engine, EngineConfig, TcpPort};
use serde_json::{Value, json};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const REPLY_TIMEOUT: Duration = Duration::from_secs(10);
/// USER_HZ of Linux.
const TICKS_PER_S: f64 = 100.0;

/// An engine whose commands are waited for.
struct Server {
    engine: Engine,
    replies: HashMap<CommandId, std::result::Result<Reply, mrtc_core::error::Error>>,
}

impl Server {
    fn start() -> Result<Self> {
        let config = EngineConfig {
            workers: 1,
            pin_workers: true,
            bind_ip: [127, 0, 0, 1].into(),
            tcp_port: TcpPort::Off,
            ..EngineConfig::default()
        };
        Ok(Self { engine: Engine::start(config)?, replies: HashMap::new() })
    }

    fn call(&mut self, command: Command) -> Result<Reply> {
        let id = self.engine.submit(command)?;
        let give_up_at = Instant::now() + REPLY_TIMEOUT;
        loop {
            self.collect();
            if let Some(result) = self.replies.remove(&id) {
                return Ok(result?);
            }
            if Instant::now() > give_up_at {
                return Err("the engine does not answer".into());
            }
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    fn collect(&mut self) {
        for event in self.engine.poll_events(1024) {
            if let Event::Reply { command, result } = event {
                self.replies.insert(command, result);
            }
        }
    }

    /// Opens a transport: the first one publishes the track that all others receive.
    fn join(&mut self, index: usize, offer: &str) -> Result<String> {
        let transport = TransportId::from(format!("t{index}"));
        let opened = self.call(Command::CreateTransport {
            transport: transport.clone(),
            room: "bench".into(),
            offer: offer.into(),
            max_egress_bps: None,
        })?;
        let Reply::Answer { answer, lines } = opened else { return Err("no answer".into()) };
        let track = TrackId::from("video");
        if index == 0 {
            let mid = lines[0].mid.clone();
            self.call(Command::PublishTrack { track, transport, mid })?;
        } else {
            self.call(Command::SetSubscriptions { transport, subscriptions: vec![subscription(track)] })?;
        }
        Ok(answer)
    }
}

fn subscription(track: TrackId) -> Subscription {
    Subscription {
        track,
        kind: Kind::Video,
        alternatives: vec![],
        max_height: None,
        max_fps: None,
        is_paused: false,
        priority: 0,
    }
}

/// The child with the clients; one JSON value a line each way.
struct Load {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Load {
    fn start(subscribers: usize, seconds: u64) -> Result<Self> {
        let own = std::env::current_exe()?;
        let cores = std::thread::available_parallelism()?.get();
        let mut process = match cores {
            1 => Process::new(&own),
            _ => {
                let mut taskset = Process::new("taskset");
                taskset.args(["-c", &format!("1-{}", cores - 1)]).arg(&own);
                taskset
            }
        };
        process.args(["--load", "--subscribers", &subscribers.to_string(), "--seconds", &seconds.to_string()]);
        let mut child = process.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let input = child.stdin.take().ok_or("no stdin")?;
        let output = BufReader::new(child.stdout.take().ok_or("no stdout")?);
        Ok(Self { child, input, output })
    }

    fn read(&mut self) -> Result<Value> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        if line.is_empty() {
            return Err("the load ended early".into());
        }
        Ok(serde_json::from_str(&line)?)
    }

    fn write(&mut self, value: &Value) -> Result<()> {
        writeln!(self.input, "{value}")?;
        Ok(self.input.flush()?)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// CPU seconds (user, system) and resident MiB of this process.
fn usage() -> Result<(f64, f64, f64)> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // The name may hold spaces: fields are counted behind its parenthesis.
    let fields: Vec<&str> = stat[stat.rfind(')').ok_or("stat")? + 1..].split_whitespace().collect();
    let seconds = |index: usize| fields[index].parse::<f64>().map(|ticks| ticks / TICKS_PER_S);
    let status = std::fs::read_to_string("/proc/self/status")?;
    let rss = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).ok_or("status")?;
    let kib: f64 = rss.trim_end_matches("kB").trim().parse()?;
    Ok((seconds(11)?, seconds(12)?, kib / 1024.0))
}

/// Runs the bench; the JSON line.
pub fn run(subscribers: usize, seconds: u64) -> Result<String> {
    let mut server = Server::start()?;
    let mut load = Load::start(subscribers, seconds)?;
    for index in 0..=subscribers {
        let offer = load.read()?;
        let answer = server.join(index, offer["offer"].as_str().ok_or("no offer")?)?;
        load.write(&json!({ "answer": answer }))?;
    }
    // The window begins and ends when the child says so.
    load.read()?;
    server.collect();
    let (began, (user, system, _)) = (Instant::now(), usage()?);
    let counted = load.read()?;
    let (window, (user_end, system_end, rss)) = (began.elapsed().as_secs_f64(), usage()?);
    let received = counted["received"].as_f64().ok_or("no count")?;
    let cpu = user_end - user + system_end - system;
    if std::env::var_os("FORWARD_BENCH_FIGURES").is_some() {
        eprintln!("{:#?}", server.engine.counters());
    }
    let line = json!({
        "subs_per_room": subscribers,
        "window_s": window,
        "out_pps": received / window,
        "server_us_per_pkt": cpu * 1e6 / received.max(1.0),
        "server_sys_share_pct": 100.0 * (system_end - system) / cpu.max(1e-9),
        "server_cpu_cores": cpu / window,
        "server_rss_full_mib": rss,
        "loss_pct": counted["loss_pct"],
        "delay_ms_p50_p95_p99": counted["delay_ms"],
        "flows": counted["receiving"],
        "errors": 0,
    });
    server.engine.begin_shutdown();
    server.engine.finish_shutdown();
    Ok(line.to_string())
}
