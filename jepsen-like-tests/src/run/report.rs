//! What a run says of itself, whichever world it took place in.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use crate::history::{Action, History, Phase};

/// What happened, in a few lines.
#[must_use]
pub fn report(history: &History) -> Vec<String> {
    let mut operations: BTreeMap<(&str, Phase), usize> = BTreeMap::new();
    let mut faults: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    let mut records = 0;
    for event in &history.events {
        let kind = match &event.action {
            Action::Create { .. } => "create",
            Action::Publish { .. } => "publish",
            Action::Read { seen, .. } => {
                records += seen.len();
                "read"
            }
            Action::Transfer { .. } => "transfer",
            Action::Fault { fault, .. } => {
                let (begun, effective) = faults.entry(fault).or_default();
                *begun += usize::from(event.phase == Phase::Invoke);
                *effective += usize::from(event.phase == Phase::Ok);
                continue;
            }
            Action::Healed | Action::Resources { .. } | Action::Broken { .. } => continue,
        };
        *operations.entry((kind, event.phase)).or_default() += 1;
    }
    let operations = operations.iter().filter(|((_, phase), _)| *phase != Phase::Invoke);
    let operations: Vec<String> =
        operations.map(|((kind, phase), count)| format!("{kind} {phase:?} {count}")).collect();
    let faults: Vec<String> =
        faults.iter().map(|(fault, (begun, effective))| format!("{fault} {effective} of {begun}")).collect();
    vec![
        format!("operations: {}; {records} records read", operations.join(", ").to_lowercase()),
        format!("faults that took effect: {}", if faults.is_empty() { "none".to_owned() } else { faults.join(", ") }),
    ]
}

/// Writes a history to a file, as JSON lines.
///
/// # Errors
/// If the file can't be written.
pub fn write_history(history: &History, path: &Path) -> io::Result<()> {
    let mut out = BufWriter::new(File::create(path)?);
    history.write_to(&mut out)?;
    out.flush()
}
