//! The same load against Quorate and against other brokers, in one run: three nodes each, three replicas of
//! everything, rounds interleaved. Only ratios of one run mean anything. Run by `cargo xtask bench peers`.
//!
//! - [`workload`]: the load, the same code for all
//! - [`quorate`], [`nats`], [`rabbitmq`], [`kafka`]: starting three nodes, and publishing with the usual client
//! - [`processes`]: what is started here ends here
//! - [`report`]: medians and ratios

mod kafka;
mod nats;
mod processes;
mod quorate;
mod rabbitmq;
mod report;
mod workload;

use clap::{Parser, ValueEnum};
use kafka::Kafka;
use nats::Nats;
use quorate::Quorate;
use quorate_benches::failure::Failure;
use rabbitmq::RabbitMq;
use report::Results;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use workload::{Publish, Workload};

/// Compares brokers on this machine: throughput and latency of replicated publishing.
#[derive(Debug, Parser)]
#[command(name = "peers")]
struct Arguments {
    /// The `quorate` binary
    #[arg(long, value_name = "FILE")]
    quorate: PathBuf,
    /// Only these; Quorate always takes part [default: all that are found]
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Peer>,
    /// Every broker is started afresh in each round
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Seconds that each load is measured in each round
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u64).range(1..=600))]
    duration: u64,
    /// Seconds before, in which nothing is measured
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(0..=600))]
    warm_up: u64,
    /// Payload of a message
    #[arg(long, value_name = "BYTES", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    size: u32,
    /// Partitions or streams with one message in flight each; Quorate and NATS only. 0: leave it out
    #[arg(long, value_name = "COUNT", default_value_t = 500, value_parser = clap::value_parser!(u32).range(0..=1000))]
    sparse: u32,
    /// One JSON object per measurement instead of tables
    #[arg(long)]
    json: bool,

    /// The NATS server to start [default: the one in PATH]
    #[arg(long, value_name = "FILE", default_value = "nats-server", env = "NATS_SERVER")]
    nats_server: String,
    /// A NATS cluster that runs: addresses, separated by commas
    #[arg(long, value_name = "HOST:PORT,…", env = "NATS_ADDRESS")]
    nats: Option<String>,
    /// The RabbitMQ server script to start [default: the one that is installed]
    #[arg(long, value_name = "FILE", env = "RABBITMQ_SERVER")]
    rabbitmq_server: Option<String>,
    /// A RabbitMQ cluster that runs: AMQP URIs, separated by commas
    #[arg(long, value_name = "URI,…", env = "RABBITMQ_ADDRESS")]
    rabbitmq: Option<String>,
    /// Where Kafka is unpacked: a folder with `libs` in it
    #[arg(long, value_name = "DIR", env = "KAFKA_HOME")]
    kafka_home: Option<PathBuf>,
    /// A Kafka cluster that runs: bootstrap addresses, separated by commas
    #[arg(long, value_name = "HOST:PORT,…", env = "KAFKA_ADDRESS")]
    kafka: Option<String>,
}

/// Who takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
enum Peer {
    Quorate,
    Nats,
    Rabbitmq,
    Kafka,
}

/// A broker that runs.
enum Running {
    Quorate(Quorate),
    Nats(Nats),
    RabbitMq(RabbitMq),
    Kafka(Kafka),
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match stoppable(arguments.run()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// Dropped when the program is told to stop, the run takes its processes along.
async fn stoppable(run: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        outcome = run => outcome,
        _ = tokio::signal::ctrl_c() => Err(Failure::new("stopped before the end")),
        _ = terminate.recv() => Err(Failure::new("stopped before the end")),
    }
}

impl Arguments {
    async fn run(&self) -> Result<(), Failure> {
        let mut results = Results::default();
        for peer in [Peer::Quorate, Peer::Nats, Peer::Rabbitmq, Peer::Kafka] {
            let wanted = self.only.is_empty() || self.only.contains(&peer) || peer == Peer::Quorate;
            match self.about(peer)? {
                Some(about) if wanted => results.take_part(peer, about),
                None if wanted => eprintln!("{} is left out: {}", peer.name(), peer.how_to_install()),
                _ => {}
            }
        }
        let workloads = self.workloads();
        let mut peers = results.peers();
        for round in 1..=self.rounds {
            for peer in peers.clone() {
                match self.measure(peer, round, &workloads, &mut results).await {
                    Err(failure) if peer == Peer::Quorate => return Err(failure),
                    // The others' figures stand without it. It is out: figures are compared by round.
                    Err(failure) => {
                        eprintln!("{} is left out from round {round} on: {failure}", peer.name());
                        peers.retain(|other| *other != peer);
                    }
                    Ok(()) => {}
                }
            }
        }
        results.print(&workloads, self.json);
        Ok(())
    }

