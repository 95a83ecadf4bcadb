//! Where a development cluster lives: a folder per node, free ports, generated configurations.
//!
//! ```text
//! FOLDER/node-1/config.toml   made anew at every start
//!               server.log    standard output and error, appended to
//!               data/         the database
//! FOLDER/node-2/…
//! ```

use crate::failure::Failure;
use crate::folders;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::net::TcpListener;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// More nodes than this on one machine teach nothing that fewer don't.
pub(crate) const NODES_MAX: u64 = 9;

/// Below the range from which Linux takes the ports of outgoing connections: a port that a stopped
/// node left can't be taken by somebody's connection before the node comes back.
const PORTS: Range<u16> = 20_000..32_000;

/// A node before its process is started.
#[derive(Clone, Debug)]
pub(crate) struct NodeLayout {
    pub(crate) id: u64,
    pub(crate) folder: PathBuf,
    pub(crate) client: String,
    pub(crate) peer: String,
    pub(crate) metrics: String,
}

/// Lays out a cluster of `nodes` nodes, or of as many as `folder` already holds, and writes the
/// configurations.
pub(crate) fn lay_out(folder: &Path, nodes: Option<u64>) -> Result<Vec<NodeLayout>, Failure> {
    let nodes = count(folder, nodes)?;
    let count = usize::try_from(nodes * 3).unwrap_or(usize::MAX);
    let ports = ports_of_last_time(folder, nodes).map_or_else(|| free_ports(count), Ok).map_err(|error| {
        Failure::new(format!("no free ports from {} to {}: {error}", PORTS.start, PORTS.end))
            .advise("stop what listens there")
    })?;
    let address = |port: u16| format!("127.0.0.1:{port}");
    let node = |(id, ports): (u64, &[u16])| NodeLayout {
        id,
        folder: node_folder(folder, id),
        client: address(ports[0]),
        peer: address(ports[1]),
        metrics: address(ports[2]),
    };
    let layouts: Vec<NodeLayout> = (1..=nodes).zip(ports.chunks(3)).map(node).collect();
    for layout in &layouts {
        folders::replace_file(&layout.folder.join("config.toml"), &configuration(layout, &layouts))?;
    }
    Ok(layouts)
}

/// The number of nodes is fixed by the first start: a cluster keeps its voters.
fn count(folder: &Path, asked: Option<u64>) -> Result<u64, Failure> {
    let present = (1..=NODES_MAX).take_while(|id| node_folder(folder, *id).is_dir()).count() as u64;
    if present > 0 {
        return match asked {
            Some(asked) if asked != present => {
                Err(Failure::new(format!("{} holds a cluster of {present} nodes, not {asked}", folder.display()))
                    .advise("leave --nodes out, or name another folder with --data"))
            }
            _ => Ok(present),
        };
    }
    // Never spread a cluster over somebody's files.
    let occupied = fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some());
    if occupied {
        return Err(Failure::new(format!("{} holds files, but no development cluster", folder.display()))
            .advise("name an empty folder with --data"));
    }
    Ok(asked.unwrap_or(3))
}

fn node_folder(folder: &Path, id: u64) -> PathBuf {
    folder.join(format!("node-{id}"))
}

/// The configuration of a node, as a person would write it.
fn configuration(node: &NodeLayout, all: &[NodeLayout]) -> String {
    // Every node votes on metadata up to five; an even number would add a failure and tolerate none.
    let voters = match all.len() {
        0..=2 => 1,
        3 | 4 => 3,
        _ => 5,
    };
    let voters = all.iter().take(voters).map(|voter| format!("{}={}", voter.id, voter.peer));
    let mut text = String::from("# Made by `quorate dev`; made anew at its next start.\n");
    let quoted = |value: &str| toml::Value::from(value).to_string();
    let data = quoted(&node.folder.join("data").display().to_string());
    let voters = toml::Value::from(voters.collect::<Vec<_>>());
    let _ = write!(
        text,
        "\n[node]\nid = {}\ndata_dir = {data}\n\n[cluster]\nname = \"dev\"\nvoters = {voters}\n\n\
         [listen]\nclient = {}\npeer = {}\nmetrics = {}\n",
        node.id,
        quoted(&node.client),
        quoted(&node.peer),
        quoted(&node.metrics)
    );
    text
}

