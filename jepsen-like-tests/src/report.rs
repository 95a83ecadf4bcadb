//! What a run says of itself, in numbers.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::history::{Action, History, Phase};

/// Numbers of one run, or of several added up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Time in all, of the world.
    pub took_ms: u64,
    /// Operations by kind and end.
    pub operations: BTreeMap<String, u64>,
    /// Messages that were acknowledged.
    pub acknowledged: u64,
    /// Batches that publishers sent again.
    pub repeated_batches: u64,
    /// Records that readers saw.
    pub records_read: u64,
    /// Deliveries that weren't the first of their message.
    pub redeliveries: u64,
    /// By fault: how often it began, and how often it took effect.
    pub faults: BTreeMap<String, (u64, u64)>,
    /// What each fault of the run did, by its number.
    pub schedule: BTreeMap<u32, String>,
}

impl Report {
    /// Of a history.
    #[must_use]
    pub fn of(history: &History, took_ms: u64) -> Self {
        let mut report = Self { took_ms, ..Self::default() };
        for event in &history.events {
            let kind = match &event.action {
                Action::Create { .. } => "create",
                Action::Publish { .. } | Action::PublishTo { .. } => "publish",
                Action::Read { seen, .. } => {
                    report.records_read += seen.len() as u64;
                    "read"
                }
                Action::Transfer { .. } => "transfer",
                Action::Topic { .. } => "topic",
                Action::Found { .. } => "found",
                Action::Subscription { .. } => "subscription",
                Action::Deliver { attempt, .. } => {
                    report.redeliveries += u64::from(*attempt > 1);
                    "delivery"
                }
                Action::Acknowledge { .. } => "ack",
                Action::Return { .. } => "return",
                Action::Emptied { .. } => "emptied",
                Action::DeadLetter { .. } => "dead letter",
                Action::DeadLetters { .. } => "read of dead letters",
                Action::Repeated { batches, .. } => {
                    report.repeated_batches += batches;
                    continue;
                }
                Action::Fault { number, fault, detail, .. } => {
                    let what = || format!("{} ms, {fault}: {detail}", event.at_ms);
                    report.schedule.entry(*number).or_insert_with(what);
                    let (begun, effective) = report.faults.entry(fault.clone()).or_default();
                    *begun += u64::from(event.phase == Phase::Invoke);
                    *effective += u64::from(event.phase == Phase::Ok);
                    continue;
                }
                Action::Plan(_)
                | Action::Healed
                | Action::Compared { .. }
                | Action::Invariant { .. }
                | Action::Resources { .. }
                | Action::Broken { .. } => continue,
            };
            if event.phase != Phase::Invoke {
                let end = format!("{kind} {:?}", event.phase).to_lowercase();
                report.acknowledged += u64::from(end == "publish ok");
                *report.operations.entry(end).or_default() += 1;
            }
        }
        report
    }

    /// Adds another run.
    pub fn add(&mut self, other: &Self) {
        self.took_ms += other.took_ms;
        self.acknowledged += other.acknowledged;
        self.repeated_batches += other.repeated_batches;
        self.records_read += other.records_read;
        self.redeliveries += other.redeliveries;
        // Numbers of faults are those of one run.
        self.schedule.clear();
        for (operation, count) in &other.operations {
            *self.operations.entry(operation.clone()).or_default() += count;
        }
        for (fault, (begun, effective)) in &other.faults {
            let sum = self.faults.entry(fault.clone()).or_default();
            *sum = (sum.0 + begun, sum.1 + effective);
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let operations: Vec<String> = self.operations.iter().map(|(end, count)| format!("{end} {count}")).collect();
        let faults: Vec<String> =
            self.faults.iter().map(|(fault, (begun, effective))| format!("{fault} {effective} of {begun}")).collect();
        writeln!(out, "time: {}.{:03} s", self.took_ms / 1_000, self.took_ms % 1_000)?;
        writeln!(
            out,
            "operations: {}; {} records read, {} batches sent again, {} redeliveries",
            operations.join(", "),
            self.records_read,
            self.repeated_batches,
            self.redeliveries
        )?;
        write!(
            out,
            "faults that took effect: {}",
            if faults.is_empty() { "none".to_owned() } else { faults.join(", ") }
        )
    }
}

#[cfg(test)]
mod tests {
    use super::Report;
    use crate::checker::Operations;
    use crate::history::{Action, Phase, Recorder, Terms};
    use crate::trace::Trace;

    #[test]
    fn runs_add_up() {
        let recorder = Recorder::new(Trace::new());
        let publish = || Action::Publish {
            message: "m".to_owned(),
            partition: 0,
            terms: Terms::default(),
            offset: Some(0),
            why: String::new(),
        };
        let op = recorder.invoke("p", publish());
        recorder.end(&op, Phase::Ok, publish());
        let fault = || Action::Fault {
            number: 0,
            fault: "crash".to_owned(),
            partition: None,
            detail: String::new(),
            spares_majority: true,
        };
        let op = recorder.invoke("nemesis", fault());
        recorder.end(&op, Phase::Fail, fault());
        let history = recorder.history();
        assert_eq!(Operations::of(&history).publishes.len(), 1);
        let one = Report::of(&history, 10);
        assert_eq!((one.acknowledged, one.faults["crash"], one.operations["publish ok"]), (1, (1, 0), 1));
        let mut two = one.clone();
        two.add(&one);
        assert_eq!((two.took_ms, two.acknowledged, two.faults["crash"]), (20, 2, (2, 0)));
    }
}
