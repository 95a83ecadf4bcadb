//! Records inside a payload, one after another:
//!
//! ```text
//! offset_delta  timestamp_delta  key_len key  attribute_count (key_len key value_len value)*  [options]  data_len data
//! ```
//!
//! All numbers are varints in their shortest form. Options are there if the header's flag says so:
//! `priority deliver_at_ms expire_at_ms`.

use bytes::Bytes;

use crate::batch::error::RecordField;
use crate::batch::{BatchError, BatchFlags, BatchHeader};
use crate::limits::TIME_MS_MAX;
use crate::record::{
    DeliveryOptions, Record, RecordError, check_attribute, check_attribute_count, check_data, check_key,
};
use crate::varint;

/// What the header says about these records.
pub(super) fn flags<'a>(options: impl IntoIterator<Item = &'a DeliveryOptions>) -> BatchFlags {
    options.into_iter().fold(BatchFlags::default(), |flags, options| BatchFlags {
        options: flags.options || *options != DeliveryOptions::default(),
        lanes: flags.lanes || options.leaves_the_log(),
    })
}

/// Appends one record.
pub(super) fn put_record(out: &mut Vec<u8>, record: &Record, index: u32, base_timestamp_ms: u64, flags: BatchFlags) {
    varint::put(out, u64::from(index));
    varint::put(out, record.timestamp_ms - base_timestamp_ms);
    put_bytes(out, &record.ordering_key);
    varint::put(out, record.attributes.len() as u64);
    for (key, value) in &record.attributes {
        put_bytes(out, key.as_bytes());
        put_bytes(out, value.as_bytes());
    }
    if flags.options {
        let DeliveryOptions { priority, deliver_at_ms, expire_at_ms } = record.options;
        varint::put(out, u64::from(priority));
        varint::put(out, deliver_at_ms);
        varint::put(out, expire_at_ms);
    }
    put_bytes(out, &record.data);
}

/// The most that [`put_record`] can append for this record, whatever its place in the batch.
pub(super) fn record_bytes_max(record: &Record) -> usize {
    let sized = |len: usize| varint::len(len as u64) + len;
    let attributes: usize = record.attributes.iter().map(|(key, value)| sized(key.len()) + sized(value.len())).sum();
    let deltas = varint::len(u64::from(u32::MAX)) + varint::BYTES_MAX;
    // Other records of the batch may have options even if this one has none.
    let options = 1 + 2 * varint::len(TIME_MS_MAX);
    deltas
        + options
        + sized(record.ordering_key.len())
        + varint::len(record.attributes.len() as u64)
        + attributes
        + sized(record.data.len())
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    varint::put(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// All records of a payload.
pub(super) fn read_records(
    header: &BatchHeader,
    payload: &Bytes,
    message_bytes_max: u64,
) -> Result<Vec<Record>, BatchError> {
    let mut records = Vec::with_capacity(header.count as usize);
    walk(header, payload, message_bytes_max, |parts| {
        records.push(Record {
            timestamp_ms: parts.timestamp_ms,
            ordering_key: payload.slice_ref(parts.ordering_key),
            attributes: parts.attributes,
            options: parts.options,
            data: payload.slice_ref(parts.data),
        });
    })?;
    Ok(records)
}

/// The same checks as [`read_records`], without keeping the records.
pub(super) fn check_records(header: &BatchHeader, payload: &[u8], message_bytes_max: u64) -> Result<(), BatchError> {
    walk(header, payload, message_bytes_max, |_| ())
}

struct Parts<'a> {
    timestamp_ms: u64,
    ordering_key: &'a [u8],
    attributes: Vec<(String, String)>,
    options: DeliveryOptions,
    data: &'a [u8],
}

/// Reads record after record; what the header says about them as a whole must turn out true.
fn walk<'a>(
    header: &BatchHeader,
    payload: &'a [u8],
    message_bytes_max: u64,
    mut each: impl FnMut(Parts<'a>),
) -> Result<(), BatchError> {
    let (base_ms, max_ms) = (header.base_timestamp_ms, header.max_timestamp_ms);
    let (mut least_ms, mut greatest_ms) = (u64::MAX, 0);
    let mut rest = payload;
    let mut all_options = BatchFlags::default();
    for index in 0..header.count {
        let mut reader = RecordReader { rest, index };
        let parts = reader.record(base_ms, message_bytes_max, header.flags)?;
        rest = reader.rest;
        let its = flags([&parts.options]);
        all_options.options |= its.options;
        all_options.lanes |= its.lanes;
        least_ms = least_ms.min(parts.timestamp_ms);
        greatest_ms = greatest_ms.max(parts.timestamp_ms);
        each(parts);
    }
    if !rest.is_empty() {
        return Err(BatchError::TrailingPayload { extra: rest.len() as u64 });
    }
    if (least_ms, greatest_ms) != (base_ms, max_ms) {
        return Err(BatchError::TimestampSpan { base_ms, max_ms });
    }
    if all_options != header.flags {
        return Err(BatchError::FlagsMismatch { actual: header.flags.bits(), expected: all_options.bits() });
    }
    Ok(())
}

struct RecordReader<'a> {
    rest: &'a [u8],
    index: u32,
}

