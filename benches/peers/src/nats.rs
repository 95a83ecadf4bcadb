//! NATS JetStream: streams with three replicas in files.

use crate::processes::{Processes, free_ports, said_by};
use crate::workload::{Publish, Workload};
use async_nats::jetstream::context::Context;
use async_nats::jetstream::stream::{Config, StorageType};
use futures::FutureExt;
use futures::stream::{self, StreamExt, TryStreamExt};
use quorate_benches::failure::Failure;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// Streams created at once.
const CREATED_AT_ONCE: usize = 16;

/// A cluster that has just started refuses streams until it has elected its own leader.
const START_PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Nats {
    servers: Vec<String>,
    _processes: Option<Processes>,
}

impl Nats {
    /// Version and durability; `None` if it isn't installed.
    pub(crate) fn about(binary: &str) -> Option<[String; 2]> {
        let version = said_by(Command::new(binary).arg("--version"))?;
        Some([version, "file storage, no fsync before the acknowledgement (its default)".to_owned()])
    }

    pub(crate) fn at(servers: &str) -> Nats {
        Nats { servers: servers.split(',').map(str::to_owned).collect(), _processes: None }
    }

    pub(crate) async fn start(binary: &str) -> Result<Nats, Failure> {
        let mut processes = Processes::new()?;
        let ports: [u16; 6] = free_ports()?;
        let (client_ports, cluster_ports) = ports.split_at(3);
        let routes: Vec<String> = cluster_ports.iter().map(|port| format!("nats://127.0.0.1:{port}")).collect();
        for (node, (client, cluster)) in (1..).zip(client_ports.iter().zip(cluster_ports)) {
            let store = processes.folder().join(format!("store-{node}"));
            let text = format!(
                "server_name: n{node}\nlisten: 127.0.0.1:{client}\njetstream {{ store_dir: \"{}\" }}\n\
                 cluster {{ name: bench, listen: 127.0.0.1:{cluster}, routes: [{}] }}\n",
                store.display(),
                routes.join(", ")
            );
            let config = processes.write(&format!("n{node}.conf"), &text)?;
            processes.start(&format!("n{node}"), Command::new(binary).arg("-c").arg(config))?;
        }
        for (node, port) in (1..).zip(client_ports) {
            processes.wait_for_port(&format!("n{node}"), *port).await?;
        }
        let servers = client_ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        Ok(Nats { servers, _processes: Some(processes) })
    }

    pub(crate) async fn lanes(&self, name: &str, workload: &Workload) -> Result<Vec<Publish>, Failure> {
        let mut contexts = Vec::new();
        for connection in 0..workload.connections {
            let server = &self.servers[connection % self.servers.len()];
            let client = async_nats::connect(server).await.map_err(|error| Failure::new(error.to_string()))?;
            contexts.push(async_nats::jetstream::new(client));
        }
        let names: Vec<String> = (0..workload.logs).map(|log| format!("{name}-{log}")).collect();
        let context = &contexts[0];
        let create = |name: &String| create(context.clone(), name.clone());
        stream::iter(names.iter().map(create)).buffer_unordered(CREATED_AT_ONCE).try_collect::<Vec<()>>().await?;
        let lane = |(log, subject): (usize, String)| -> Publish {
            let context = contexts[log % contexts.len()].clone();
            Arc::new(move |payload| {
                let (context, subject) = (context.clone(), subject.clone());
                let publish = async move {
                    let sent = context.publish(subject, payload).await.map_err(|error| error.to_string())?;
                    sent.await.map(|_| ()).map_err(|error| error.to_string())
                };
                publish.boxed()
            })
        };
        Ok(names.into_iter().enumerate().map(lane).collect())
    }
}

async fn create(context: Context, name: String) -> Result<(), Failure> {
    let begun = Instant::now();
    loop {
        let config = Config {
            name: name.clone(),
            subjects: vec![name.clone()],
            num_replicas: 3,
            storage: StorageType::File,
            ..Config::default()
        };
        match context.create_stream(config).await {
            Ok(_) => return Ok(()),
            Err(error) if begun.elapsed() > START_PATIENCE => {
                return Err(Failure::new(format!("stream {name}: {error}")));
            }
            Err(_) => sleep(Duration::from_millis(200)).await,
        }
    }
}
