//! Quorate, through its SDK with the SDK's defaults.

use crate::workload::{Publish, Workload};
use futures::FutureExt;
use quorate_benches::cluster::{Cluster, build_of, wait_for_leaders};
use quorate_benches::failure::Failure;
use quorate_client::{Client, Message, TopicSpec};
use std::path::Path;
use std::sync::Arc;

pub(crate) struct Quorate {
    cluster: Cluster,
}

impl Quorate {
    pub(crate) fn about(binary: &Path) -> Result<[String; 2], Failure> {
        Ok([build_of(binary)?, "fdatasync on a majority before the acknowledgement".to_owned()])
    }

    pub(crate) fn start(binary: &Path) -> Result<Quorate, Failure> {
        Ok(Quorate { cluster: Cluster::start(binary, 3)? })
    }

    pub(crate) async fn lanes(&self, name: &str, workload: &Workload) -> Result<Vec<Publish>, Failure> {
        let client = self.cluster.client()?;
        let partitions = u32::try_from(workload.logs).unwrap_or(u32::MAX);
        let spec = TopicSpec { partitions: Some(partitions), replication_factor: Some(3), ..TopicSpec::named(name) };
        client.topics().create(spec).await?;
        wait_for_leaders(&client, name).await?;
        let mut publishers = Vec::new();
        for _ in 0..workload.connections {
            let client = Client::builder().servers(self.cluster.servers()).build()?;
            publishers.push(client.publisher(name).build().await?);
        }
        let lane = |partition: u32| -> Publish {
            let publisher = publishers[partition as usize % publishers.len()].clone();
            Arc::new(move |payload| {
                let publisher = publisher.clone();
                let publish = async move { publisher.publish(Message::new(payload).partition(partition)).await };
                publish.map(|outcome| outcome.map(|_| ()).map_err(|error| error.reason().to_owned())).boxed()
            })
        };
        Ok((0..partitions).map(lane).collect())
    }
}