impl<'a> RecordReader<'a> {
    fn record(&mut self, base_ms: u64, message_bytes_max: u64, flags: BatchFlags) -> Result<Parts<'a>, BatchError> {
        let offset_delta = self.number(RecordField::OffsetDelta)?;
        if offset_delta != u64::from(self.index) {
            return Err(BatchError::OffsetDelta { index: self.index, actual: offset_delta });
        }
        let timestamp_ms = base_ms
            .checked_add(self.number(RecordField::TimestampDelta)?)
            .ok_or(self.malformed(RecordField::TimestampDelta))?;
        let ordering_key = self.bytes(RecordField::OrderingKey)?;
        check_key(ordering_key).map_err(|error| self.refused(error))?;
        let attributes = self.attributes()?;
        let options = if flags.options { self.options()? } else { DeliveryOptions::default() };
        options.check().map_err(|error| self.refused(error))?;
        let data = self.bytes(RecordField::Data)?;
        check_data(data, message_bytes_max).map_err(|error| self.refused(error))?;
        Ok(Parts { timestamp_ms, ordering_key, attributes, options, data })
    }

    fn options(&mut self) -> Result<DeliveryOptions, BatchError> {
        let priority = self.number(RecordField::Options)?;
        let too_high = |_| self.refused(RecordError::PriorityTooHigh { priority });
        Ok(DeliveryOptions {
            priority: u8::try_from(priority).map_err(too_high)?,
            deliver_at_ms: self.number(RecordField::Options)?,
            expire_at_ms: self.number(RecordField::Options)?,
        })
    }

    fn attributes(&mut self) -> Result<Vec<(String, String)>, BatchError> {
        let count = self.number(RecordField::Attributes)?;
        // Checked before anything is allocated for them.
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        check_attribute_count(count).map_err(|error| self.refused(error))?;
        let mut attributes: Vec<(String, String)> = Vec::with_capacity(count);
        for _ in 0..count {
            let key = self.text(RecordField::Attributes)?;
            let value = self.text(RecordField::Attributes)?;
            let previous = attributes.last().map(|(key, _)| key);
            check_attribute(previous, &key, &value).map_err(|error| self.refused(error))?;
            attributes.push((key, value));
        }
        Ok(attributes)
    }

    fn number(&mut self, field: RecordField) -> Result<u64, BatchError> {
        varint::take(&mut self.rest).ok_or(self.malformed(field))
    }

    fn bytes(&mut self, field: RecordField) -> Result<&'a [u8], BatchError> {
        let len = self.number(field)?;
        let len = usize::try_from(len).map_err(|_| self.malformed(field))?;
        let (bytes, rest) = self.rest.split_at_checked(len).ok_or(self.malformed(field))?;
        self.rest = rest;
        Ok(bytes)
    }

    fn text(&mut self, field: RecordField) -> Result<String, BatchError> {
        let bytes = self.bytes(field)?;
        let text = std::str::from_utf8(bytes).map_err(|_| self.malformed(field))?;
        Ok(text.to_owned())
    }

    fn malformed(&self, field: RecordField) -> BatchError {
        BatchError::Malformed { index: self.index, field }
    }

    fn refused(&self, error: RecordError) -> BatchError {
        BatchError::Record { index: self.index, error }
    }
}
