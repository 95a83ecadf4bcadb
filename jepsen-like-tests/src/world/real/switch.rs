//! A switch in user space: packets of some ways arrive late, each at its own time, so one may overtake another, and some
//! arrive twice. The bridge drops the same packets, so that this is the only way they take.
//!
//! A packet socket at the end of a cable sees a frame before the bridge does, and what is sent there comes out at the
//! other end without passing the bridge.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, bind, recv, send, socket};

use super::network::{Way, enter, port};

/// Longest frame.
const FRAME_BYTES: usize = 2_048;

/// Packets under way; more are dropped, as a full queue does.
const QUEUE_MAX: usize = 20_000;

/// Pause between two looks at the cables.
const LOOK_EVERY: Duration = Duration::from_micros(500);

/// How packets are brought to their place.
#[derive(Clone, Copy, Debug)]
pub struct Delivery {
    /// Shortest time that a packet is under way.
    pub delay_ms: u64,
    /// At most so much longer.
    pub jitter_ms: u64,
    /// Of a hundred packets, so many come twice.
    pub twice_percent: u8,
}

/// Packets that were brought to their place, and those of them that came twice.
#[derive(Debug, Default)]
struct Counts {
    delivered: AtomicU64,
    twice: AtomicU64,
}

/// A switch at work, until it is dropped.
pub(super) struct Switch {
    counts: Arc<Counts>,
    stop: Arc<AtomicBool>,
    worker: Option<JoinHandle<()>>,
}

struct Cable {
    socket: OwnedFd,
    address: [u8; 4],
}

impl Switch {
    /// Takes over packets of some ways, in the namespace of the bridge.
    pub(super) fn start(hub: String, ways: &[Way], delivery: Delivery, seed: u64) -> Result<Self, String> {
        let mut parties: Vec<u64> = ways.iter().flat_map(|(from, to)| [*from, *to]).collect();
        parties.sort_unstable();
        parties.dedup();
        let ways: Vec<Way> = ways.to_vec();
        let (counts, stop) = (Arc::new(Counts::default()), Arc::new(AtomicBool::new(false)));
        let (ready, is_ready) = mpsc::channel();
        let (counted, stopped) = (Arc::clone(&counts), Arc::clone(&stop));
        let worker = thread::spawn(move || {
            let cables = enter(&hub).and_then(|()| parties.iter().map(|party| Ok((*party, cable(*party)?))).collect());
            match cables {
                Ok(cables) => {
                    let _ = ready.send(Ok(()));
                    work(&cables, &ways, delivery, seed, &counted, &stopped);
                }
                Err(error) => _ = ready.send(Err(error)),
            }
        });
        let started = is_ready.recv().unwrap_or_else(|_| Err("the switch panicked".to_owned()));
        let switch = Self { counts, stop, worker: Some(worker) };
        started.map(|()| switch)
    }

    /// Packets brought to their place so far, and those of them that came twice.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.counts.delivered.load(Ordering::Relaxed), self.counts.twice.load(Ordering::Relaxed))
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(worker) = self.worker.take() {
            let _ = worker.join();
        }
    }
}

/// The end of a party's cable at the bridge.
fn cable(party: u64) -> Result<Cable, String> {
    let name = port(party);
    let open = || -> Result<OwnedFd, Errno> {
        let opened = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll)?;
        let ours = |interface: &nix::ifaddrs::InterfaceAddress| interface.interface_name == name;
        let address = getifaddrs()?
            .filter(ours)
            .find_map(|interface| interface.address.filter(|address| address.as_link_addr().is_some()));
        bind(opened.as_raw_fd(), &address.ok_or(Errno::ENODEV)?)?;
        Ok(opened)
    };
    let address = [10, 99, 0, u8::try_from(party).map_err(|error| error.to_string())?];
    open().map(|socket| Cable { socket, address }).map_err(|error| format!("cable {name}: {error}"))
}

fn work(
    cables: &BTreeMap<u64, Cable>,
    ways: &[Way],
    delivery: Delivery,
    seed: u64,
    counts: &Counts,
    stop: &AtomicBool,
) {
    let mut rng = fastrand::Rng::with_seed(seed);
    // By the time at which they are due.
    let mut under_way: BinaryHeap<Reverse<(Instant, u64, Vec<u8>)>> = BinaryHeap::new();
    let mut frame = [0; FRAME_BYTES];
    while !stop.load(Ordering::Relaxed) {
        for (party, cable) in cables {
            while let Ok(length) = recv(cable.socket.as_raw_fd(), &mut frame, MsgFlags::MSG_DONTWAIT) {
                let frame = &frame[..length];
                let Some(to) = destination(frame, *party, cable, cables, ways) else { continue };
                let copies = if rng.u8(..100) < delivery.twice_percent { 2 } else { 1 };
                counts.twice.fetch_add(copies - 1, Ordering::Relaxed);
                for _ in 0..copies {
                    let after_ms = delivery.delay_ms + rng.u64(0..=delivery.jitter_ms);
                    if under_way.len() < QUEUE_MAX {
                        let due = Instant::now() + Duration::from_millis(after_ms);
                        under_way.push(Reverse((due, to, frame.to_vec())));
                    }
                }
            }
        }
        while under_way.peek().is_some_and(|Reverse((due, ..))| *due <= Instant::now()) {
            let Some(Reverse((_, to, frame))) = under_way.pop() else { break };
            // A packet that can't be sent is lost: packets may be.
            let sent = cables.get(&to).map(|cable| send(cable.socket.as_raw_fd(), &frame, MsgFlags::MSG_DONTWAIT));
            counts.delivered.fetch_add(u64::from(sent.is_some_and(|sent| sent.is_ok())), Ordering::Relaxed);
        }
        thread::sleep(LOOK_EVERY);
    }
}

/// Where an IPv4 frame that came in over a cable is to go, if it takes one of the ways.
fn destination(frame: &[u8], party: u64, cable: &Cable, cables: &BTreeMap<u64, Cable>, ways: &[Way]) -> Option<u64> {
    let (kind, from, to) = (frame.get(12..14)?, frame.get(26..30)?, frame.get(30..34)?);
    // What goes out over this cable is seen as well.
    if kind != [0x08, 0x00] || from != cable.address {
        return None;
    }
    let (to, _) = cables.iter().find(|(_, other)| to == other.address)?;
    ways.contains(&(party, *to)).then_some(*to)
}
