//! What is shown of a run: a line while it goes on, a table or JSON at its end, files for plots.

use super::options::Files;
use super::tally::{Second, SharedTally, Tally};
use crate::failure::Failure;
use crate::folders::replace_file;
use crate::output::{shows_progress, table};
use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use serde::Serialize;
use std::fmt::Write;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval_at};

const SECOND: Duration = Duration::from_secs(1);

/// Points of the distribution that is written out per halving of the distance to 100 %.
const TICKS_PER_HALF: u32 = 5;

/// Latencies in milliseconds, to a microsecond.
#[derive(Debug, Serialize)]
pub(super) struct LatencyRow {
    pub(super) p50: f64,
    p90: f64,
    pub(super) p99: f64,
    p999: f64,
    max: f64,
    mean: f64,
}

/// Messages that made it, over the time from the end of the warm-up to the last of them.
#[derive(Debug, Serialize)]
pub(super) struct ThroughputRow {
    seconds: f64,
    messages_per_second: f64,
    payload_bytes_per_second: f64,
}

/// Messages that ended alike.
#[derive(Debug, Serialize)]
pub(super) struct ErrorRow {
    outcome: &'static str,
    reason: String,
    messages: u64,
}

/// A second of the run, or what is left of it at the end.
pub(super) struct SecondRow {
    began_ms: u128,
    lasted_ms: u128,
    second: Second,
}

/// Follows a tally until it is told to stop.
pub(super) struct Observer {
    stop: oneshot::Sender<()>,
    task: JoinHandle<Vec<SecondRow>>,
}

impl LatencyRow {
    pub(super) fn of(latency: &Histogram<u64>) -> Option<LatencyRow> {
        let ms = |micros: u64| Duration::from_micros(micros).as_secs_f64() * 1000.0;
        let at = |quantile: f64| ms(latency.value_at_quantile(quantile));
        (!latency.is_empty()).then(|| LatencyRow {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: ms(latency.max()),
            mean: latency.mean().round() / 1000.0,
        })
    }

    fn cells(row: Option<&LatencyRow>) -> [String; 5] {
        let cell = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |ms| format!("{ms:.2}"));
        [
            cell(row.map(|row| row.p50)),
            cell(row.map(|row| row.p90)),
            cell(row.map(|row| row.p99)),
            cell(row.map(|row| row.p999)),
            cell(row.map(|row| row.max)),
        ]
    }
}

impl ThroughputRow {
    pub(super) fn of(tally: &Tally, from: Instant) -> ThroughputRow {
        let seconds = tally.last.map_or(0.0, |last| last.saturating_duration_since(from).as_secs_f64());
        let per_second = |count: u64| if seconds > 0.0 { exact(count) / seconds } else { 0.0 };
        ThroughputRow {
            seconds,
            messages_per_second: per_second(tally.messages),
            payload_bytes_per_second: per_second(tally.bytes),
        }
    }
}

impl ErrorRow {
    pub(super) fn of(tally: &Tally) -> Vec<ErrorRow> {
        let rows = [("failed", &tally.failed), ("unknown", &tally.unknown)];
        let row = |outcome| {
            move |(reason, messages): (&String, &u64)| ErrorRow { outcome, reason: reason.clone(), messages: *messages }
        };
        rows.into_iter().flat_map(|(outcome, reasons)| reasons.iter().map(row(outcome))).collect()
    }
}

/// The table of outcomes: one line for what made it, one per reason for what did not.
pub(super) fn outcomes(made_it: &[(&str, &Tally, Instant)], errors: &[ErrorRow]) -> String {
    let header = ["outcome", "messages", "messages/s", "MB/s", "p50 ms", "p90 ms", "p99 ms", "p99.9 ms", "max ms"];
    let good = made_it.iter().map(|(outcome, tally, from)| {
        let throughput = ThroughputRow::of(tally, *from);
        let counts = [
            (*outcome).to_owned(),
            tally.messages.to_string(),
            format!("{:.0}", throughput.messages_per_second),
            format!("{:.2}", throughput.payload_bytes_per_second / 1e6),
        ];
        counts.into_iter().chain(LatencyRow::cells(LatencyRow::of(&tally.latency).as_ref())).collect::<Vec<_>>()
    });
    let bad = errors.iter().map(|row| {
        let counts = [format!("{} {}", row.outcome, row.reason), row.messages.to_string()];
        counts.into_iter().chain(vec![String::new(); header.len() - 2]).collect()
    });
    table(&header, good.chain(bad))
}

