//! The configuration of a node: a TOML file, environment variables over it, flags over both.

mod keys;
mod layers;
mod problem;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use quorate_consensus::DetectionSettings;
use quorate_model::NodeId;

pub use keys::{KEYS, Key, Kind};
pub use problem::{ConfigError, Origin, Problem};

use keys::AUTO;
use layers::{Layers, expected};

/// Everything that can be set. `quorate server check` prints it; [`Config::template`] documents it.
#[derive(Clone, Debug)]
pub struct Config {
    /// Who this node is.
    pub node: NodeConfig,
    /// Which cluster it belongs to.
    pub cluster: ClusterConfig,
    /// Where it listens.
    pub listen: ListenConfig,
    /// The database.
    pub storage: StorageConfig,
    /// Section `detection`: when another node counts as down.
    pub detection: DetectionSettings,
    /// Bounds on what clients may ask.
    pub limits: LimitsConfig,
    /// Logging.
    pub log: LogConfig,
    /// Each setting's value as written and its origin, for the report.
    settings: Vec<(&'static str, String, Origin)>,
}

/// Section `node`.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// 1 to 65,535; unique in the cluster for all time.
    pub id: NodeId,
    /// Folder of the database.
    pub data_dir: PathBuf,
    /// Where clients reach the node; `None`: where it listens.
    pub client_address: Option<String>,
    /// Where other nodes reach the node; `None`: where it listens.
    pub peer_address: Option<String>,
}

/// Section `cluster`.
#[derive(Clone, Debug)]
pub struct ClusterConfig {
    /// Name; nodes of other names are refused.
    pub name: String,
    /// Holders of the metadata group, by ascending node id.
    pub voters: Vec<Voter>,
}

/// A node of the metadata group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Voter {
    /// Its id.
    pub node: NodeId,
    /// Its peer listener, `host:port`.
    pub peer_address: String,
}

/// Section `listen`; addresses are `host:port`, port 0 lets the system choose.
#[derive(Clone, Debug)]
pub struct ListenConfig {
    /// gRPC for clients.
    pub client: String,
    /// gRPC for other nodes.
    pub peer: String,
    /// HTTP for metrics and probes; `None`: not served.
    pub metrics: Option<String>,
}

/// Section `storage`.
#[derive(Clone, Copy, Debug)]
pub struct StorageConfig {
    /// Write buffers and cached blocks together.
    pub memory_bytes: usize,
}

/// Section `limits`.
#[derive(Clone, Copy, Debug)]
pub struct LimitsConfig {
    /// Published bytes that may wait for a quorum, over all clients.
    pub in_flight_bytes: usize,
    /// Published batches that may wait for a quorum, over all clients.
    pub in_flight_requests: usize,
    /// Bytes that may wait for this node's disk.
    pub queued_bytes: u64,
    /// Bytes of the newest log entries kept in memory, over all replicas.
    pub tail_cache_bytes: u64,
    /// Client connections.
    pub connections: usize,
    /// Client connections from one address.
    pub connections_per_address: usize,
    /// Requests and streams open per client connection.
    pub streams_per_connection: u32,
    /// Requests and streams open over all clients.
    pub requests: usize,
    /// Bytes of messages that haven't arrived whole, over all clients.
    pub receive_bytes: usize,
    /// Partitions that may be read at the same time, each time that one is read.
    pub readers: usize,
    /// Bytes that may be read ahead of all readers.
    pub read_ahead_bytes: usize,
    /// Replicas that a node is meant to hold.
    pub partitions_per_node: usize,
    /// How long a stopping node waits for requests under way.
    pub drain_ms: u64,
}

/// Section `log`.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// A level or a list of directives.
    pub level: String,
    /// How lines look.
    pub format: LogFormat,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// To read.
    Human,
    /// One JSON object per line.
    Json,
}

const CLUSTER_NAME_BYTES_MAX: usize = 64;
const VOTERS_MAX: usize = 7;

