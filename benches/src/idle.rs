//! What a cluster costs that nobody uses: processor and memory per node, with all nodes and with one dead.

use crate::cluster::{Cluster, build_of, wait_for_leaders};
use crate::failure::Failure;
use crate::figures::markdown;
use crate::usage::Usage;
use clap::Args;
use nix::sys::signal::Signal;
use quorate_client::TopicSpec;
use serde_json::json;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// Rows of a table, however long it was looked.
const ROWS: u64 = 6;

/// What to look at.
#[derive(Debug, Args)]
pub struct Idle {
    /// Partitions of three replicas each
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1000))]
    partitions: u32,
    /// How long to look, once with all nodes and once with one dead
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(6..=3600))]
    seconds: u64,
    /// How long the cluster may come to rest before
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u64).range(0..=600))]
    settle: u64,
    /// One JSON object per line instead of tables
    #[arg(long)]
    json: bool,
}

impl Idle {
    /// Looks, and prints what it saw.
    ///
    /// # Errors
    /// If the cluster can't be started or a node ends by itself.
    pub async fn run(&self, quorate: &Path) -> Result<(), Failure> {
        let cluster = Cluster::start(quorate, 3)?;
        let client = cluster.client()?;
        let spec = TopicSpec {
            partitions: Some(self.partitions),
            replication_factor: Some(3),
            ..TopicSpec::named("bench-idle")
        };
        client.topics().create(spec).await?;
        wait_for_leaders(&client, "bench-idle").await?;
        // A client follows the cluster map, which is not nothing: nobody should be there.
        drop(client);
        if !self.json {
            println!("{}; {} partitions × 3, nobody connected\n", build_of(quorate)?, self.partitions);
        }
        let all: Vec<u64> = cluster.nodes().iter().map(|node| node.id).collect();
        self.look(&cluster, &all, "all nodes").await?;
        let Some((victim, survivors)) = all.split_last() else { return Ok(()) };
        let pid = cluster.pid(*victim)?.ok_or_else(|| Failure::new(format!("node {victim} has ended")))?;
        cluster.signal(pid, Signal::SIGKILL)?;
        self.look(&cluster, survivors, "one node dead").await
    }

    async fn look(&self, cluster: &Cluster, nodes: &[u64], state: &str) -> Result<(), Failure> {
        sleep(Duration::from_secs(self.settle)).await;
        let mut pids = Vec::new();
        for id in nodes {
            pids.push(cluster.pid(*id)?.ok_or_else(|| Failure::new(format!("node {id} has ended")))?);
        }
        let begun = Instant::now();
        let first = usages(&pids)?;
        let (mut before, mut at) = (first.clone(), begun);
        let mut rows = Vec::new();
        for step in 1..=ROWS {
            let until = Duration::from_secs(self.seconds * step / ROWS);
            sleep(until.saturating_sub(begun.elapsed())).await;
            let (now, after) = (Instant::now(), usages(&pids)?);
            rows.push((begun.elapsed().as_secs(), shares(&before, &after, now - at), after.clone()));
            (before, at) = (after, now);
        }
        let overall = shares(&first, &before, begun.elapsed());
        if self.json {
            for (seconds, cpu, usage) in &rows {
                for ((node, cpu), usage) in nodes.iter().zip(cpu).zip(usage) {
                    let mib = usage.resident_kib / 1024;
                    println!(
                        "{}",
                        json!({"bench": "idle", "state": state, "partitions": self.partitions,
                        "seconds": seconds, "node_id": node, "cpu_percent": cpu, "resident_mib": mib})
                    );
                }
            }
            return Ok(());
        }
        let cells = |cpu: &[f64], usage: &[Usage]| -> Vec<String> {
            let cell = |(cpu, usage): (&f64, &Usage)| format!("{cpu:.2} %, {} MiB", usage.resident_kib / 1024);
            cpu.iter().zip(usage).map(cell).collect()
        };
        let titles: Vec<String> = nodes.iter().map(|node| format!("node {node}")).collect();
        let header: Vec<&str> = [state].into_iter().chain(titles.iter().map(String::as_str)).collect();
        let mut table: Vec<Vec<String>> = Vec::new();
        for (seconds, cpu, usage) in &rows {
            table.push([vec![format!("after {seconds} s")], cells(cpu, usage)].concat());
        }
        table.push([vec!["the whole time".to_owned()], cells(&overall, &before)].concat());
        println!("{}", markdown(&header, &table));
        Ok(())
    }
}

fn usages(pids: &[i32]) -> Result<Vec<Usage>, Failure> {
    pids.iter().map(|pid| Usage::of(*pid)).collect()
}

/// Percent of one core, per process.
fn shares(before: &[Usage], after: &[Usage], elapsed: Duration) -> Vec<f64> {
    let share = |(before, after): (&Usage, &Usage)| {
        let percent = (after.cpu.saturating_sub(before.cpu)).as_secs_f64() / elapsed.as_secs_f64() * 100.0;
        (percent * 100.0).round() / 100.0
    };
    before.iter().zip(after).map(share).collect()
}
