//! `quorate read`: prints messages of a topic, without leaving a trace on the server.

use crate::connect::Connect;
use crate::failure::Failure;
use crate::messages;
use crate::output::{Format, Output};
use clap::Args;
use futures::StreamExt;
use quorate_client::{Reader, Start};
use std::io::{self, BufWriter, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::timeout;

/// Messages that arrive together are written together; but nobody waits for more than this.
const FLUSH_AFTER: Duration = Duration::from_millis(5);

/// Read messages, in order within a partition. Without --exit it goes on until it is stopped.
#[derive(Debug, Args)]
pub(crate) struct Read {
    topic: String,
    /// Only these partitions; may be repeated [default: all]
    #[arg(short, long)]
    partition: Vec<u32>,
    /// Where to start: `earliest`, `latest`, an offset, or a time such as 2026-01-31T12:00:00Z or `2h ago`
    #[arg(long, value_name = "POSITION", default_value = "latest", default_value_if("exit", "true", "earliest"),
          value_parser = position, allow_hyphen_values = true)]
    from: Start,
    /// Start with the last messages of each partition
    #[arg(long, value_name = "COUNT", conflicts_with = "from")]
    last: Option<u64>,
    /// End after the messages that are there now
    #[arg(short, long)]
    exit: bool,
    /// Read from any replica, preferably one that doesn't lead: committed messages only, but perhaps not the newest
    #[arg(long)]
    from_follower: bool,
    /// End after this many messages
    #[arg(short, long)]
    count: Option<u64>,
}

impl Read {
    pub(crate) async fn run(&self, connect: &Connect, output: Output) -> Result<(), Failure> {
        let start = self.last.map_or(self.from, Start::Last);
        let mut builder = connect.client()?.reader(&self.topic).from(start).patience(connect.timeout());
        for partition in &self.partition {
            builder = builder.partition(*partition, start);
        }
        if self.from_follower {
            builder = builder.from_follower();
        }
        if self.exit {
            builder = builder.stop_at_end();
        }
        self.print(builder.build().await?, output.format).await
    }

    async fn print(&self, mut reader: Reader, format: Format) -> Result<(), Failure> {
        let mut out = BufWriter::with_capacity(1 << 16, io::stdout());
        let mut left = self.count.unwrap_or(u64::MAX);
        while left > 0 {
            let next = match timeout(FLUSH_AFTER, reader.next()).await {
                Ok(next) => next,
                Err(_) => {
                    out.flush()?;
                    reader.next().await
                }
            };
            match next {
                None => break,
                Some(Ok(message)) => messages::write(&mut out, &message, None, format)?,
                Some(Err(error)) => {
                    out.flush()?;
                    return Err(error.into());
                }
            }
            left -= 1;
        }
        Ok(out.flush()?)
    }
}

/// A position as people write it.
pub(crate) fn position(text: &str) -> Result<Start, String> {
    let milliseconds = |time: SystemTime| {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Start::Time(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    };
    if let Some(ago) = text.strip_suffix(" ago") {
        let ago = humantime::parse_duration(ago).map_err(|error| error.to_string())?;
        return Ok(milliseconds(SystemTime::now().checked_sub(ago).unwrap_or(UNIX_EPOCH)));
    }
    match text {
        "earliest" => Ok(Start::Earliest),
        "latest" => Ok(Start::Latest),
        _ => {
            let offset = text.parse().map(Start::Offset).ok();
            let time = || humantime::parse_rfc3339_weak(text).map(milliseconds).ok();
            offset.or_else(time).ok_or_else(|| {
                "write `earliest`, `latest`, an offset, a time such as 2026-01-31T12:00:00Z, or `2h ago`".to_owned()
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_a_word_an_offset_or_a_time() {
        assert_eq!(position("earliest"), Ok(Start::Earliest));
        assert_eq!(position("17"), Ok(Start::Offset(17)));
        assert_eq!(position("1970-01-01T00:00:01Z"), Ok(Start::Time(1000)));
        assert!(matches!(position("1h ago"), Ok(Start::Time(_))));
        for wrong in ["", "-1", "yesterday", "18446744073709551616", "2026-13-01T00:00:00Z", "1x ago"] {
            assert!(position(wrong).is_err(), "{wrong}");
        }
    }
}