/// The ports of the last start, if they are all free: the nodes find each other where they were.
fn ports_of_last_time(folder: &Path, nodes: u64) -> Option<Vec<u16>> {
    let mut ports = Vec::new();
    for id in 1..=nodes {
        let text = fs::read_to_string(node_folder(folder, id).join("config.toml")).ok()?;
        let config: toml::Table = text.parse().ok()?;
        for listener in ["client", "peer", "metrics"] {
            let (_, port) = config.get("listen")?.get(listener)?.as_str()?.rsplit_once(':')?;
            ports.push(port.parse().ok()?);
        }
    }
    let free = ports.iter().all(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    free.then_some(ports)
}

/// As many different ports, free at this moment. They are held until the last one is found.
fn free_ports(count: usize) -> io::Result<Vec<u16>> {
    let start = fastrand::u16(PORTS);
    let candidates = (start..PORTS.end).chain(PORTS.start..start);
    let listeners: Vec<TcpListener> =
        candidates.filter_map(|port| TcpListener::bind(("127.0.0.1", port)).ok()).take(count).collect();
    if listeners.len() < count {
        return Err(io::ErrorKind::AddrInUse.into());
    }
    listeners.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_free_different_and_out_of_the_way_of_outgoing_connections() {
        let mut ports = free_ports(9).expect("nine ports are free");
        assert!(ports.iter().all(|port| PORTS.contains(port)), "{ports:?}");
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 9);
    }

    #[test]
    fn three_nodes_know_each_other_and_have_folders_of_their_own() {
        let folder = tempfile::tempdir().expect("a folder");
        let nodes = lay_out(folder.path(), Some(3)).expect("laid out");
        let text = fs::read_to_string(folder.path().join("node-2/config.toml")).expect("written");
        let config: toml::Table = text.parse().expect("well-formed");
        assert_eq!(config["node"]["id"].as_integer(), Some(2));
        assert_eq!(config["cluster"]["voters"].as_array().map(Vec::len), Some(3));
        assert_eq!(config["listen"]["client"].as_str(), Some(nodes[1].client.as_str()));
    }

    #[test]
    fn a_second_start_uses_the_ports_of_the_first_unless_one_is_taken() {
        let folder = tempfile::tempdir().expect("a folder");
        let addresses = |nodes: Vec<NodeLayout>| nodes.into_iter().map(|node| node.peer).collect::<Vec<_>>();
        let first = addresses(lay_out(folder.path(), Some(3)).expect("laid out"));
        assert_eq!(addresses(lay_out(folder.path(), None).expect("laid out")), first);

        let _taken = TcpListener::bind(&first[1]).expect("it is free");
        let third = addresses(lay_out(folder.path(), None).expect("laid out"));
        assert!(!third.contains(&first[1]), "{third:?}");
    }

    #[test]
    fn a_folder_keeps_its_number_of_nodes_and_foreign_files_are_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        lay_out(folder.path(), Some(5)).expect("laid out");
        assert_eq!(count(folder.path(), None).expect("known"), 5);
        assert!(count(folder.path(), Some(3)).is_err());

        let foreign = tempfile::tempdir().expect("a folder");
        fs::write(foreign.path().join("thesis.txt"), "words").expect("written");
        assert!(lay_out(foreign.path(), Some(3)).is_err());
    }

    #[test]
    fn an_even_number_of_nodes_gets_an_odd_number_of_voters() {
        let folder = tempfile::tempdir().expect("a folder");
        lay_out(folder.path(), Some(4)).expect("laid out");
        let text = fs::read_to_string(folder.path().join("node-4/config.toml")).expect("written");
        assert_eq!(text.matches("=127.0.0.1:").count(), 3, "{text}");
    }
}