impl Config {
    /// Reads `file` (if any), lays `environment` and then `flags` (each `section.key=value`) over it, and checks
    /// the result.
    ///
    /// # Errors
    /// [`ConfigError`]: an unreadable file, or all problems of its content at once.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
        flags: &[String],
    ) -> Result<Self, ConfigError> {
        let mut layers = Layers::of_defaults();
        if let Some(path) = file {
            let text = std::fs::read_to_string(path)
                .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
            layers.add_file(path, &text)?;
        }
        layers.add_environment(environment);
        layers.add_flags(flags);
        Reading { layers }.finish()
    }

    /// Whether this node holds the metadata group.
    #[must_use]
    pub fn is_voter(&self) -> bool {
        self.cluster.voters.iter().any(|voter| voter.node == self.node.id)
    }

    /// What is accepted but probably not meant.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let voters = self.cluster.voters.len();
        let mut warnings = Vec::new();
        if voters == 1 {
            warnings.push("cluster.voters: one voter: when its disk is lost, the cluster is lost".to_owned());
        } else if voters.is_multiple_of(2) {
            warnings
                .push(format!("cluster.voters: {voters} voters survive no more failures than {} would", voters - 1));
        }
        warnings
    }

    /// Every setting with its value and origin, one per line, warnings last: what `quorate server check` prints.
    #[must_use]
    pub fn report(&self) -> String {
        let mut report = String::new();
        for (name, value, origin) in &self.settings {
            let _ = writeln!(report, "{name} = {value:?}   # {origin}");
        }
        for warning in self.warnings() {
            let _ = writeln!(report, "warning: {warning}");
        }
        report
    }

    /// A file with every key, its meaning, its default and its environment variable.
    #[must_use]
    pub fn template() -> String {
        let mut text = String::from(
            "# Configuration of a Quorate node. A key may also be set by the environment variable named with it,\n\
             # or by `--set section.key=value`; a flag wins over the environment, which wins over this file.\n",
        );
        let mut section = "";
        for key in KEYS {
            if key.section() != section {
                section = key.section();
                let _ = write!(text, "\n[{section}]\n");
            }
            let _ = writeln!(text, "# {} ({}; {})", key.about, expected(&key.kind), key.variable());
            match (key.default, &key.kind) {
                (None, Kind::Integer { min, .. }) => _ = writeln!(text, "{} = {min}", key.field()),
                (None, Kind::Voters) => _ = writeln!(text, "{} = [\"1=127.0.0.1:50052\"]", key.field()),
                (None, _) => _ = writeln!(text, "{} = \"quorate-data\"", key.field()),
                (Some(default), Kind::Integer { .. }) => _ = writeln!(text, "# {} = {default}", key.field()),
                (Some(default), _) => _ = writeln!(text, "# {} = {default:?}", key.field()),
            }
        }
        text
    }
}

/// Turns layered text into typed values, noting every problem on the way.
struct Reading {
    layers: Layers,
}

impl Reading {
    fn finish(mut self) -> Result<Config, ConfigError> {
        let node = NodeConfig {
            id: NodeId::new(self.integer("node.id")),
            data_dir: PathBuf::from(self.required_text("node.data_dir")),
            client_address: self.address("node.client_address"),
            peer_address: self.address("node.peer_address"),
        };
        let cluster = ClusterConfig { name: self.cluster_name(), voters: self.voters() };
        let listen = ListenConfig {
            client: self.address("listen.client").unwrap_or_else(|| self.missing("listen.client")),
            peer: self.address("listen.peer").unwrap_or_else(|| self.missing("listen.peer")),
            metrics: self.address("listen.metrics"),
        };
        self.share_memory();
        let storage = StorageConfig { memory_bytes: self.size("storage.memory_bytes") };
        let detection = DetectionSettings {
            heartbeat_ms: self.integer("detection.heartbeat_ms"),
            suspect_after_ms: self.integer("detection.suspect_after_ms"),
        };
        let limits = LimitsConfig {
            in_flight_bytes: self.size("limits.in_flight_bytes"),
            in_flight_requests: self.size("limits.in_flight_requests"),
            queued_bytes: self.integer("limits.queued_bytes"),
            tail_cache_bytes: self.integer("limits.tail_cache_bytes"),
            connections: self.size("limits.connections"),
            connections_per_address: self.size("limits.connections_per_address"),
            requests: self.size("limits.requests"),
            receive_bytes: self.size("limits.receive_bytes"),
            readers: self.size("limits.readers"),
            read_ahead_bytes: self.size("limits.read_ahead_bytes"),
            partitions_per_node: self.size("limits.partitions_per_node"),
            streams_per_connection: u32::try_from(self.integer("limits.streams_per_connection")).unwrap_or(u32::MAX),
            drain_ms: self.integer("limits.drain_ms"),
        };
        let format = if self.choice("log.format") == "json" { LogFormat::Json } else { LogFormat::Human };
        let log = LogConfig { level: self.required_text("log.level"), format };
        self.check_together(&node, &listen, detection);

        if !self.layers.problems.is_empty() {
            return Err(ConfigError::Problems(self.layers.problems));
        }
        let settings = KEYS
            .iter()
            .filter_map(|key| self.layers.get(key.name).map(|w| (key.name, w.text.clone(), w.origin.clone())))
            .collect();
        Ok(Config { node, cluster, listen, storage, detection, limits, log, settings })
    }

    /// Gives each share of the memory that has no number of its own its part.
    fn share_memory(&mut self) {
        let memory = self.integer("limits.memory_bytes");
        for key in KEYS {
            if let Kind::Share { ninths, min, max } = key.kind
                && self.layers.get(key.name).is_some_and(|written| written.text == AUTO)
            {
                self.layers.resolve(key.name, (memory / 9 * ninths).clamp(min, max));
            }
        }
    }

