//! How long publishing stops when a node dies, falls silent, comes back, or is restarted in order.
//!
//! Every partition has a publisher at a steady pace, each message a batch of its own. A partition's *gap* is
//! the longest time between two acknowledgements in a row around the event: it can't be shorter than the pace.
//! *Recovered* is the time from the event to the first acknowledgement of a message that was due after it.

mod pulse;

use crate::cluster::{Cluster, build_of, wait_for_leaders};
use crate::failure::Failure;
use crate::figures::{largest, markdown, median, percentile};
use clap::Args;
use nix::sys::signal::Signal;
use pulse::Pulse;
use quorate_client::{Client, TopicSpec};
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// The topic that is published to.
const TOPIC: &str = "bench-failover";

/// Between two looks whether every partition goes on.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// After every partition went on, what else happens within this time belongs to the event.
const AFTERMATH: Duration = Duration::from_secs(2);

/// A cluster that is healthy again comes to rest within this time.
const REST: Duration = Duration::from_secs(3);

/// What to do to the cluster, and how often.
#[derive(Debug, Args)]
pub struct Failover {
    /// Nodes killed with SIGKILL, by turns
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u32).range(..=1000))]
    kills: u32,
    /// Nodes frozen with SIGSTOP, by turns
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u32).range(..=1000))]
    pauses: u32,
    /// Nodes restarted in order, by turns
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(..=1000))]
    restarts: u32,
    /// Partitions of three replicas each
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    partitions: u32,
    /// Messages per second to each partition
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rate: u32,
    /// How long a node stays frozen, in seconds
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u64).range(1..=600))]
    pause_seconds: u64,
    /// An event from which a partition hasn't recovered after so many seconds ends the run
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    patience: u64,
    /// One JSON object per line instead of tables
    #[arg(long)]
    json: bool,
}

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Kill,
    Return,
    Pause,
    Resume,
    Restart,
}

/// What one event did to the partitions that it concerned. All in milliseconds, one figure per partition.
#[derive(Debug)]
struct Event {
    kind: Kind,
    node: u64,
    gaps: Vec<f64>,
    recovered: Vec<f64>,
    /// The longest gap of the partitions that the event did not concern.
    others: f64,
}

impl Failover {
    /// Does it, and prints how long publishing stopped.
    ///
    /// # Errors
    /// If the cluster can't be started, or a partition doesn't recover.
    pub async fn run(&self, quorate: &Path) -> Result<(), Failure> {
        let cluster = Cluster::start(quorate, 3)?;
        let client = cluster.client()?;
        let spec =
            TopicSpec { partitions: Some(self.partitions), replication_factor: Some(3), ..TopicSpec::named(TOPIC) };
        client.topics().create(spec).await?;
        wait_for_leaders(&client, TOPIC).await?;
        if !self.json {
            println!("{}; {} partitions × 3, {} messages/s to each\n", build_of(quorate)?, self.partitions, self.rate);
        }
        let pulse = Pulse::start(&client, TOPIC, self.partitions, self.rate).await?;
        let run = Run { options: self, cluster, client, pulse };
        let mut events = Vec::new();
        for turn in 0..self.kills {
            run.kill(turn, &mut events).await?;
        }
        for turn in 0..self.pauses {
            run.pause(turn, &mut events).await?;
        }
        for turn in 0..self.restarts {
            run.restart(turn, &mut events).await?;
        }
        let errors = run.pulse.stop().await;
        if self.json {
            events.iter().for_each(|event| println!("{}", event.json()));
            Kind::ALL.into_iter().filter_map(|kind| summary(kind, &events)).for_each(|row| println!("{}", row.json()));
        } else {
            let rows: Vec<Vec<String>> = events.iter().map(Event::cells).collect();
            println!("{}", markdown(&Event::HEADER, &rows));
            let rows: Vec<Vec<String>> =
                Kind::ALL.into_iter().filter_map(|kind| summary(kind, &events)).map(|row| row.cells()).collect();
            println!("{}", markdown(&Summary::HEADER, &rows));
            println!("messages without an acknowledgement: {}", errors.unwrap_or_else(|| "none".to_owned()));
        }
        Ok(())
    }
}

/// A run under way.
struct Run<'a> {
    options: &'a Failover,
    cluster: Cluster,
    client: Client,
    pulse: Pulse,
}

