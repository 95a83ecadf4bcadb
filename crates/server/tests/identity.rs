//! A folder belongs to one node of one cluster, and to one process at a time.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod nodes;

use nodes::Cluster;
use quorate_server::StartError;
use quorate_server::identity::IdentityError;
use quorate_storage::OpenError;

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_of_another_cluster_or_node_is_refused_and_stays_usable() {
    let mut cluster = Cluster::start(1).await;
    let address = cluster.place(1).client;
    nodes::create(&address, "books", 1).await;
    nodes::publish(&address, "books", None, &["kept"]).await;
    cluster.stop_node(1).await;

    let folder = cluster.config(1, &[]).node.data_dir;
    let folder = format!("node.data_dir={}", folder.display());
    let elsewhere = ["listen.client=127.0.0.1:0", "listen.peer=127.0.0.1:0"];

    let refused = cluster.try_start(1, &[elsewhere[0], elsewhere[1], "cluster.name=other"]).await.err().unwrap();
    assert!(matches!(refused, StartError::Identity(IdentityError::OtherCluster { .. })), "{refused}");
    assert!(refused.to_string().contains("belongs to cluster \"test\", but cluster.name is \"other\""), "{refused}");

    let refused = cluster.try_start(1, &[elsewhere[0], elsewhere[1], &folder, "node.id=7"]).await.err().unwrap();
    assert!(matches!(refused, StartError::Identity(IdentityError::OtherNode { .. })), "{refused}");
    assert!(refused.to_string().contains("belongs to node 1, but node.id is 7"), "{refused}");

    // The rightful node finds everything as it was.
    cluster.start_node(1).await;
    nodes::ready(&address).await;
    assert_eq!(nodes::texts(&nodes::read_from(&address, "books", None).await.unwrap()), ["kept"]);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_on_the_same_folder_is_refused() {
    let cluster = Cluster::start(1).await;
    let elsewhere = ["listen.client=127.0.0.1:0", "listen.peer=127.0.0.1:0"];
    let refused = cluster.try_start(1, &elsewhere).await.err().unwrap();
    assert!(matches!(refused, StartError::Storage(OpenError::InUse { .. })), "{refused}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_disk_was_emptied_is_refused_by_the_cluster() {
    let mut cluster = Cluster::start(3).await;
    cluster.stop_node(3).await;
    std::fs::remove_dir_all(cluster.config(3, &[]).node.data_dir).unwrap();

    // The empty disk gets a new identity, and the cluster remembers the old one.
    let node = cluster.try_start(3, &[]).await.unwrap();
    let failure = tokio::time::timeout(nodes::PATIENCE, node.failed()).await.expect("the node gives up");
    assert_eq!(failure.reason.as_str(), "STORE_MISMATCH", "{failure}");
    node.shutdown().await;
    cluster.stop().await;
}
