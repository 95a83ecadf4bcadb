//! Labels of a topic or subscription: a few short texts for people and programs.

use std::collections::BTreeMap;

use crate::limits::{LABEL_BYTES_MAX, LABELS_MAX};
use crate::meta::MetaRejected;

/// Whether the labels keep their limits.
pub(super) fn check(labels: &BTreeMap<String, String>) -> Result<(), MetaRejected> {
    if labels.len() > LABELS_MAX {
        return Err(MetaRejected::TooManyLabels { count: labels.len() as u64 });
    }
    for (key, value) in labels {
        if key.is_empty() || key.len() > LABEL_BYTES_MAX || value.len() > LABEL_BYTES_MAX {
            return Err(MetaRejected::LabelLength { key_bytes: key.len() as u64, value_bytes: value.len() as u64 });
        }
    }
    Ok(())
}