impl Run<'_> {
    async fn kill(&self, turn: u32, events: &mut Vec<Event>) -> Result<(), Failure> {
        let (node, pid) = self.next_victim(turn).await?;
        let led = self.led_by(node).await?;
        let kill = || self.cluster.signal(pid, Signal::SIGKILL);
        events.push(self.event(Kind::Kill, node, &led, Duration::ZERO, kill).await?);
        events.push(self.event(Kind::Return, node, &self.all(), Duration::ZERO, || self.bring_back(node)).await?);
        Ok(())
    }

    async fn pause(&self, turn: u32, events: &mut Vec<Event>) -> Result<(), Failure> {
        let (node, pid) = self.next_victim(turn).await?;
        let led = self.led_by(node).await?;
        let frozen = Duration::from_secs(self.options.pause_seconds);
        let freeze = || self.cluster.signal(pid, Signal::SIGSTOP);
        let paused = self.event(Kind::Pause, node, &led, frozen, freeze).await;
        let thaw = || self.cluster.signal(pid, Signal::SIGCONT);
        // Thawed whatever happened: a frozen process can't be stopped in order.
        let resumed = self.event(Kind::Resume, node, &self.all(), Duration::ZERO, thaw).await;
        events.extend([paused?, resumed?]);
        Ok(())
    }

    async fn restart(&self, turn: u32, events: &mut Vec<Event>) -> Result<(), Failure> {
        let (node, _) = self.next_victim(turn).await?;
        events.push(self.event(Kind::Restart, node, &self.all(), Duration::ZERO, || self.bring_back(node)).await?);
        Ok(())
    }

    /// The node whose turn it is, with its process, in a cluster that is healthy and at rest.
    async fn next_victim(&self, turn: u32) -> Result<(u64, i32), Failure> {
        self.cluster.wait_healthy()?;
        sleep(REST).await;
        let nodes = self.cluster.nodes();
        let node = nodes[turn as usize % nodes.len()].id;
        let pid = self.cluster.pid(node)?.ok_or_else(|| Failure::new(format!("node {node} has ended by itself")))?;
        Ok((node, pid))
    }

    fn bring_back(&self, node: u64) -> Result<(), Failure> {
        self.cluster.restart(node)?;
        self.cluster.wait_healthy()
    }

    /// The partitions that a node leads now.
    async fn led_by(&self, node: u64) -> Result<Vec<usize>, Failure> {
        let view = self.client.cluster().get().await?;
        let topic = view.topic(TOPIC).ok_or_else(|| Failure::new(format!("topic {TOPIC} is gone")))?;
        let leaders = topic.partitions.iter().map(|partition| partition.leadership.node.map(|leader| leader.get()));
        Ok(leaders.enumerate().filter(|(_, leader)| *leader == Some(node)).map(|(partition, _)| partition).collect())
    }

    fn all(&self) -> Vec<usize> {
        (0..self.options.partitions as usize).collect()
    }

    /// Does something to the cluster and watches until every partition goes on, and for `at_least` so long.
    async fn event(
        &self,
        kind: Kind,
        node: u64,
        concerned: &[usize],
        at_least: Duration,
        act: impl FnOnce() -> Result<(), Failure>,
    ) -> Result<Event, Failure> {
        self.pulse.forget();
        // One beat of every partition before the event, so that every gap has a beginning.
        self.until_all_beat_since(Instant::now(), kind, node).await?;
        let begun = Instant::now();
        act()?;
        self.until_all_beat_since(Instant::now(), kind, node).await?;
        sleep(AFTERMATH.max(at_least.saturating_sub(begun.elapsed()))).await;
        let seen = self.pulse.seen_since(begun);
        let ms = |time: Duration| (time.as_secs_f64() * 10_000.0).round() / 10.0;
        let of = |partitions: &mut dyn Iterator<Item = usize>| -> Vec<f64> {
            partitions.map(|partition| ms(seen[partition].gap)).collect()
        };
        let event = Event {
            kind,
            node,
            gaps: of(&mut concerned.iter().copied()),
            recovered: concerned.iter().map(|partition| ms(seen[*partition].recovered)).collect(),
            others: largest(&of(&mut (0..seen.len()).filter(|partition| !concerned.contains(partition)))),
        };
        eprintln!("{}", event.line());
        Ok(event)
    }

    async fn until_all_beat_since(&self, moment: Instant, kind: Kind, node: u64) -> Result<(), Failure> {
        let patience = Duration::from_secs(self.options.patience);
        loop {
            let silent = self.pulse.silent_since(moment);
            if silent.is_empty() {
                return Ok(());
            }
            if moment.elapsed() > patience {
                let count = silent.len();
                let what = format!(
                    "{} of node {node}: {count} partitions, such as {}, have acknowledged nothing for {patience:?}",
                    kind.name(),
                    silent[0]
                );
                return Err(Failure::new(what));
            }
            sleep(LOOK_EVERY).await;
        }
    }
}

