//! One thing at a time is varied, everything else stays; `quorate bench` measures each point. Writes a CSV and
//! a plot per sweep, and prints the tables of `docs/performance.md`.

use crate::cluster::{Cluster, build_of};
use crate::failure::Failure;
use crate::figures::markdown;
use crate::plot::{Panel, Series, draw};
use clap::{Args, ValueEnum};
use serde_json::Value;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// How many publishers share a load that goes as fast as it can.
const PUBLISHERS: &str = "4";

/// Rate at which latency is measured: far below what any point can carry.
const RATE: &str = "500";

/// What to vary, and for how long.
#[derive(Debug, Args)]
pub struct Sweep {
    /// Where CSV files and plots go
    #[arg(long, value_name = "DIR", default_value = "docs/performance")]
    out: PathBuf,
    /// Seconds per point, for throughput and for latency each; a second of warm-up comes on top
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Only these sweeps [default: all]
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Dimension>,
    /// Messages of 1 KiB that the backlog sweep ends with
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1000..=100_000_000))]
    backlog: u64,
    /// The largest number of partitions
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=1000))]
    partitions: u64,
}

/// What is varied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Dimension {
    Partitions,
    MessageSize,
    InFlight,
    Backlog,
}

/// What was measured at one value.
#[derive(Debug)]
struct Point {
    value: u64,
    /// As fast as possible.
    throughput: f64,
    megabytes: f64,
    publish: [f64; 2],
    /// At [`RATE`].
    end_to_end: [f64; 2],
    /// Messages per second by one reader; only for the backlog.
    read: Option<f64>,
    errors: u64,
}

impl Sweep {
    /// Measures, writes, prints.
    ///
    /// # Errors
    /// If the cluster can't be started, a benchmark fails, or a file can't be written.
    pub async fn run(&self, quorate: &Path) -> Result<(), Failure> {
        fs::create_dir_all(&self.out).map_err(|error| Failure::new(format!("{}: {error}", self.out.display())))?;
        println!("{}; three nodes, fsync on a quorum before every acknowledgement\n", build_of(quorate)?);
        let all = [Dimension::Partitions, Dimension::MessageSize, Dimension::InFlight, Dimension::Backlog];
        for dimension in all.into_iter().filter(|dimension| self.only.is_empty() || self.only.contains(dimension)) {
            // A cluster of its own: nothing is left of the sweep before.
            let cluster = Cluster::start(quorate, 3)?;
            let mut points = Vec::new();
            for value in dimension.values(self) {
                points.push(self.point(&cluster, dimension, value)?);
                eprintln!("{}: {value} measured", dimension.file());
                // A moment in which the run can be stopped.
                tokio::task::yield_now().await;
            }
            self.report(dimension, &points)?;
        }
        Ok(())
    }

    fn point(&self, cluster: &Cluster, dimension: Dimension, value: u64) -> Result<Point, Failure> {
        let value_text = value.to_string();
        let topic = match dimension {
            Dimension::Backlog => Some(backlog_topic(cluster, value)?),
            _ => None,
        };
        // 4 × 256 in flight, 1 KiB, 12 partitions; but for the value that varies.
        let partitions = if dimension == Dimension::Partitions { &value_text } else { "12" };
        let size = if dimension == Dimension::MessageSize { &value_text } else { "1024" };
        let in_flight = if dimension == Dimension::InFlight { &value_text } else { "256" };
        let place: [&str; 2] = topic.as_deref().map_or(["--partitions", partitions], |topic| ["--topic", topic]);
        let duration = format!("{}s", self.seconds);
        let common = ["--size", size, "--duration", &duration, "--warm-up", "1s", "-o", "json"];
        let bench = |kind: &str, options: &[&str]| {
            let arguments = [&["bench", kind], &place[..], &common[..], options].concat();
            only_row(cluster.quorate(&arguments)?, kind)
        };
        let publish = bench("pub", &["--publishers", PUBLISHERS, "--in-flight", in_flight])?;
        let end_to_end = bench("e2e", &["--rate", RATE])?;
        let read = match &topic {
            Some(topic) => Some(only_row(cluster.quorate(&["bench", "sub", "--topic", topic, "-o", "json"])?, "sub")?),
            None => None,
        };
        let number = |row: &Value, field: &str| row[field].as_f64().unwrap_or(0.0);
        let latency = |row: &Value, field: &str| [number(&row[field], "p50"), number(&row[field], "p99")];
        let errors = |row: &Value| row["failed"].as_u64().unwrap_or(0) + row["unknown"].as_u64().unwrap_or(0);
        Ok(Point {
            value,
            throughput: number(&publish, "messages_per_second"),
            megabytes: number(&publish, "payload_bytes_per_second") / 1e6,
            publish: latency(&publish, "latency_ms"),
            end_to_end: latency(&end_to_end, "end_to_end_ms"),
            read: read.map(|row| number(&row, "messages_per_second")),
            errors: errors(&publish) + errors(&end_to_end),
        })
    }

    fn report(&self, dimension: Dimension, points: &[Point]) -> Result<(), Failure> {
        let path = |ending: &str| self.out.join(format!("{}.{ending}", dimension.file()));
        let written = |path: &Path, error: &dyn std::fmt::Display| Failure::new(format!("{}: {error}", path.display()));
        let (table, plot) = (path("csv"), path("svg"));
        fs::write(&table, csv(points)).map_err(|error| written(&table, &error))?;
        draw(&plot, dimension.title(), dimension.axis(), &panels(points)).map_err(|error| written(&plot, &error))?;
        let mut header = vec![dimension.axis(), "messages/s", "MB/s", "ack p50 ms", "ack p99 ms"];
        header.extend(["end to end p50 ms", "end to end p99 ms"]);
        let with_read = points.iter().any(|point| point.read.is_some());
        header.extend(with_read.then_some("read messages/s"));
        header.push("errors");
        let rows: Vec<Vec<String>> = points.iter().map(Point::cells).collect();
        println!("### {}\n\n{}", dimension.title(), markdown(&header, &rows));
        Ok(())
    }
}

