#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

use super::{Cursor, Gap, Phase, Start};
use quorate_model::Record;
use quorate_proto::v1::position::{Earliest, Latest, Position};

/// Records whose publish time in ms is ten times their offset.
fn records(offsets: std::ops::Range<u64>) -> Vec<Record> {
    offsets.map(|offset| Record { timestamp_ms: offset * 10, ..Record::default() }).collect()
}

fn accept(cursor: &mut Cursor, batch: std::ops::Range<u64>) -> Result<Vec<u64>, Gap> {
    let due = cursor.accept(batch.start, records(batch))?;
    assert!(due.iter().all(|(offset, record)| record.timestamp_ms == offset * 10));
    Ok(due.into_iter().map(|(offset, _)| offset).collect())
}

fn position(cursor: &Cursor) -> Position {
    cursor.position().position.unwrap()
}

#[test]
fn a_repeated_batch_brings_nothing_and_an_overlapping_one_only_what_is_new() {
    let mut cursor = Cursor::new(Start::Earliest, false);
    assert_eq!(accept(&mut cursor, 3..6), Ok(vec![3, 4, 5]));
    assert_eq!(accept(&mut cursor, 3..6), Ok(vec![]));
    assert_eq!(accept(&mut cursor, 4..8), Ok(vec![6, 7]));
    assert_eq!(position(&cursor), Position::Offset(8));
}

#[test]
fn a_gap_is_refused_and_moves_nothing() {
    let mut cursor = Cursor::new(Start::Offset(5), false);
    assert_eq!(accept(&mut cursor, 7..9), Err(Gap { expected: 5, got: 7 }));
    assert_eq!(accept(&mut cursor, 4..9), Ok(vec![5, 6, 7, 8]));
}

#[test]
fn from_a_time_the_earlier_records_of_the_first_batch_are_left_out() {
    let mut cursor = Cursor::new(Start::Time(45), false);
    assert_eq!(accept(&mut cursor, 0..3), Ok(vec![]));
    assert_eq!(accept(&mut cursor, 3..7), Ok(vec![5, 6]));
    assert_eq!(position(&cursor), Position::Offset(7));
}

#[test]
fn the_end_is_asked_for_first_and_stays_what_it_was() {
    let mut cursor = Cursor::new(Start::Earliest, true);
    assert_eq!((cursor.phase(), position(&cursor)), (Phase::Surveying, Position::Latest(Latest {})));
    assert!(cursor.ended(5));
    assert_eq!((cursor.phase(), position(&cursor)), (Phase::Reading, Position::Earliest(Earliest {})));
    assert_eq!(accept(&mut cursor, 0..3), Ok(vec![0, 1, 2]));
    // A leader was lost, and more was published meanwhile.
    assert_eq!(accept(&mut cursor, 0..3), Ok(vec![]));
    assert_eq!(accept(&mut cursor, 3..9), Ok(vec![3, 4]));
    assert_eq!(cursor.phase(), Phase::Done);
}

#[test]
fn an_end_before_the_one_that_was_promised_is_not_believed() {
    let mut cursor = Cursor::new(Start::Earliest, true);
    cursor.ended(5);
    assert!(!cursor.ended(3));
    assert_eq!(cursor.phase(), Phase::Reading);
    // The log was trimmed to nothing: its end is still its end.
    assert!(cursor.ended(5));
    assert_eq!(cursor.phase(), Phase::Done);
}

#[test]
fn an_empty_partition_is_read_at_once() {
    let mut cursor = Cursor::new(Start::Earliest, true);
    cursor.ended(0);
    assert_eq!(cursor.phase(), Phase::Done);
}

#[test]
fn from_now_on_means_from_the_end_at_the_first_answer() {
    let mut cursor = Cursor::new(Start::Latest, false);
    cursor.ended(5);
    assert_eq!((cursor.phase(), position(&cursor)), (Phase::Reading, Position::Offset(5)));
    let mut cursor = Cursor::new(Start::Latest, true);
    cursor.ended(5);
    assert_eq!(cursor.phase(), Phase::Done);
}

#[test]
fn the_last_records_are_counted_back_from_the_end_and_at_most_to_the_log_start() {
    let mut cursor = Cursor::new(Start::Last(3), true);
    cursor.ended(10);
    assert_eq!(position(&cursor), Position::Offset(7));
    // The log starts at 8.
    assert!(cursor.out_of_range());
    assert_eq!(position(&cursor), Position::Earliest(Earliest {}));
    assert_eq!(accept(&mut cursor, 8..10), Ok(vec![8, 9]));
    assert_eq!(cursor.phase(), Phase::Done);
    assert!(!Cursor::new(Start::Offset(7), true).out_of_range());
}

#[test]
fn within_a_stored_batch_the_last_records_are_counted_exactly() {
    let mut cursor = Cursor::new(Start::Last(2), true);
    cursor.ended(10);
    assert_eq!(accept(&mut cursor, 0..10), Ok(vec![8, 9]));
}
