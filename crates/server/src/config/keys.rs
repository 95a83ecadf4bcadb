//! Every setting there is, in one table: the loader, the checks of unknown keys, the documented default
//! file and `quorate server check` all read it, so none of them can know a key that another doesn't.

/// One setting.
#[derive(Debug)]
pub struct Key {
    /// `section.key`, as in the file and in `--set section.key=value`.
    pub name: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// Value where none is given; `None`: it must be given.
    pub default: Option<&'static str>,
    /// What it is for, in one or two sentences; printed above the key in the default file.
    pub about: &'static str,
}

/// What a setting holds.
#[derive(Debug)]
pub enum Kind {
    /// Any text; empty counts as absent.
    Text,
    /// `host:port`; empty counts as absent.
    Address,
    /// A whole number within `min..=max`.
    Integer {
        /// Smallest accepted value.
        min: u64,
        /// Largest accepted value.
        max: u64,
    },
    /// Bytes of memory: [`AUTO`], which is so many ninths of `limits.memory_bytes`, or a whole number within
    /// `min..=max`, which then comes on top of what the others share.
    Share {
        /// The part that is its own unless a number is given.
        ninths: u64,
        /// Smallest accepted value.
        min: u64,
        /// Largest accepted value.
        max: u64,
    },
    /// One of a few words.
    Choice(&'static [&'static str]),
    /// `NODE_ID=host:port`, several separated by commas; an array of strings in the file.
    Voters,
}

impl Key {
    /// The environment variable that sets it: `QUORATE_<SECTION>_<KEY>`.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("{VARIABLE_PREFIX}{}", self.name.replace('.', "_").to_uppercase())
    }

    /// The part before the dot.
    #[must_use]
    pub fn section(&self) -> &'static str {
        self.name.split_once('.').map_or(self.name, |(section, _)| section)
    }

    /// The part after the dot.
    #[must_use]
    pub fn field(&self) -> &'static str {
        self.name.split_once('.').map_or(self.name, |(_, field)| field)
    }
}

/// Written where a share of the memory takes its part.
pub(super) const AUTO: &str = "auto";

/// What the environment variables of all settings begin with.
pub(super) const VARIABLE_PREFIX: &str = "QUORATE_";

const MIB: u64 = 1 << 20;

