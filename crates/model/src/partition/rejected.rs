//! Why an append wasn't accepted. A rejected append takes no offsets.

use serde::{Deserialize, Serialize};

use crate::batch::BatchError;
use crate::ids::{Offset, ProducerId};
use crate::reason::Reason;

/// One fact for each way in which an append can be refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum AppendRejected {
    /// A newer instance of the producer has taken over.
    #[error("producer {producer} has epoch {current}, the batch has epoch {presented}")]
    Fenced {
        /// The producer.
        producer: ProducerId,
        /// The epoch that the partition has seen.
        current: u32,
        /// The epoch of the batch.
        presented: u32,
    },
    /// The partition doesn't know the producer, and the batch isn't the producer's first.
    #[error("producer {producer} is not known here, the batch has sequence {sequence} and not 0")]
    UnknownProducer {
        /// The producer.
        producer: ProducerId,
        /// First sequence of the batch.
        sequence: u64,
    },
    /// Records between the last append and this batch are missing.
    #[error("producer {producer} should continue at sequence {expected}, the batch has {actual}")]
    SequenceGap {
        /// The producer.
        producer: ProducerId,
        /// The sequence that comes next.
        expected: u64,
        /// First sequence of the batch.
        actual: u64,
    },
    /// The batch was appended so long ago that its offset is no longer remembered.
    #[error("producer {producer} sent sequence {actual} again, remembered are those from {oldest} on")]
    SequenceTooOld {
        /// The producer.
        producer: ProducerId,
        /// The oldest sequence that is remembered.
        oldest: u64,
        /// First sequence of the batch.
        actual: u64,
    },
    /// The sequence was used before, for other records.
    #[error("producer {producer} used sequence {sequence} before, for other records")]
    SequenceConflict {
        /// The producer.
        producer: ProducerId,
        /// First sequence of the batch.
        sequence: u64,
    },
    /// The batch's header can't be read. The front door doesn't let such a batch in.
    #[error(transparent)]
    Malformed(BatchError),
    /// There are no offsets left.
    #[error("the partition is at offset {next_offset} and cannot take the batch")]
    OffsetsExhausted {
        /// The offset that the next record would get.
        next_offset: Offset,
    },
}

impl AppendRejected {
    /// The entry of the error table.
    pub fn reason(&self) -> Reason {
        match self {
            AppendRejected::Fenced { .. } => Reason::ProducerFenced,
            AppendRejected::UnknownProducer { .. } => Reason::UnknownProducer,
            AppendRejected::SequenceGap { .. } => Reason::SequenceGap,
            AppendRejected::SequenceTooOld { .. } => Reason::SequenceTooOld,
            AppendRejected::SequenceConflict { .. } => Reason::SequenceConflict,
            AppendRejected::Malformed(error) => error.reason(),
            AppendRejected::OffsetsExhausted { .. } => Reason::Internal,
        }
    }

    /// Facts for a program.
    pub fn metadata(&self) -> Vec<(&'static str, String)> {
        match self {
            AppendRejected::Fenced { producer, current, presented } => vec![
                ("producer", producer.to_string()),
                ("current_epoch", current.to_string()),
                ("epoch", presented.to_string()),
            ],
            AppendRejected::UnknownProducer { producer, sequence }
            | AppendRejected::SequenceConflict { producer, sequence } => {
                vec![("producer", producer.to_string()), ("sequence", sequence.to_string())]
            }
            AppendRejected::SequenceGap { producer, expected, actual } => vec![
                ("producer", producer.to_string()),
                ("expected_sequence", expected.to_string()),
                ("sequence", actual.to_string()),
            ],
            AppendRejected::SequenceTooOld { producer, oldest, actual } => vec![
                ("producer", producer.to_string()),
                ("oldest_sequence", oldest.to_string()),
                ("sequence", actual.to_string()),
            ],
            AppendRejected::Malformed(error) => error.metadata(),
            AppendRejected::OffsetsExhausted { next_offset } => {
                vec![("next_offset", next_offset.to_string())]
            }
        }
    }
}