    /// Checks that need more than one value.
    fn check_together(&mut self, node: &NodeConfig, listen: &ListenConfig, detection: DetectionSettings) {
        // Problems of single values first: a check of two values of which one is missing would mislead.
        if !self.layers.problems.is_empty() {
            return;
        }
        let least = 3 * detection.heartbeat_ms;
        if detection.suspect_after_ms < least {
            self.invalid("detection.suspect_after_ms", format!("at least three heartbeats, {least}"));
        }
        for (advertised, bound, field) in [
            (&node.client_address, &listen.client, "node.client_address"),
            (&node.peer_address, &listen.peer, "node.peer_address"),
        ] {
            let told = advertised.as_ref().unwrap_or(bound);
            if ["0.0.0.0:", "[::]:"].iter().any(|wildcard| told.starts_with(wildcard)) {
                self.invalid(field, format!("an address that others can dial, because {told} isn't one"));
            }
        }
    }

    fn integer(&mut self, name: &'static str) -> u64 {
        let Some(text) = self.text(name) else { return 0 };
        let bounds = keys::find(name).map(|key| &key.kind);
        match (text.trim().parse::<u64>(), bounds) {
            (Ok(number), Some(Kind::Integer { min, max } | Kind::Share { min, max, .. }))
                if (*min..=*max).contains(&number) =>
            {
                number
            }
            _ => {
                self.invalid_kind(name);
                0
            }
        }
    }

    fn size(&mut self, name: &'static str) -> usize {
        usize::try_from(self.integer(name)).unwrap_or(usize::MAX)
    }

    fn choice(&mut self, name: &'static str) -> String {
        let text = self.required_text(name);
        if let Some(Kind::Choice(words)) = keys::find(name).map(|key| &key.kind)
            && !words.contains(&text.as_str())
        {
            self.invalid_kind(name);
        }
        text
    }

    fn address(&mut self, name: &'static str) -> Option<String> {
        let text = self.text(name).filter(|text| !text.is_empty())?;
        if !is_address(&text) {
            self.invalid_kind(name);
        }
        Some(text)
    }

    fn cluster_name(&mut self) -> String {
        let name = self.required_text("cluster.name");
        if name.len() > CLUSTER_NAME_BYTES_MAX {
            self.invalid("cluster.name", format!("at most {CLUSTER_NAME_BYTES_MAX} bytes, got {}", name.len()));
        }
        name
    }

    fn voters(&mut self) -> Vec<Voter> {
        let text = self.required_text("cluster.voters");
        if text.is_empty() {
            return Vec::new();
        }
        let parsed: Option<Vec<Voter>> = text.split(',').map(|item| voter(item.trim())).collect();
        let Some(mut voters) = parsed else {
            self.invalid_kind("cluster.voters");
            return Vec::new();
        };
        voters.sort_by_key(|voter| voter.node);
        if voters.windows(2).any(|pair| pair[0].node == pair[1].node) {
            self.invalid_kind("cluster.voters");
        }
        if voters.len() > VOTERS_MAX {
            self.invalid("cluster.voters", format!("at most {VOTERS_MAX} voters, got {}", voters.len()));
        }
        voters
    }

    fn required_text(&mut self, name: &'static str) -> String {
        match self.text(name) {
            Some(text) if text.is_empty() => self.missing(name),
            Some(text) => text,
            None => String::new(),
        }
    }

    /// The value as written; a key that has neither value nor default is noted as missing.
    fn text(&mut self, name: &'static str) -> Option<String> {
        let text = self.layers.get(name).map(|written| written.text.clone());
        if text.is_none() {
            self.missing(name);
        }
        text
    }

    fn missing(&mut self, field: &'static str) -> String {
        self.layers.problems.push(Problem::Missing { field });
        String::new()
    }

    fn invalid_kind(&mut self, name: &'static str) {
        let accepted = keys::find(name).map(|key| expected(&key.kind)).unwrap_or_default();
        self.invalid(name, accepted);
    }

    fn invalid(&mut self, field: &'static str, expected: String) {
        let written = self.layers.get(field);
        let value = written.map(|written| written.text.clone()).unwrap_or_default();
        let origin = written.map_or(Origin::Default, |written| written.origin.clone());
        self.layers.problems.push(Problem::Invalid { field, value, origin, expected });
    }
}

fn is_address(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| {
        let bare_ipv6 = host.contains(':') && !host.starts_with('[');
        !host.is_empty() && !bare_ipv6 && port.parse::<u16>().is_ok()
    })
}

fn voter(text: &str) -> Option<Voter> {
    let (id, address) = text.split_once('=')?;
    let id: u16 = id.trim().parse().ok().filter(|id| *id > 0)?;
    let address = address.trim();
    is_address(address).then(|| Voter { node: NodeId::new(u64::from(id)), peer_address: address.to_owned() })
}
