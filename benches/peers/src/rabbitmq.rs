//! RabbitMQ: quorum queues on three nodes, publisher confirms.

use crate::processes::{Processes, free_ports};
use crate::workload::{Publish, Workload};
use futures::FutureExt;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Confirmation, Connection, ConnectionProperties};
use quorate_benches::failure::Failure;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

/// Where Debian keeps the script that the one in PATH would call as another user.
const DEBIAN: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";

/// AMQP's word for a message that is kept on disk.
const PERSISTENT: u8 = 2;

pub(crate) struct RabbitMq {
    uris: Vec<String>,
    _processes: Option<Processes>,
}

impl RabbitMq {
    /// The script to start: the one asked for, else the one that is installed.
    pub(crate) fn script(asked: Option<&str>) -> Option<String> {
        let on_path = || {
            let folders = std::env::var_os("PATH")?;
            let found = std::env::split_paths(&folders).map(|folder| folder.join("rabbitmq-server"));
            found.into_iter().find(|path| path.exists()).map(|path| path.display().to_string())
        };
        let debian = || Path::new(DEBIAN).exists().then(|| DEBIAN.to_owned());
        asked.map(str::to_owned).filter(|path| Path::new(path).exists()).or_else(debian).or_else(on_path)
    }

    /// Version and durability. The version is in the path of the installation: asking the broker's tools would
    /// leave an Erlang name server behind.
    pub(crate) fn about(script: &str) -> [String; 2] {
        let path = std::fs::canonicalize(script).unwrap_or_default();
        let folders = path.iter().filter_map(|part| part.to_str()?.strip_prefix("rabbitmq_server-"));
        [format!("RabbitMQ {}", folders.last().unwrap_or("of an unknown version")), RabbitMq::durability()]
    }

    pub(crate) fn durability() -> String {
        "quorum queues, fdatasync on a majority before the confirm (their default)".to_owned()
    }

    pub(crate) fn at(uris: &str) -> RabbitMq {
        RabbitMq { uris: uris.split(',').map(str::to_owned).collect(), _processes: None }
    }

    pub(crate) async fn start(script: &str) -> Result<RabbitMq, Failure> {
        let mut processes = Processes::new()?;
        let ports: [u16; 7] = free_ports()?;
        let (epmd, ports) = (ports[6], &ports[..6]);
        let (client_ports, peer_ports) = ports.split_at(3);
        // A name server of our own, in the foreground: one that Erlang starts would outlive everything.
        let mut names = Command::new("epmd");
        names.args(["-port", &epmd.to_string(), "-address", "127.0.0.1"]);
        processes.start("epmd", &mut names)?;
        processes.wait_for_port("epmd", epmd).await?;
        for (node, (client, peer)) in (1..).zip(client_ports.iter().zip(peer_ports)) {
            let name = format!("rabbit{node}");
            let home = processes.folder().join(&name);
            std::fs::create_dir_all(&home)?;
            std::fs::write(home.join(".erlang.cookie"), "quoratebench")?;
            let secret = std::os::unix::fs::PermissionsExt::from_mode(0o400);
            std::fs::set_permissions(home.join(".erlang.cookie"), secret)?;
            let mut text = format!(
                "listeners.tcp.1 = 127.0.0.1:{client}\ncluster_name = bench\n\
                 cluster_formation.peer_discovery_backend = classic_config\n"
            );
            for other in 1..=3 {
                text.push_str(&format!("cluster_formation.classic_config.nodes.{other} = rabbit{other}@localhost\n"));
            }
            let config = processes.write(&format!("{name}.conf"), &text)?;
            let plugins = processes.write("plugins", "[].\n")?;
            let mut command = Command::new(script);
            command.env("HOME", &home).env("RABBITMQ_NODENAME", format!("{name}@localhost"));
            command.env("RABBITMQ_CONFIG_FILE", config).env("RABBITMQ_ENABLED_PLUGINS_FILE", plugins);
            command.env("RABBITMQ_MNESIA_BASE", home.join("data")).env("RABBITMQ_LOG_BASE", home.join("log"));
            command.env("RABBITMQ_DIST_PORT", peer.to_string()).env("ERL_EPMD_PORT", epmd.to_string());
            command.env("ERL_EPMD_ADDRESS", "127.0.0.1");
            processes.start(&name, &mut command)?;
            // One after the other: the first one makes the cluster, the others find it.
            processes.wait_for_port(&name, *client).await?;
        }
        let uris = client_ports.iter().map(|port| format!("amqp://127.0.0.1:{port}/%2f")).collect();
        Ok(RabbitMq { uris, _processes: Some(processes) })
    }

    pub(crate) async fn lanes(&self, name: &str, workload: &Workload) -> Result<Vec<Publish>, Failure> {
        let failed = |error: lapin::Error| Failure::new(format!("RabbitMQ: {error}"));
        let mut connections = Vec::new();
        for connection in 0..workload.connections {
            connections.push(Arc::new(connect(&self.uris[connection % self.uris.len()]).await?));
        }
        let mut lanes = Vec::new();
        for log in 0..workload.logs {
            let connection = Arc::clone(&connections[log % connections.len()]);
            let channel = connection.create_channel().await.map_err(failed)?;
            channel.confirm_select(ConfirmSelectOptions::default()).await.map_err(failed)?;
            let queue = format!("{name}-{log}");
            let mut arguments = FieldTable::default();
            arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
            arguments.insert("x-quorum-initial-group-size".into(), AMQPValue::LongInt(3));
            let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
            channel.queue_declare(queue.as_str().into(), options, arguments).await.map_err(failed)?;
            let lane: Publish = Arc::new(move |payload| {
                let (channel, queue, connection) = (channel.clone(), queue.clone(), Arc::clone(&connection));
                let publish = async move {
                    // The connection lives as long as something is published over it.
                    let _connection = connection;
                    let properties = BasicProperties::default().with_delivery_mode(PERSISTENT);
                    let options = BasicPublishOptions::default();
                    let sent = channel.basic_publish("".into(), queue.as_str().into(), options, &payload, properties);
                    let confirm = sent.await.map_err(|error| error.to_string())?;
                    match confirm.await.map_err(|error| error.to_string())? {
                        Confirmation::Ack(_) => Ok(()),
                        _ => Err("not confirmed".to_owned()),
                    }
                };
                publish.boxed()
            });
            lanes.push(lane);
        }
        Ok(lanes)
    }
}

async fn connect(uri: &str) -> Result<Connection, Failure> {
    let connected = Connection::connect(uri, ConnectionProperties::default()).await;
    connected.map_err(|error| Failure::new(format!("RabbitMQ at {uri}: {error}")))
}
