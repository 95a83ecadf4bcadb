//! What clients do, and when.

pub mod log;
pub mod metadata;
pub mod queue;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use clap::ValueEnum;
use quorate_client::{Client, ClientError};
use tokio::sync::watch;

use crate::checker::Expected;
use crate::history::Recorder;
use crate::world::{Access, World};

/// Every published message has its outcome within this time, whatever its publisher's deadline.
pub const PUBLISH_DEADLINE: Duration = Duration::from_secs(10);

/// What clients do in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Job {
    /// They publish to a topic and read it.
    Log,
    /// The same, and publishers wait so briefly for answers that they send much of it several times.
    Retries,
    /// They make, change and remove topics of the same names.
    Metadata,
    /// They publish to a topic, and take the messages of three subscriptions of it.
    Queue,
}

impl Job {
    /// Its name, as on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Retries => "retries",
            Self::Metadata => "metadata",
            Self::Queue => "queue",
        }
    }

    /// Adds its processes.
    pub fn start(self, world: &mut dyn World, course: &Course, load: &log::Load) {
        match self {
            Self::Log | Self::Retries => log::start(world, course, load),
            Self::Metadata => metadata::start(world, course),
            Self::Queue => queue::start(world, course, load),
        }
    }

    /// What it must cover, besides faults.
    #[must_use]
    pub fn expected(self, load: &log::Load) -> Expected {
        match self {
            Self::Log | Self::Retries => Expected {
                partitions: load.partitions,
                trimmed: load.keep_messages.is_some(),
                final_reads: log::Load::FINAL_READS,
                repeats: self == Self::Retries,
                // The metadata group and the partitions.
                groups: 1 + load.partitions as usize,
                ..Expected::default()
            },
            Self::Metadata => Expected { topics: true, groups: 1, ..Expected::default() },
            Self::Queue => Expected {
                partitions: load.partitions,
                final_reads: log::Load::FINAL_READS,
                subscriptions: queue::SUBSCRIPTIONS.len(),
                expiries: true,
                // The metadata group, the partitions, and that of the dead letters.
                groups: 2 + load.partitions as usize,
                ..Expected::default()
            },
        }
    }
}

/// The stages of a run, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// The nodes start, and the topic is created.
    SetUp,
    /// Clients work while faults come and go.
    Faults,
    /// Clients work, and there are no more faults.
    Calm,
    /// Clients begin nothing new, and wait for what is under way.
    Drain,
    /// What is left is read.
    Final,
}

/// The course of a run, which all processes follow. Cheap to clone.
#[derive(Clone)]
pub struct Course {
    stage: Arc<watch::Sender<Stage>>,
    at_work: Arc<AtomicUsize>,
    recorder: Recorder,
    access: Access,
}

impl Course {
    /// At its first stage.
    #[must_use]
    pub fn new(recorder: Recorder, access: Access) -> Self {
        Self { stage: Arc::new(watch::Sender::new(Stage::SetUp)), at_work: Arc::default(), recorder, access }
    }

    /// The stage that is on.
    #[must_use]
    pub fn stage(&self) -> Stage {
        *self.stage.borrow()
    }

    /// The next stage begins.
    pub fn enter(&self, stage: Stage) {
        self.stage.send_replace(stage);
    }

    /// Resolves once a stage has begun.
    pub async fn reached(&self, stage: Stage) {
        let mut stages = self.stage.subscribe();
        // The sender lives in `self`, so it can't be gone.
        let _ = stages.wait_for(|now| *now >= stage).await;
    }

    /// Where operations are recorded.
    #[must_use]
    pub fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    /// A new client of the cluster.
    ///
    /// # Errors
    /// If the addresses are malformed.
    pub fn client(&self) -> Result<Client, ClientError> {
        self.access.client()
    }

    /// Whoever has work that must be finished before the end holds one of these.
    #[must_use]
    pub fn begin_work(&self) -> Work {
        self.at_work.fetch_add(1, Ordering::Relaxed);
        Work { at_work: Arc::clone(&self.at_work) }
    }

    /// Whether nobody has such work.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.at_work.load(Ordering::Relaxed) == 0
    }
}

/// Work that must be finished before the end.
#[derive(Debug)]
pub struct Work {
    at_work: Arc<AtomicUsize>,
}

impl Drop for Work {
    fn drop(&mut self) {
        self.at_work.fetch_sub(1, Ordering::Relaxed);
    }
}
