//! A network of namespaces: each node and all clients together have one, joined by a bridge in another, the hub. What the
//! bridge lets through is decided in one place, for each direction of each pair.
//!
//! ```text
//! n1 eth0 ──┐
//! n2 eth0 ──┼── bridge, rules       10.99.0.N is node N
//! n3 eth0 ──┤   in the hub          10.99.0.100 are the clients
//! c  eth0 ──┘
//! ```

use std::fs::File;
use std::thread;

use nix::sched::{CloneFlags, setns};

use super::tool::{self, run};

/// Stands for all clients in pairs of parties.
pub const CLIENTS: u64 = 100;

/// From one party to another.
pub type Way = (u64, u64);

/// Packets of a way in the first set are dropped, of one in the second with a probability. Those of the third are dropped
/// because somebody else brings them (see `switch`).
const RULES: &str = "table bridge chaos {
    set cut { type ipv4_addr . ipv4_addr; }
    set lossy { type ipv4_addr . ipv4_addr; }
    set slow { type ipv4_addr . ipv4_addr; }
    counter cut {}
    counter lossy {}
    counter slow {}
    chain loss {}
    chain links {
        type filter hook forward priority 0; policy accept;
        ip saddr . ip daddr @cut counter name cut drop
        ip saddr . ip daddr @slow counter name slow drop
        jump loss
    }
}";

/// What the rules do to packets of a way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Treatment {
    /// All are dropped.
    Cut,
    /// Some are dropped.
    Lossy,
    /// They are taken to their place by the switch in user space.
    Slow,
}

impl Treatment {
    fn set(self) -> &'static str {
        match self {
            Self::Cut => "cut",
            Self::Lossy => "lossy",
            Self::Slow => "slow",
        }
    }
}

/// The namespaces, gone when this is dropped.
pub(super) struct Network {
    prefix: String,
    parties: Vec<u64>,
}

impl Network {
    /// Between nodes and clients.
    pub(super) fn new(prefix: &str, nodes: &[u64]) -> Result<Self, String> {
        let parties = nodes.iter().copied().chain([CLIENTS]).collect();
        let network = Self { prefix: prefix.to_owned(), parties };
        let hub = network.hub();
        run(&["ip", "netns", "add", &hub])?;
        run(&["ip", "-n", &hub, "link", "add", "bridge", "type", "bridge"])?;
        run(&["ip", "-n", &hub, "link", "set", "bridge", "up"])?;
        for party in &network.parties {
            network.join(*party)?;
        }
        run(&["ip", "netns", "exec", &hub, "nft", RULES])?;
        Ok(network)
    }

    fn join(&self, party: u64) -> Result<(), String> {
        let (hub, own, port) = (self.hub(), self.namespace(party), port(party));
        run(&["ip", "netns", "add", &own])?;
        run(&["ip", "-n", &own, "link", "set", "lo", "up"])?;
        run(&["ip", "-n", &hub, "link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &own])?;
        run(&["ip", "-n", &hub, "link", "set", &port, "master", "bridge", "up"])?;
        run(&["ip", "-n", &own, "address", "add", &format!("{}/24", address(party)), "dev", "eth0"])?;
        // Frames must be whole where the switch takes them: of their proper size, with their checksums.
        if tool::is_there("ethtool") {
            let off = ["tx", "off", "tso", "off", "gso", "off", "gro", "off"];
            run(&[["ip", "netns", "exec", &own, "ethtool", "-K", "eth0"].as_slice(), &off].concat())?;
        }
        run(&["ip", "-n", &own, "link", "set", "eth0", "up"]).map(drop)
    }

    /// Name of a party's namespace.
    pub(super) fn namespace(&self, party: u64) -> String {
        format!("{}-{}", self.prefix, port(party))
    }

    /// Name of the namespace of the bridge.
    pub(super) fn hub(&self) -> String {
        format!("{}-hub", self.prefix)
    }

    /// Treats packets of some ways differently from now on.
    pub(super) fn treat(&self, treatment: Treatment, ways: &[Way]) -> Result<(), String> {
        self.change("add", treatment, ways)
    }

    /// Treats them as all others again.
    pub(super) fn leave_alone(&self, treatment: Treatment, ways: &[Way]) -> Result<(), String> {
        self.change("delete", treatment, ways)
    }

    fn change(&self, verb: &str, treatment: Treatment, ways: &[Way]) -> Result<(), String> {
        let pairs: Vec<String> =
            ways.iter().map(|(from, to)| format!("{} . {}", address(*from), address(*to))).collect();
        let line = format!("{verb} element bridge chaos {} {{ {} }}", treatment.set(), pairs.join(", "));
        if pairs.is_empty() { Ok(()) } else { self.nft(&line).map(drop) }
    }

    /// How many of a hundred packets are lost on a lossy way.
    pub(super) fn lose(&self, percent: u8) -> Result<(), String> {
        self.nft(&format!(
            "flush chain bridge chaos loss; add rule bridge chaos loss ip saddr . ip daddr @lossy \
             numgen random mod 100 < {percent} counter name lossy drop"
        ))
        .map(drop)
    }

    /// Packets that were dropped by a treatment so far.
    pub(super) fn dropped(&self, treatment: Treatment) -> Result<u64, String> {
        let counter = self.nft(&format!("list counter bridge chaos {}", treatment.set()))?;
        let packets = counter.split_whitespace().skip_while(|word| *word != "packets").nth(1);
        packets.and_then(|packets| packets.parse().ok()).ok_or_else(|| format!("no packets in {counter:?}"))
    }

    /// Breaks connections between two parties: each side is told that the other has reset them. Returns how many there were.
    pub(super) fn reset_connections(&self, a: u64, b: u64) -> Result<usize, String> {
        let (from, to) = (self.namespace(a), address(b));
        let killed = run(&["ip", "netns", "exec", &from, "ss", "-K", "-H", "-t", "-n", "dst", &to])?;
        Ok(killed.lines().filter(|line| !line.trim().is_empty()).count())
    }

    fn nft(&self, line: &str) -> Result<String, String> {
        run(&["ip", "netns", "exec", &self.hub(), "nft", line])
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for namespace in self.parties.iter().map(|party| self.namespace(*party)).chain([self.hub()]) {
            let _ = run(&["ip", "netns", "del", &namespace]);
        }
    }
}

/// The end of a party's cable at the bridge, and the last part of its namespace's name.
pub(super) fn port(party: u64) -> String {
    if party == CLIENTS { "c".to_owned() } else { format!("n{party}") }
}

/// A party's address.
pub(super) fn address(party: u64) -> String {
    format!("10.99.0.{party}")
}

/// Takes the calling thread into a namespace, for good.
pub(super) fn enter(namespace: &str) -> Result<(), String> {
    let path = format!("/run/netns/{namespace}");
    let file = File::open(&path).map_err(|error| format!("{path}: {error}"))?;
    setns(file, CloneFlags::CLONE_NEWNET).map_err(|error| format!("{path}: {error}"))
}

/// Does something in a namespace, on a thread of its own.
pub(super) fn within<T: Send>(namespace: &str, work: impl FnOnce() -> Result<T, String> + Send) -> Result<T, String> {
    thread::scope(|scope| {
        let worker = scope.spawn(|| enter(namespace).and_then(|()| work()));
        worker.join().unwrap_or_else(|_| Err("a thread panicked".to_owned()))
    })
}