impl Dimension {
    fn values(self, sweep: &Sweep) -> Vec<u64> {
        let (values, max): (Vec<u64>, u64) = match self {
            Dimension::Partitions => (vec![1, 3, 12, 100, 300, 1000], sweep.partitions),
            Dimension::MessageSize => (vec![64, 256, 1024, 4096, 16384, 65536], u64::MAX),
            Dimension::InFlight => (vec![1, 4, 16, 64, 256, 1024], u64::MAX),
            Dimension::Backlog => {
                let full = sweep.backlog;
                (vec![full / 100, full / 10, full / 4, full / 2, full], u64::MAX)
            }
        };
        values.into_iter().filter(|value| *value <= max).collect()
    }

    fn file(self) -> &'static str {
        match self {
            Dimension::Partitions => "partitions",
            Dimension::MessageSize => "message-size",
            Dimension::InFlight => "in-flight",
            Dimension::Backlog => "backlog",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Dimension::Partitions => "As partitions grow",
            Dimension::MessageSize => "As messages grow",
            Dimension::InFlight => "As more messages are in flight",
            Dimension::Backlog => "As the backlog grows",
        }
    }

    fn axis(self) -> &'static str {
        match self {
            Dimension::Partitions => "partitions",
            Dimension::MessageSize => "bytes per message",
            Dimension::InFlight => "in flight per publisher",
            Dimension::Backlog => "messages in the topic",
        }
    }
}

impl Point {
    fn cells(&self) -> Vec<String> {
        let ms = |figure: f64| format!("{figure:.2}");
        let mut cells =
            vec![self.value.to_string(), format!("{:.0}", self.throughput), format!("{:.1}", self.megabytes)];
        cells.extend([self.publish, self.end_to_end].concat().into_iter().map(ms));
        cells.extend(self.read.map(|read| format!("{read:.0}")));
        cells.push(self.errors.to_string());
        cells
    }
}

fn csv(points: &[Point]) -> String {
    let mut text = "value,messages_per_second,megabytes_per_second,ack_p50_ms,ack_p99_ms,end_to_end_p50_ms,\
                    end_to_end_p99_ms,read_messages_per_second,errors\n"
        .to_owned();
    for point in points {
        let [ack_p50, ack_p99] = point.publish;
        let [p50, p99] = point.end_to_end;
        let read = point.read.map(|read| format!("{read:.0}")).unwrap_or_default();
        let _ = writeln!(
            text,
            "{},{:.0},{:.2},{ack_p50:.3},{ack_p99:.3},{p50:.3},{p99:.3},{read},{}",
            point.value, point.throughput, point.megabytes, point.errors
        );
    }
    text
}

fn panels(points: &[Point]) -> [Panel; 2] {
    let series = |name, of: &dyn Fn(&Point) -> Option<f64>| Series {
        name,
        points: points.iter().filter_map(|point| Some((point.value, of(point)?))).collect(),
    };
    let throughput = vec![series("published", &|point| Some(point.throughput)), series("read", &|point| point.read)];
    let latency = vec![
        series("acknowledged, full load, p50", &|point| Some(point.publish[0])),
        series("acknowledged, full load, p99", &|point| Some(point.publish[1])),
        series("end to end, 500/s, p50", &|point| Some(point.end_to_end[0])),
        series("end to end, 500/s, p99", &|point| Some(point.end_to_end[1])),
    ];
    [
        Panel { title: "messages per second", logarithmic: false, series: throughput },
        Panel { title: "latency, ms", logarithmic: true, series: latency },
    ]
}

/// A topic with this many messages in it, at least: the one of the step before, filled up.
fn backlog_topic(cluster: &Cluster, messages: u64) -> Result<String, Failure> {
    const NAME: &str = "bench-backlog";
    let topics = cluster.quorate(&["topic", "ls", "-o", "json"])?;
    if topics.iter().all(|topic| topic["name"] != NAME) {
        cluster.quorate(&["topic", "create", NAME, "--partitions", "12", "-o", "json"])?;
    }
    let topic = only_row(cluster.quorate(&["topic", "get", NAME, "-o", "json"])?, "topic get")?;
    let partitions = topic["partition_status"].as_array().cloned().unwrap_or_default();
    let present: u64 = partitions.iter().filter_map(|partition| partition["end_offset"].as_u64()).sum();
    let missing = messages.saturating_sub(present);
    if missing > 0 {
        let missing = missing.to_string();
        let fill = ["bench", "pub", "--topic", NAME, "--messages", &missing, "--warm-up", "0s", "--in-flight", "2000"];
        cluster.quorate(&[&fill[..], &["-o", "json"]].concat())?;
    }
    Ok(NAME.to_owned())
}

fn only_row(rows: Vec<Value>, command: &str) -> Result<Value, Failure> {
    let count = rows.len();
    let mut rows = rows.into_iter();
    match (rows.next(), count) {
        (Some(row), 1) => Ok(row),
        _ => Err(Failure::new(format!("`quorate {command}` printed {count} objects, not one"))),
    }
}