    async fn measure(
        &self,
        peer: Peer,
        round: u32,
        workloads: &[Workload],
        results: &mut Results,
    ) -> Result<(), Failure> {
        let running = self.start(peer).await?;
        for (number, workload) in workloads.iter().enumerate().filter(|(_, workload)| peer.does(workload)) {
            let lanes = running.lanes(&format!("bench-{round}-{number}"), workload).await?;
            let measured = workload.run(lanes).await?;
            eprintln!("{}", report::line(peer, round, workload, &measured));
            results.add(peer, number, measured);
        }
        Ok(())
    }

    fn workloads(&self) -> Vec<Workload> {
        let full = Workload {
            title: "4 publishers × 256 in flight",
            logs: 4,
            connections: 4,
            in_flight: 256,
            message_bytes: self.size as usize,
            warm_up: Duration::from_secs(self.warm_up),
            duration: Duration::from_secs(self.duration),
        };
        let single = Workload { title: "4 publishers × 1 in flight", in_flight: 1, ..full };
        let sparse = Workload { title: "one in flight on each of many logs", logs: self.sparse as usize, ..single };
        [full, single, sparse].into_iter().filter(|workload| workload.logs > 0).collect()
    }

    /// Version and durability; `None` if it can't be had here.
    fn about(&self, peer: Peer) -> Result<Option<[String; 2]>, Failure> {
        let running = |durability: String| Some(["a cluster that was running already".to_owned(), durability]);
        Ok(match peer {
            Peer::Quorate => Some(Quorate::about(&self.quorate)?),
            Peer::Nats if self.nats.is_some() => running("as it is configured".to_owned()),
            Peer::Nats => Nats::about(&self.nats_server),
            Peer::Rabbitmq if self.rabbitmq.is_some() => running(RabbitMq::durability()),
            Peer::Rabbitmq => RabbitMq::script(self.rabbitmq_server.as_deref()).as_deref().map(RabbitMq::about),
            Peer::Kafka if self.kafka.is_some() => running(Kafka::durability()),
            Peer::Kafka => self.kafka_home.as_deref().and_then(Kafka::about),
        })
    }

    async fn start(&self, peer: Peer) -> Result<Running, Failure> {
        let missing = || Failure::new(format!("{} has gone since the run began", peer.name()));
        Ok(match peer {
            Peer::Quorate => Running::Quorate(Quorate::start(&self.quorate)?),
            Peer::Nats => Running::Nats(match &self.nats {
                Some(servers) => Nats::at(servers),
                None => Nats::start(&self.nats_server).await?,
            }),
            Peer::Rabbitmq => Running::RabbitMq(match &self.rabbitmq {
                Some(uris) => RabbitMq::at(uris),
                None => {
                    let script = RabbitMq::script(self.rabbitmq_server.as_deref());
                    RabbitMq::start(&script.ok_or_else(missing)?).await?
                }
            }),
            Peer::Kafka => Running::Kafka(match &self.kafka {
                Some(bootstrap) => Kafka::at(bootstrap),
                None => Kafka::start(self.kafka_home.as_deref().map(Path::new).ok_or_else(missing)?).await?,
            }),
        })
    }
}

impl Running {
    async fn lanes(&self, name: &str, workload: &Workload) -> Result<Vec<Publish>, Failure> {
        match self {
            Running::Quorate(quorate) => quorate.lanes(name, workload).await,
            Running::Nats(nats) => nats.lanes(name, workload).await,
            Running::RabbitMq(rabbitmq) => rabbitmq.lanes(name, workload).await,
            Running::Kafka(kafka) => kafka.lanes(name, workload).await,
        }
    }
}

impl Peer {
    fn name(self) -> &'static str {
        match self {
            Peer::Quorate => "Quorate",
            Peer::Nats => "NATS JetStream",
            Peer::Rabbitmq => "RabbitMQ",
            Peer::Kafka => "Kafka",
        }
    }

    fn how_to_install(self) -> &'static str {
        match self {
            Peer::Quorate => "build it with `cargo xtask dev`",
            Peer::Nats => "`apt-get install nats-server` on Debian, or name one with --nats-server",
            Peer::Rabbitmq => "`apt-get install rabbitmq-server` on Debian, or name one with --rabbitmq-server",
            Peer::Kafka => "unpack Kafka, install a Java runtime, and name the folder with --kafka-home or KAFKA_HOME",
        }
    }

    /// Thousands of queues are not what the other two are made for.
    fn does(self, workload: &Workload) -> bool {
        workload.logs <= 4 || matches!(self, Peer::Quorate | Peer::Nats)
    }
}
