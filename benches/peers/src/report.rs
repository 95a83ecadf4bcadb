//! Medians over rounds, and ratios of what was measured in the same round.

use crate::Peer;
use crate::workload::{Measured, Workload};
use quorate_benches::figures::{largest, markdown, median};
use serde_json::json;
use std::collections::BTreeMap;

/// Everything that was measured in the run.
#[derive(Default)]
pub(crate) struct Results {
    about: BTreeMap<Peer, [String; 2]>,
    /// By workload and peer, one per round.
    measured: BTreeMap<(usize, Peer), Vec<Measured>>,
}

/// A line for whoever waits.
pub(crate) fn line(peer: Peer, round: u32, workload: &Workload, measured: &Measured) -> String {
    let Measured { per_second, p50_ms, p99_ms, errors } = measured;
    let (name, title) = (peer.name(), workload.title);
    let errors = if errors.is_empty() { String::new() } else { format!(", errors {errors:?}") };
    format!("round {round}, {name}, {title}: {per_second:.0}/s, p50 {p50_ms:.2} ms, p99 {p99_ms:.2} ms{errors}")
}

impl Results {
    pub(crate) fn take_part(&mut self, peer: Peer, about: [String; 2]) {
        self.about.insert(peer, about);
    }

    pub(crate) fn peers(&self) -> Vec<Peer> {
        self.about.keys().copied().collect()
    }

    pub(crate) fn add(&mut self, peer: Peer, workload: usize, measured: Measured) {
        self.measured.entry((workload, peer)).or_default().push(measured);
    }

    pub(crate) fn print(&self, workloads: &[Workload], as_json: bool) {
        if as_json {
            self.print_json(workloads);
            return;
        }
        let rows: Vec<Vec<String>> = self.about.iter().map(|(peer, about)| with(peer.name(), about.clone())).collect();
        println!("{}", markdown(&["broker", "version", "durability"], &rows));
        for (number, workload) in workloads.iter().enumerate() {
            println!("### {}", workload.title);
            println!("\n{} logs × 3 replicas, {} bytes per message\n", workload.logs, workload.message_bytes);
            let rows: Vec<Vec<String>> = self.peers().iter().filter_map(|peer| self.row(number, *peer)).collect();
            let header = [
                "broker",
                "messages/s median (min–max)",
                "p50 ms",
                "p99 ms",
                "Quorate / it: messages/s",
                "p50",
                "p99",
                "errors",
            ];
            println!("{}", markdown(&header, &rows));
        }
    }

    fn row(&self, workload: usize, peer: Peer) -> Option<Vec<String>> {
        let measured = self.measured.get(&(workload, peer))?;
        let all = |of: fn(&Measured) -> f64| measured.iter().map(of).collect::<Vec<f64>>();
        let per_second = all(|one| one.per_second);
        let smallest = per_second.iter().copied().fold(f64::INFINITY, f64::min);
        let throughput = format!("{:.0} ({smallest:.0}–{:.0})", median(&per_second), largest(&per_second));
        let ratio = |of: fn(&Measured) -> f64| match self.ratio(workload, peer, of) {
            Some(ratio) if peer != Peer::Quorate => format!("{ratio:.2}"),
            _ => "–".to_owned(),
        };
        let errors: u64 = measured.iter().flat_map(|one| one.errors.values()).sum();
        Some(with(
            peer.name(),
            [
                throughput,
                format!("{:.2}", median(&all(|one| one.p50_ms))),
                format!("{:.2}", median(&all(|one| one.p99_ms))),
                ratio(|one| one.per_second),
                ratio(|one| one.p50_ms),
                ratio(|one| one.p99_ms),
                errors.to_string(),
            ],
        ))
    }

    /// Quorate's figure over the peer's, round by round, then the median.
    fn ratio(&self, workload: usize, peer: Peer, of: fn(&Measured) -> f64) -> Option<f64> {
        let ours = self.measured.get(&(workload, Peer::Quorate))?;
        let theirs = self.measured.get(&(workload, peer))?;
        let ratios: Vec<f64> = ours.iter().zip(theirs).map(|(ours, theirs)| of(ours) / of(theirs)).collect();
        Some(median(&ratios))
    }

    fn print_json(&self, workloads: &[Workload]) {
        for ((workload, peer), rounds) in &self.measured {
            let [version, durability] = &self.about[peer];
            for (round, one) in (1..).zip(rounds) {
                let Measured { per_second, p50_ms, p99_ms, errors } = one;
                let row: serde_json::Value = json!({
                    "bench": "peers", "broker": peer.name(), "version": version, "durability": durability,
                    "workload": workloads[*workload].title, "logs": workloads[*workload].logs, "round": round,
                    "messages_per_second": per_second, "p50_ms": p50_ms, "p99_ms": p99_ms, "errors": errors,
                });
                println!("{row}");
            }
        }
    }
}

fn with<const COUNT: usize>(first: &str, rest: [String; COUNT]) -> Vec<String> {
    [first.to_owned()].into_iter().chain(rest).collect()
}
