//! `quorate sub`: takes messages of a subscription, prints them, and says what became of them.

use crate::connect::Connect;
use crate::failure::Failure;
use crate::messages;
use crate::output::{Format, Output};
use clap::Args;
use futures::StreamExt;
use quorate_client::{Delivery, Subscriber};
use std::io::{self, BufWriter, Write};
use std::time::Duration;
use tokio::time::timeout;

/// Messages that arrive together are written together; but nobody waits for more than this.
const FLUSH_AFTER: Duration = Duration::from_millis(5);

/// As many are written together at most.
const FLUSH_MESSAGES: usize = 100;

/// With --exit: how long nothing may come.
const QUIET: Duration = Duration::from_secs(1);

/// Time for acknowledgements to become certain.
const CLOSE: Duration = Duration::from_secs(10);

/// Take messages of a subscription and acknowledge each once it is printed. Goes on until it is stopped.
#[derive(Debug, Args)]
pub(crate) struct Subscribe {
    subscription: String,
    /// Return every message, to be delivered again, for this reason
    #[arg(long, value_name = "REASON", num_args = 0..=1, default_missing_value = "", conflicts_with = "no_ack")]
    nack: Option<String>,
    /// Take nothing: every message goes to another subscriber when this ends, and the attempt doesn't count
    #[arg(long)]
    no_ack: bool,
    /// End after this many messages
    #[arg(short, long)]
    count: Option<u64>,
    /// End when no message has come for a second
    #[arg(short, long)]
    exit: bool,
}

impl Subscribe {
    pub(crate) async fn run(&self, connect: &Connect, output: Output) -> Result<(), Failure> {
        let mut builder = connect.client()?.subscriber(&self.subscription).patience(connect.timeout());
        if let Some(count) = self.count {
            // What isn't asked for should go to others.
            builder = builder.outstanding_messages(u32::try_from(count).unwrap_or(u32::MAX).min(1_000));
        }
        let mut subscriber = builder.build().await?;
        let mut kept = Vec::new();
        let printed = tokio::select! {
            printed = self.print(&mut subscriber, &mut kept, output.format) => printed,
            stopped = tokio::signal::ctrl_c() => stopped.map_err(Failure::from),
        };
        kept.into_iter().for_each(Delivery::release);
        subscriber.close(CLOSE).await;
        printed
    }

    async fn print(
        &self,
        subscriber: &mut Subscriber,
        kept: &mut Vec<Delivery>,
        format: Format,
    ) -> Result<(), Failure> {
        let mut out = BufWriter::with_capacity(1 << 16, io::stdout());
        // Printed, and perhaps still in the buffer: what was acknowledged must not be lost there.
        let mut printed = Vec::new();
        let mut left = self.count.unwrap_or(u64::MAX);
        while left > 0 {
            let next = match timeout(FLUSH_AFTER, subscriber.next()).await {
                Ok(next) => next,
                Err(_) => {
                    flush(&mut out, &mut printed)?;
                    let quiet = if self.exit { QUIET } else { Duration::MAX };
                    match timeout(quiet, subscriber.next()).await {
                        Ok(next) => next,
                        Err(_) => break,
                    }
                }
            };
            let Some(next) = next else { break };
            let delivery = match next {
                Ok(delivery) => delivery,
                Err(error) => {
                    flush(&mut out, &mut printed)?;
                    return Err(error.into());
                }
            };
            messages::write(&mut out, &delivery.message, Some(delivery.attempt), format)?;
            match &self.nack {
                Some(reason) => _ = delivery.nack(reason).await?,
                None if self.no_ack => kept.push(delivery),
                None => printed.push(delivery),
            }
            if printed.len() >= FLUSH_MESSAGES {
                flush(&mut out, &mut printed)?;
            }
            left -= 1;
        }
        flush(&mut out, &mut printed)
    }
}

/// Acknowledges messages once they are out.
fn flush(out: &mut impl Write, printed: &mut Vec<Delivery>) -> Result<(), Failure> {
    out.flush()?;
    printed.drain(..).for_each(Delivery::ack_later);
    Ok(())
}