/// All settings, in the order in which the default file shows them.
pub const KEYS: &[Key] = &[
    Key {
        name: "node.id",
        kind: Kind::Integer { min: 1, max: 65_535 },
        default: None,
        about: "Number of this node, unique in the cluster for all time.",
    },
    Key {
        name: "node.data_dir",
        kind: Kind::Text,
        default: None,
        about: "Folder of the database. It belongs to one node of one cluster, and to one process at a time.",
    },
    Key {
        name: "node.client_address",
        kind: Kind::Address,
        default: Some(""),
        about: "Where clients reach this node, as told to them in the cluster map. Empty: listen.client.",
    },
    Key {
        name: "node.peer_address",
        kind: Kind::Address,
        default: Some(""),
        about: "Where the other nodes reach this node. Empty: listen.peer.",
    },
    Key {
        name: "cluster.name",
        kind: Kind::Text,
        default: Some("quorate"),
        about: "Nodes and disks of differently named clusters refuse each other. At most 64 bytes.",
    },
    Key {
        name: "cluster.voters",
        kind: Kind::Voters,
        default: None,
        about: "The nodes that hold the metadata group, as NODE_ID=host:port of their peer listeners; the same \
                on every node. Three or five; one for a cluster of a single node.",
    },
    Key {
        name: "listen.client",
        kind: Kind::Address,
        default: Some("127.0.0.1:50051"),
        about: "Where gRPC for clients is served.",
    },
    Key {
        name: "listen.peer",
        kind: Kind::Address,
        default: Some("127.0.0.1:50052"),
        about: "Where the other nodes of the cluster are served. Not for clients.",
    },
    Key {
        name: "listen.metrics",
        kind: Kind::Address,
        default: Some("127.0.0.1:9090"),
        about: "Where /metrics, /livez and /readyz are served over HTTP. Empty: nowhere.",
    },
    Key {
        name: "storage.memory_bytes",
        kind: Kind::Share { ninths: 4, min: 32 * MIB, max: 65_536 * MIB },
        default: Some(AUTO),
        about: "Memory for the database's write buffers and cached blocks together; the records in flight and the \
                newest entries of each replica are counted apart.",
    },
    Key {
        name: "detection.heartbeat_ms",
        kind: Kind::Integer { min: 10, max: 10_000 },
        default: Some("100"),
        about: "Interval at which two nodes tell each other that they live.",
    },
    Key {
        name: "detection.suspect_after_ms",
        kind: Kind::Integer { min: 50, max: 60_000 },
        default: Some("500"),
        about: "Silence after which a node is suspected; at least three heartbeats. If two nodes agree, its leaders are replaced.",
    },
    Key {
        name: "limits.memory_bytes",
        kind: Kind::Integer { min: 192 * MIB, max: 262_144 * MIB },
        default: Some("603979776"),
        about: "Memory for what grows with load, shared by the database, records in flight, the disk's queue, newest \
                entries, messages on their way in and records read ahead. Whichever is given a number of its own comes \
                on top.",
    },
    Key {
        name: "limits.in_flight_bytes",
        kind: Kind::Share { ninths: 1, min: 18 * MIB, max: 4_096 * MIB },
        default: Some(AUTO),
        about: "Bytes of published batches that may wait for a quorum on this node; beyond it publishers get OVERLOADED.",
    },
    Key {
        name: "limits.in_flight_requests",
        kind: Kind::Integer { min: 1, max: 1_000_000 },
        default: Some("10000"),
        about: "Published batches that may wait for a quorum on this node; beyond it publishers get OVERLOADED.",
    },
    Key {
        name: "limits.queued_bytes",
        kind: Kind::Share { ninths: 1, min: 18 * MIB, max: 16_384 * MIB },
        default: Some(AUTO),
        about: "Bytes that may wait for this node's disk; beyond it publishers to the partitions that it leads get OVERLOADED.",
    },
    Key {
        name: "limits.tail_cache_bytes",
        kind: Kind::Share { ninths: 1, min: 0, max: 65_536 * MIB },
        default: Some(AUTO),
        about: "Bytes of the newest log entries that are kept in memory for followers and consumers, over all replicas. \
                Entries that aren't on disk yet are kept beyond it.",
    },
    Key {
        name: "limits.connections",
        kind: Kind::Integer { min: 1, max: 1_000_000 },
        default: Some("4096"),
        about: "Connections of clients; further ones are closed at once.",
    },
    Key {
        name: "limits.streams_per_connection",
        kind: Kind::Integer { min: 1, max: 10_000 },
        default: Some("128"),
        about: "Requests and streams that one connection of a client may have open at the same time; beyond it \
                clients get OVERLOADED.",
    },
    Key {
        name: "limits.connections_per_address",
        kind: Kind::Integer { min: 1, max: 1_000_000 },
        default: Some("1024"),
        about: "Connections of clients from one address; further ones are closed at once. Raise it where clients \
                come through one gateway.",
    },
    Key {
        name: "limits.requests",
        kind: Kind::Integer { min: 1, max: 10_000_000 },
        default: Some("16384"),
        about: "Requests and streams of all clients that may be open at the same time; beyond it clients get OVERLOADED.",
    },
    Key {
        name: "limits.receive_bytes",
        kind: Kind::Share { ninths: 1, min: 21 * MIB, max: 16_384 * MIB },
        default: Some(AUTO),
        about: "Bytes of clients' messages of which the rest hasn't come yet; beyond it clients get OVERLOADED.",
    },
    Key {
        name: "limits.readers",
        kind: Kind::Integer { min: 1, max: 1_000_000 },
        default: Some("4096"),
        about: "Partitions that may be read at the same time, by clients and other nodes together; beyond it readers \
                get OVERLOADED. A stream counts each partition that it reads.",
    },
    Key {
        name: "limits.read_ahead_bytes",
        kind: Kind::Share { ninths: 1, min: 0, max: 65_536 * MIB },
        default: Some(AUTO),
        about: "Bytes that may have been read from logs and not yet taken by readers; when they are used up, readers \
                get small pieces.",
    },
    Key {
        name: "limits.partitions_per_node",
        kind: Kind::Integer { min: 1, max: 1_000_000 },
        default: Some("10000"),
        about: "Replicas that a node is meant to hold: a topic that would bring the nodes beyond it, on average, is \
                refused with TOO_MANY_PARTITIONS.",
    },
    Key {
        name: "limits.drain_ms",
        kind: Kind::Integer { min: 0, max: 600_000 },
        default: Some("5000"),
        about: "How long a stopping node waits for requests that are under way.",
    },
    Key {
        name: "log.level",
        kind: Kind::Text,
        default: Some("info,openraft=error"),
        about: "What is logged: error, warn, info, debug, trace, or a list such as `info,openraft=error`.",
    },
    Key {
        name: "log.format",
        kind: Kind::Choice(&["human", "json"]),
        default: Some("human"),
        about: "How it is logged: one line to read, or one JSON object per line.",
    },
];

/// The setting called `name`.
pub(super) fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// The known name nearest to a mistyped one, if any is near enough to be meant.
pub(super) fn suggestion(unknown: &str) -> Option<&'static str> {
    KEYS.iter()
        .map(|key| (strsim::jaro_winkler(unknown, key.name), key.name))
        .filter(|(similarity, _)| *similarity >= 0.85)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}
