//! Kafka: three brokers that are their own controllers (KRaft), `acks=all`.

use crate::processes::{Processes, free_ports};
use crate::workload::{Publish, Workload};
use futures::FutureExt;
use quorate_benches::failure::Failure;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::KafkaError;
use rdkafka::producer::{FutureProducer, FutureRecord};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a batch may wait to fill: less than the client's default of 5 ms, because it waits always.
const LINGER_MS: &str = "1";

/// A full queue of the client passes within this time, or the message failed.
const QUEUE_PATIENCE: Duration = Duration::from_secs(30);

/// Brokers know each other within this time after they listen.
const START_PATIENCE: Duration = Duration::from_secs(60);

/// Any base64 of 16 bytes names a cluster.
const CLUSTER_ID: &str = "cXVvcmF0ZS1iZW5jaDEyMw";

pub(crate) struct Kafka {
    bootstrap: Vec<String>,
    _processes: Option<Processes>,
}

impl Kafka {
    /// Version and durability; `None` if there is no such folder of libraries.
    pub(crate) fn about(home: &Path) -> Option<[String; 2]> {
        let files = std::fs::read_dir(home.join("libs")).ok()?;
        let names = files.filter_map(|file| file.ok()?.file_name().into_string().ok());
        let version = names.filter_map(|name| {
            Some(name.strip_prefix("kafka_2.13-")?.strip_suffix(".jar")?.to_owned()).filter(|rest| !rest.contains('-'))
        });
        Some([format!("Kafka {}", version.into_iter().next()?), Kafka::durability()])
    }

    pub(crate) fn durability() -> String {
        "acks=all, min.insync.replicas=2, no fsync before the acknowledgement (its default)".to_owned()
    }

    pub(crate) fn at(bootstrap: &str) -> Kafka {
        Kafka { bootstrap: bootstrap.split(',').map(str::to_owned).collect(), _processes: None }
    }

    pub(crate) async fn start(home: &Path) -> Result<Kafka, Failure> {
        let mut processes = Processes::new()?;
        let ports: [u16; 6] = free_ports()?;
        let (client_ports, controller_ports) = ports.split_at(3);
        let voters: Vec<String> =
            (1..).zip(controller_ports).map(|(node, port): (u32, _)| format!("{node}@127.0.0.1:{port}")).collect();
        let mut configs = Vec::new();
        for (node, (client, controller)) in (1..).zip(client_ports.iter().zip(controller_ports)) {
            let data = processes.folder().join(format!("data-{node}"));
            let text = format!(
                "process.roles=broker,controller\nnode.id={node}\ncontroller.quorum.voters={}\n\
                 listeners=PLAINTEXT://127.0.0.1:{client},CONTROLLER://127.0.0.1:{controller}\n\
                 advertised.listeners=PLAINTEXT://127.0.0.1:{client}\ncontroller.listener.names=CONTROLLER\n\
                 listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT\nlog.dirs={}\n\
                 default.replication.factor=3\nmin.insync.replicas=2\noffsets.topic.replication.factor=3\n",
                voters.join(","),
                data.display()
            );
            configs.push(processes.write(&format!("k{node}.properties"), &text)?);
        }
        let java = |class: &str| {
            let mut command = Command::new("java");
            command.args(["-Xmx512m", "-cp", &format!("{}/libs/*", home.display()), class]);
            command
        };
        let mut formatting = Vec::new();
        for config in &configs {
            let mut format = java("kafka.tools.StorageTool");
            format.args(["format", "--cluster-id", CLUSTER_ID, "--config"]).arg(config);
            formatting.push(format.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?);
        }
        for child in formatting {
            let output = child.wait_with_output()?;
            if !output.status.success() {
                return Err(Failure::new(format!("Kafka: {}", String::from_utf8_lossy(&output.stderr))));
            }
        }
        for (node, config) in (1..).zip(&configs) {
            processes.start(&format!("k{node}"), java("kafka.Kafka").arg(config))?;
        }
        for (node, port) in (1..).zip(client_ports) {
            processes.wait_for_port(&format!("k{node}"), *port).await?;
        }
        let bootstrap = client_ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        Ok(Kafka { bootstrap, _processes: Some(processes) })
    }

    pub(crate) async fn lanes(&self, name: &str, workload: &Workload) -> Result<Vec<Publish>, Failure> {
        let failed = |error: KafkaError| Failure::new(format!("Kafka: {error}"));
        // Without company to wait for, waiting for it would only add to every latency.
        let linger_ms = if workload.in_flight == 1 { "0" } else { LINGER_MS };
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.bootstrap.join(",")).set("acks", "all").set("linger.ms", linger_ms);
        let admin: AdminClient<DefaultClientContext> = config.create().map_err(failed)?;
        let admin = knows_all_brokers(admin).await?;
        let partitions = i32::try_from(workload.logs).unwrap_or(i32::MAX);
        let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(3));
        for created in admin.create_topics([&topic], &AdminOptions::new()).await.map_err(failed)? {
            created.map_err(|(topic, error)| Failure::new(format!("Kafka: topic {topic}: {error}")))?;
        }
        let mut producers: Vec<FutureProducer> = Vec::new();
        for _ in 0..workload.connections {
            producers.push(config.create().map_err(failed)?);
        }
        let topic: Arc<str> = name.into();
        let lane = |partition: i32| -> Publish {
            let log = usize::try_from(partition).unwrap_or(0);
            let (producer, topic) = (producers[log % producers.len()].clone(), Arc::clone(&topic));
            Arc::new(move |payload| {
                let (producer, topic) = (producer.clone(), Arc::clone(&topic));
                let publish = async move {
                    let record: FutureRecord<'_, (), [u8]> =
                        FutureRecord::to(&topic).partition(partition).payload(&payload[..]);
                    let delivered = producer.send(record, QUEUE_PATIENCE).await;
                    delivered.map(|_| ()).map_err(|(error, _)| error.to_string())
                };
                publish.boxed()
            })
        };
        Ok((0..partitions).map(lane).collect())
    }
}

/// The client drops its connections to the bootstrap addresses, and the requests on them, as soon as it has learned who the brokers are: it
/// must have learned that before it is asked for anything.
async fn knows_all_brokers(
    admin: AdminClient<DefaultClientContext>,
) -> Result<AdminClient<DefaultClientContext>, Failure> {
    let until = Instant::now() + START_PATIENCE;
    tokio::task::spawn_blocking(move || {
        loop {
            match admin.inner().fetch_metadata(None, Duration::from_secs(1)) {
                Ok(metadata) if metadata.brokers().len() >= 3 => return Ok(admin),
                seen if Instant::now() >= until => {
                    let seen = seen.map(|metadata| format!("{} brokers", metadata.brokers().len()));
                    return Err(Failure::new(format!("Kafka: no cluster of three: {seen:?}")));
                }
                _ => std::thread::sleep(Duration::from_millis(100)),
            }
        }
    })
    .await
    .map_err(|error| Failure::new(error.to_string()))?
}
