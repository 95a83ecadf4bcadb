//! The time of a run, and a running hash over everything observable in it: two runs of one seed must agree in it, in the
//! simulated world. In the real one nothing repeats itself, so there is only the time.
//!
//! It takes in the history, the disks' syncs, the faults, and each packet's way through the simulated network (time, kind
//! and addresses, not its bytes: some headers hold the real date). The first line in which two dumps differ is where to
//! look for what is not deterministic.

use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// Cheap to clone; the clones write the same trace.
#[derive(Clone, Default)]
pub struct Trace {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// When time began, if it is the real one.
    began: Option<Instant>,
    now_ms: AtomicU64,
    /// Packets that the network dropped, and that it held back.
    dropped: AtomicU64,
    held: AtomicU64,
    written: Mutex<Written>,
}

#[derive(Default)]
struct Written {
    hash: Fnv,
    lines: u64,
    dump: Option<BufWriter<File>>,
}

impl Trace {
    /// An empty trace at time 0.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Tells the real time, from 0 on, and takes in nothing.
    #[must_use]
    pub fn in_real_time() -> Self {
        let shared = Shared { began: Some(Instant::now()), ..Shared::default() };
        Self { shared: Arc::new(shared) }
    }

    /// Whether it takes in what happens.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.shared.began.is_none()
    }

    /// Also writes every line to a file.
    ///
    /// # Errors
    /// If the file can't be created.
    pub fn dump_to(&self, path: &Path) -> io::Result<()> {
        self.lock().dump = Some(BufWriter::new(File::create(path)?));
        Ok(())
    }

    /// Simulated time, as of the current step, or the real time.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        match self.shared.began {
            Some(began) => u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
            None => self.shared.now_ms.load(Ordering::Relaxed),
        }
    }

    /// The simulation has come this far.
    pub fn advance_to(&self, now_ms: u64) {
        self.shared.now_ms.store(now_ms, Ordering::Relaxed);
    }

    /// Something happened on `node`.
    pub fn note(&self, node: &str, kind: &str, content: &str) {
        if !self.is_kept() {
            return;
        }
        let now_ms = self.now_ms();
        let mut written = self.lock();
        written.lines += 1;
        // A hash takes everything; a dump that can't be written is noticed when it is flushed.
        let _ = writeln!(written.hash, "{now_ms} {node} {kind} {content}");
        if let Some(dump) = &mut written.dump {
            let _ = writeln!(dump, "{now_ms} {node} {kind} {content}");
        }
    }

    /// Hash and number of lines so far.
    #[must_use]
    pub fn sum(&self) -> (u64, u64) {
        let written = self.lock();
        (written.hash.0, written.lines)
    }

    /// Packets dropped and packets held back so far.
    #[must_use]
    pub fn packets_stopped(&self) -> (u64, u64) {
        (self.shared.dropped.load(Ordering::Relaxed), self.shared.held.load(Ordering::Relaxed))
    }

    /// Writes out what is buffered of the dump.
    ///
    /// # Errors
    /// What the file says.
    pub fn flush(&self) -> io::Result<()> {
        self.lock().dump.as_mut().map_or(Ok(()), BufWriter::flush)
    }

    fn lock(&self) -> MutexGuard<'_, Written> {
        self.shared.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Follows the packets: turmoil reports each as a `tracing` event.
impl<S: Subscriber> Layer<S> for Trace {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut packet = Packet::default();
        event.record(&mut packet);
        match packet.message.as_str() {
            "Drop" => _ = self.shared.dropped.fetch_add(1, Ordering::Relaxed),
            "Hold" => _ = self.shared.held.fetch_add(1, Ordering::Relaxed),
            step if step.starts_with("step ") => return,
            _ => {}
        }
        self.note("network", &packet.message, &packet.rest);
    }
}

#[derive(Default)]
struct Packet {
    message: String,
    rest: String,
}

impl Visit for Packet {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => _ = write!(self.message, "{value:?}"),
            // A packet shows all its bytes; its first word is enough here.
            "protocol" => _ = write!(FirstChars { out: &mut self.rest, left: 7 }, " {value:?}"),
            name => _ = write!(self.rest, " {name}={value:?}"),
        }
    }
}

/// Takes a few characters and then refuses, which ends the formatting of what would be long.
struct FirstChars<'a> {
    out: &'a mut String,
    left: usize,
}

impl fmt::Write for FirstChars<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for char in text.chars() {
            self.left = self.left.checked_sub(1).ok_or(fmt::Error)?;
            self.out.push(char);
        }
        Ok(())
    }
}

/// Hashes some bytes, as a trace does.
#[must_use]
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    let mut hash = Fnv::default();
    hash.take(bytes);
    hash.0
}

/// FNV-1a, 64 bits.
struct Fnv(u64);

impl Fnv {
    fn take(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl fmt::Write for Fnv {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.take(text.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Trace;

    #[test]
    fn time_node_kind_and_content_all_count() {
        let sum = |lines: &[(u64, &str, &str, &str)]| {
            let trace = Trace::new();
            for (at, node, kind, content) in lines {
                trace.advance_to(*at);
                trace.note(node, kind, content);
            }
            trace.sum()
        };
        let base = sum(&[(1, "n1", "sync", "3"), (2, "n2", "sync", "4")]);
        assert_eq!(base, sum(&[(1, "n1", "sync", "3"), (2, "n2", "sync", "4")]));
        assert_eq!(base.1, 2);
        for other in [
            [(2, "n1", "sync", "3"), (2, "n2", "sync", "4")],
            [(1, "n2", "sync", "3"), (2, "n2", "sync", "4")],
            [(1, "n1", "read", "3"), (2, "n2", "sync", "4")],
            [(1, "n1", "sync", "4"), (2, "n2", "sync", "4")],
            [(2, "n2", "sync", "4"), (1, "n1", "sync", "3")],
        ] {
            assert_ne!(base.0, sum(&other).0, "{other:?}");
        }
    }
}
