//! [`Partitioner`]: which partition a message goes to.

use quorate_model::partition_for_key;

/// By ordering key where there is one; else sticky round robin: one partition until it got a batch's
/// worth, then the next. Small batches on many partitions are the expensive way to send the same bytes.
#[derive(Debug)]
pub(crate) struct Partitioner {
    partitions: u32,
    run_records: usize,
    run_bytes: usize,
    current: u32,
    records: usize,
    bytes: usize,
}

impl Partitioner {
    /// `start` spreads publishers that begin at the same time.
    pub(crate) fn new(partitions: u32, run_records: usize, run_bytes: usize, start: u32) -> Self {
        Self { partitions, run_records, run_bytes, current: start % partitions, records: 0, bytes: 0 }
    }

    /// `is_stalled` tells which partitions can't take anything now; they are passed over, unless all are.
    pub(crate) fn choose(&mut self, key: &[u8], bytes: usize, is_stalled: impl Fn(u32) -> bool) -> u32 {
        if !key.is_empty() {
            return partition_for_key(key, self.partitions);
        }
        let run_ended = self.records >= self.run_records || self.bytes >= self.run_bytes;
        if run_ended || is_stalled(self.current) {
            self.advance(is_stalled);
        }
        self.records += 1;
        self.bytes += bytes;
        self.current
    }

    fn advance(&mut self, is_stalled: impl Fn(u32) -> bool) {
        let following = (1..=self.partitions).map(|step| (self.current + step) % self.partitions);
        let next = (self.current + 1) % self.partitions;
        self.current = following.into_iter().find(|partition| !is_stalled(*partition)).unwrap_or(next);
        self.records = 0;
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::Partitioner;

    #[test]
    fn without_a_key_a_partition_gets_a_batch_worth_before_the_next_one() {
        let mut partitioner = Partitioner::new(3, 2, 1000, 1);
        let chosen: Vec<u32> = (0..7).map(|_| partitioner.choose(b"", 10, |_| false)).collect();
        assert_eq!(chosen, [1, 1, 2, 2, 0, 0, 1]);
    }

    #[test]
    fn bytes_end_a_run_as_well_as_records() {
        let mut partitioner = Partitioner::new(2, 100, 1000, 0);
        let chosen: Vec<u32> = (0..5).map(|_| partitioner.choose(b"", 600, |_| false)).collect();
        assert_eq!(chosen, [0, 0, 1, 1, 0]);
    }

    #[test]
    fn a_stalled_partition_is_passed_over_by_messages_without_a_key_only() {
        let mut partitioner = Partitioner::new(3, 1, 1000, 0);
        let chosen: Vec<u32> = (0..4).map(|_| partitioner.choose(b"", 10, |partition| partition == 1)).collect();
        assert_eq!(chosen, [0, 2, 0, 2]);
        let of_key = partitioner.choose(b"table-7", 10, |_| false);
        assert_eq!(partitioner.choose(b"table-7", 10, |_| true), of_key);
    }
}