impl Observer {
    /// Draws a line for a person at a terminal, and keeps a row per second, counted from `from`.
    pub(super) fn start(tally: &SharedTally, from: Instant, doing: &'static str) -> Result<Observer, Failure> {
        let bar = if shows_progress() { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
        let style = ProgressStyle::with_template("{spinner} {msg}").map_err(|error| Failure::new(error.to_string()))?;
        let bar = bar.with_style(style).with_message(format!("{doing}: warming up"));
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(observe(tally.clone(), from, doing, bar, stopped));
        Ok(Observer { stop, task })
    }

    /// The rows of the whole run.
    pub(super) async fn end(self) -> Result<Vec<SecondRow>, Failure> {
        // Fails only if the task is gone, which the next line says better.
        _ = self.stop.send(());
        self.task.await.map_err(|error| Failure::new(error.to_string()))
    }
}

async fn observe(
    tally: SharedTally,
    from: Instant,
    doing: &'static str,
    bar: ProgressBar,
    mut stopped: oneshot::Receiver<()>,
) -> Vec<SecondRow> {
    let mut rows: Vec<SecondRow> = Vec::new();
    let mut began = from;
    let mut ticks = interval_at((from + SECOND).into(), SECOND);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let last = tokio::select! {
            _ = ticks.tick() => false,
            _ = &mut stopped => true,
        };
        let now = Instant::now();
        let second = tally.end_second();
        let lasted = now.saturating_duration_since(began);
        if !last || second.messages + second.failed + second.unknown > 0 {
            bar.set_message(line(doing, now.saturating_duration_since(from), lasted, &second));
            bar.tick();
            let began_ms = began.saturating_duration_since(from).as_millis();
            rows.push(SecondRow { began_ms, lasted_ms: lasted.as_millis(), second });
        }
        if last {
            bar.finish_and_clear();
            return rows;
        }
        began = now;
    }
}

fn line(doing: &str, elapsed: Duration, lasted: Duration, second: &Second) -> String {
    let per_second = |count: u64| exact(count) / lasted.as_secs_f64().max(0.001);
    let mut text = format!(
        "{doing} for {} s: {:.0} messages/s, {:.1} MB/s",
        elapsed.as_secs(),
        per_second(second.messages),
        per_second(second.bytes) / 1e6
    );
    if let Some(latency) = LatencyRow::of(&second.latency) {
        let _ = write!(text, ", p50 {:.2} ms, p99 {:.2} ms", latency.p50, latency.p99);
    }
    let errors = second.failed + second.unknown;
    if errors > 0 {
        let _ = write!(text, ", {errors} errors");
    }
    text
}

/// Writes the files that were asked for.
pub(super) fn write_files(files: &Files, rows: &[SecondRow], latency: &Histogram<u64>) -> Result<(), Failure> {
    if let Some(path) = &files.csv {
        replace_file(path, &csv(rows))?;
    }
    if let Some(path) = &files.hdr {
        replace_file(path, &distribution(latency))?;
    }
    Ok(())
}

/// A file that could not be written at the end would cost the whole run.
pub(super) fn check_files(files: &Files) -> Result<(), Failure> {
    let folder = |path: &Path| path.parent().map(|folder| folder.as_os_str().is_empty() || folder.is_dir());
    for path in [&files.csv, &files.hdr].into_iter().flatten() {
        if folder(path) != Some(true) {
            return Err(Failure::usage(format!("{} can't be written: there is no such folder", path.display())));
        }
    }
    Ok(())
}

fn csv(rows: &[SecondRow]) -> String {
    let mut text =
        "began_ms,lasted_ms,messages,payload_bytes,failed,unknown,p50_ms,p90_ms,p99_ms,p999_ms,max_ms\n".to_owned();
    for SecondRow { began_ms, lasted_ms, second } in rows {
        let Second { messages, bytes, failed, unknown, latency } = second;
        let _ = write!(text, "{began_ms},{lasted_ms},{messages},{bytes},{failed},{unknown}");
        match LatencyRow::of(latency) {
            Some(row) => {
                let _ = writeln!(text, ",{:.3},{:.3},{:.3},{:.3},{:.3}", row.p50, row.p90, row.p99, row.p999, row.max);
            }
            None => text.push_str(",,,,,\n"),
        }
    }
    text
}