impl Kind {
    const ALL: [Kind; 5] = [Kind::Kill, Kind::Return, Kind::Pause, Kind::Resume, Kind::Restart];

    fn name(self) -> &'static str {
        match self {
            Kind::Kill => "kill -9",
            Kind::Return => "return after kill -9",
            Kind::Pause => "freeze",
            Kind::Resume => "thaw",
            Kind::Restart => "restart in order",
        }
    }
}

impl Event {
    const HEADER: [&'static str; 8] = [
        "event",
        "node",
        "partitions",
        "gap median ms",
        "gap max ms",
        "recovered median ms",
        "recovered max ms",
        "others' max ms",
    ];

    fn cells(&self) -> Vec<String> {
        let figures =
            [median(&self.gaps), largest(&self.gaps), median(&self.recovered), largest(&self.recovered), self.others];
        let counts = [self.kind.name().to_owned(), self.node.to_string(), self.gaps.len().to_string()];
        counts.into_iter().chain(figures.map(|ms| format!("{ms:.0}"))).collect()
    }

    fn line(&self) -> String {
        let (kind, node, concerned) = (self.kind.name(), self.node, self.gaps.len());
        let (median, max) = (median(&self.gaps), largest(&self.gaps));
        format!("{kind} of node {node}: gap over {concerned} partitions median {median:.0} ms, max {max:.0} ms")
    }

    fn json(&self) -> Value {
        json!({
            "bench": "failover", "event": self.kind.name(), "node_id": self.node, "partitions": self.gaps.len(),
            "gap_ms": {"median": median(&self.gaps), "max": largest(&self.gaps)},
            "recovered_ms": {"median": median(&self.recovered), "max": largest(&self.recovered)},
            "others_gap_ms_max": self.others,
        })
    }
}

/// All events of a kind.
struct Summary {
    kind: Kind,
    events: usize,
    medians: Vec<f64>,
    maxima: Vec<f64>,
    recovered: Vec<f64>,
}

fn summary(kind: Kind, events: &[Event]) -> Option<Summary> {
    let of_kind: Vec<&Event> = events.iter().filter(|event| event.kind == kind && !event.gaps.is_empty()).collect();
    (!of_kind.is_empty()).then(|| Summary {
        kind,
        events: of_kind.len(),
        medians: of_kind.iter().map(|event| median(&event.gaps)).collect(),
        maxima: of_kind.iter().map(|event| largest(&event.gaps)).collect(),
        recovered: of_kind.iter().flat_map(|event| event.recovered.iter().copied()).collect(),
    })
}

impl Summary {
    const HEADER: [&'static str; 5] = [
        "over events",
        "events",
        "median gap p50 / p99 / max ms",
        "max gap p50 / p99 / max ms",
        "recovered p50 / p99 / max ms",
    ];

    fn cells(&self) -> Vec<String> {
        let three = |figures: &[f64]| three(figures).map(|ms| format!("{ms:.0}")).join(" / ");
        let counts = [self.kind.name().to_owned(), self.events.to_string()];
        counts.into_iter().chain([three(&self.medians), three(&self.maxima), three(&self.recovered)]).collect()
    }

    fn json(&self) -> Value {
        let row = |figures: &[f64]| {
            let [p50, p99, max] = three(figures);
            json!({"p50": p50, "p99": p99, "max": max})
        };
        json!({
            "bench": "failover", "summary": self.kind.name(), "events": self.events,
            "median_gap_ms": row(&self.medians), "max_gap_ms": row(&self.maxima), "recovered_ms": row(&self.recovered),
        })
    }
}

fn three(figures: &[f64]) -> [f64; 3] {
    [median(figures), percentile(figures, 0.99), largest(figures)]
}
