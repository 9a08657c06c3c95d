//! The engine's side: answers the child's offers, and measures this process while the child counts.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command as Process, Stdio};
use std::time::{Duration, Instant};

use mrtc_core::command::{Caps, Command, Kind, Subscription};
use mrtc_core::event::{Event, Reply};
use mrtc_core::id::{CommandId, TrackId, TransportId};
use mrtc_net::{Engine, EngineConfig, TcpPort};
use serde_json::{Value, json};

use crate::client::Result;
use crate::{Options, Shape};

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
            for event in self.engine.poll_events(1024) {
                if let Event::Reply { command, result } = event {
                    self.replies.insert(command, result);
                }
            }
            if let Some(result) = self.replies.remove(&id) {
                return Ok(result?);
            }
            if Instant::now() > give_up_at {
                return Err("the engine does not answer".into());
            }
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    /// Opens a transport; players receive what was published.
    fn join(&mut self, line: &Value) -> Result<Value> {
        let (client, role) = (&line["client"], line["role"].as_str().ok_or("no role")?);
        let transport = TransportId::from(format!("t{client}"));
        let opened = self.call(Command::CreateTransport {
            transport: transport.clone(),
            room: "bench".into(),
            offer: line["offer"].as_str().ok_or("no offer")?.into(),
            caps: Caps::default(),
        })?;
        let Reply::Answer { answer, lines } = opened else { return Err("no answer".into()) };
        let track = TrackId::from("video");
        match role {
            "publish" => {
                let mid = lines[0].mid.clone();
                self.call(Command::PublishTrack { track, transport, mid })?;
            }
            "play" => {
                self.call(Command::SetSubscriptions {
                    transport,
                    subscriptions: vec![subscription(track)],
                    audio_top_n: 0,
                })?;
            }
            _ => {}
        }
        Ok(json!({ "client": client, "answer": answer }))
    }

    fn figure(&self, name: &str) -> u64 {
        let all = self.engine.counters();
        all.iter().flatten().filter(|(found, _)| *found == name).map(|(_, value)| value).sum()
    }
}

fn subscription(track: TrackId) -> Subscription {
    Subscription {
        track,
        kind: Kind::Video,
        alternatives: vec![],
        formers: vec![],
        max_height: None,
        max_fps: None,
        is_paused: false,
        priority: 0,
    }
}

/// The child with the peers; one JSON value a line each way.
struct Load {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Load {
    fn start() -> Result<Self> {
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
        process.args(std::env::args().skip(1)).arg("--load");
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

/// This process at the beginning of a phase.
#[derive(Clone, Copy, Debug)]
struct Mark {
    at: Instant,
    cpu_s: f64,
    rss_kib: f64,
    worker_us: u64,
}

impl Mark {
    fn now(server: &Server) -> Result<Self> {
        let stat = std::fs::read_to_string("/proc/self/stat")?;
        // The name may hold spaces: fields are counted behind its parenthesis.
        let fields: Vec<&str> = stat[stat.rfind(')').ok_or("stat")? + 1..].split_whitespace().collect();
        let seconds = |index: usize| fields[index].parse::<f64>().map(|ticks| ticks / TICKS_PER_S);
        let status = std::fs::read_to_string("/proc/self/status")?;
        let rss = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).ok_or("status")?;
        Ok(Self {
            at: Instant::now(),
            cpu_s: seconds(11)? + seconds(12)?,
            rss_kib: rss.trim_end_matches("kB").trim().parse()?,
            worker_us: server.figure("busy_us"),
        })
    }
}

/// Runs the bench; the JSON line.
pub fn run(options: &Options) -> Result<String> {
    let mut server = Server::start()?;
    let mut load = Load::start()?;
    let mut marks = HashMap::new();
    let result = loop {
        let line = load.read()?;
        if let Some(phase) = line["phase"].as_str() {
            marks.insert(phase.to_owned(), Mark::now(&server)?);
        } else if line["offer"].is_string() {
            let answer = server.join(&line)?;
            load.write(&answer)?;
        } else {
            break line["result"].clone();
        }
    };
    if std::env::var_os("FORWARD_BENCH_FIGURES").is_some() {
        eprintln!("{:#?}", server.engine.counters());
    }
    let line = figures(options, &marks, result)?;
    server.engine.begin_shutdown();
    server.engine.finish_shutdown();
    Ok(line.to_string())
}

fn figures(options: &Options, marks: &HashMap<String, Mark>, mut result: Value) -> Result<Value> {
    let mark = |name: &str| marks.get(name).copied().ok_or("a phase is missing");
    let (empty, begin, end) = (mark("empty")?, mark("begin")?, mark("end")?);
    let received = result["received"].as_f64().ok_or("no count")?;
    let window = (end.at - begin.at).as_secs_f64();
    let participants = options.subscribers as f64;
    result["packets_per_s"] = (received / window).into();
    result["cpu_us_per_packet"] = ((end.cpu_s - begin.cpu_s) * 1e6 / received.max(1.0)).into();
    result["cpu_cores"] = ((end.cpu_s - begin.cpu_s) / window).into();
    result["rss_mib"] = (end.rss_kib / 1024.0).into();
    result["kib_per_subscriber"] = ((end.rss_kib - empty.rss_kib) / participants).into();
    if options.shape == Shape::Idle {
        result["cpu_ms_per_join"] = ((begin.worker_us - empty.worker_us) as f64 / 1e3 / participants).into();
    }
    Ok(result)
}