/// As the HdrHistogram libraries write it.
fn distribution(latency: &Histogram<u64>) -> String {
    let mut text = "       Value     Percentile TotalCount 1/(1-Percentile)\n\n".to_owned();
    let mut so_far = 0;
    for step in latency.iter_quantiles(TICKS_PER_HALF) {
        so_far += step.count_since_last_iteration();
        let (quantile, ms) = (step.quantile_iterated_to(), exact(step.value_iterated_to()) / 1000.0);
        let _ = write!(text, "{ms:12.3} {quantile:14.12} {so_far:10}");
        let _ = if quantile < 1.0 { writeln!(text, " {:14.2}", 1.0 / (1.0 - quantile)) } else { writeln!(text) };
    }
    let (mean, deviation) = (latency.mean() / 1000.0, latency.stdev() / 1000.0);
    let (max, total) = (exact(latency.max()) / 1000.0, latency.len());
    let _ = writeln!(text, "#[Mean    = {mean:12.3}, StdDeviation   = {deviation:12.3}]");
    let _ = writeln!(text, "#[Max     = {max:12.3}, Total count    = {total:12}]");
    text
}

/// Processor time that this process has used, in seconds.
pub(super) fn cpu_seconds() -> f64 {
    let seconds =
        |time: TimeVal| Duration::from_micros(u64::try_from(time.tv_sec() * 1_000_000 + time.tv_usec()).unwrap_or(0));
    getrusage(UsageWho::RUSAGE_SELF)
        .map_or(0.0, |usage| (seconds(usage.user_time()) + seconds(usage.system_time())).as_secs_f64())
}

/// Exact up to 2^53, which no run reaches.
#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
pub(super) fn exact(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::bench::tally::Sent;

    fn tally_of(millis: &[u64]) -> (SharedTally, Instant) {
        let (tally, from) = (SharedTally::new(), Instant::now());
        for ms in millis {
            let sent = Sent { since: from, bytes: 1000, measured: true };
            tally.lock().arrived(sent, from + Duration::from_millis(*ms));
        }
        (tally, from)
    }

    #[test]
    fn throughput_ends_with_the_last_message_and_latency_is_in_milliseconds() {
        let (tally, from) = tally_of(&[1, 2, 3, 500]);
        let tally = tally.lock();
        let throughput = ThroughputRow::of(&tally, from);
        assert!((throughput.messages_per_second - 8.0).abs() < 1e-9, "{throughput:?}");
        let latency = LatencyRow::of(&tally.latency).expect("there are some");
        assert!((latency.p50 - 2.0).abs() < 0.01 && (latency.max - 500.0).abs() < 1.0, "{latency:?}");
        let text = outcomes(&[("published", &tally, from)], &[]);
        assert!(text.lines().nth(1).is_some_and(|line| line.contains('8') && line.contains("500")), "{text}");
    }

    #[test]
    fn a_second_without_messages_is_a_row_without_latencies() {
        let (tally, _) = tally_of(&[4]);
        let row = |began_ms| SecondRow { began_ms, lasted_ms: 1000, second: tally.end_second() };
        let text = csv(&[row(0), row(1000)]);
        let lines: Vec<&str> = text.lines().collect();
        let columns = |line: &str| line.split(',').count();
        assert_eq!(lines.len(), 3);
        assert!(lines.iter().all(|line| columns(line) == columns(lines[0])), "{text}");
        assert!(lines[1].starts_with("0,1000,1,1000,0,0,4.0"), "{text}");
        assert_eq!(lines[2], "1000,1000,0,0,0,0,,,,,");
    }

    #[test]
    fn the_distribution_ends_with_everything() {
        let (tally, _) = tally_of(&[1, 2, 3, 4]);
        let text = distribution(&tally.lock().latency);
        let last = text.lines().rfind(|line| !line.starts_with('#')).expect("there are lines");
        assert!(last.contains("1.000000000000") && last.trim_end().ends_with('4'), "{text}");
    }
}
