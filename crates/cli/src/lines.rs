//! Lines of a file or of standard input, byte for byte, read on a thread of their own.

use std::io::{self, BufRead, BufReader, Read};
use std::thread;
use tokio::sync::mpsc;

/// No topic accepts longer messages, so a longer line need not be held in memory.
const LINE_BYTES_MAX: u64 = 16 << 20;

/// Lines read ahead of the publisher.
const LINES_AHEAD: usize = 1024;

/// One line without its newline. A carriage return belongs to it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// From 1.
    pub(crate) number: u64,
    pub(crate) bytes: Vec<u8>,
}

/// The lines of `source`; the last one counts even without a newline. Ends after an error.
pub(crate) fn of(source: impl Read + Send + 'static) -> mpsc::Receiver<io::Result<Line>> {
    let (sender, receiver) = mpsc::channel(LINES_AHEAD);
    // A thread and not a task: a read of standard input can't be cancelled, and must not hold up the
    // end of the program.
    thread::spawn(move || {
        let mut source = BufReader::with_capacity(1 << 16, source);
        let mut number = 0;
        while let Some(line) = next(&mut source, &mut number).transpose() {
            let last = line.is_err();
            if sender.blocking_send(line).is_err() || last {
                break;
            }
        }
    });
    receiver
}

fn next(source: &mut impl BufRead, number: &mut u64) -> io::Result<Option<Line>> {
    let mut bytes = Vec::new();
    let read = source.take(LINE_BYTES_MAX + 1).read_until(b'\n', &mut bytes)?;
    if read == 0 {
        return Ok(None);
    }
    *number += 1;
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
    }
    if bytes.len() as u64 > LINE_BYTES_MAX {
        let text = format!("line {number} is longer than {LINE_BYTES_MAX} bytes, the most that a message may have");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    Ok(Some(Line { number: *number, bytes }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &'static [u8]) -> Vec<Vec<u8>> {
        let mut lines = of(text);
        let mut read = Vec::new();
        while let Some(line) = lines.blocking_recv() {
            read.push(line.expect("readable").bytes);
        }
        read
    }

    #[test]
    fn lines_are_taken_byte_for_byte() {
        assert_eq!(read(b""), Vec::<Vec<u8>>::new());
        assert_eq!(read(b"a\n\nb\r\n"), [&b"a"[..], b"", b"b\r"]);
        assert_eq!(read(b"\xff\x00\nlast"), [&b"\xff\x00"[..], b"last"]);
    }

    #[test]
    fn a_line_of_the_longest_length_passes_and_a_longer_one_is_an_error() {
        let longest = usize::try_from(LINE_BYTES_MAX).expect("fits");
        let mut lines = of(io::repeat(b'x').take(LINE_BYTES_MAX));
        assert_eq!(lines.blocking_recv().expect("a line").expect("readable").bytes.len(), longest);
        let mut lines = of(io::repeat(b'x').take(LINE_BYTES_MAX + 1));
        let error = lines.blocking_recv().expect("an answer").expect_err("too long");
        assert!(error.to_string().contains("line 1"), "{error}");
        assert!(lines.blocking_recv().is_none());
    }
}
