//! What a configuration may be, and what is said of one that it may not.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use quorate_server::config::{Config, ConfigError, LimitsConfig};

const LEAST: &str = "
[node]
id = 2
data_dir = 'here'
[cluster]
voters = ['1=127.0.0.1:1', '2=127.0.0.1:2', '3=127.0.0.1:3']
";

fn load(text: &str, environment: &[(&str, &str)], flags: &[&str]) -> Result<Config, ConfigError> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("node.toml");
    std::fs::write(&file, text).unwrap();
    let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let flags: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
    Config::load(Some(&file), environment, &flags)
}

fn refused(text: &str, environment: &[(&str, &str)], flags: &[&str]) -> String {
    load(text, environment, flags).expect_err("refused").to_string()
}

#[test]
fn defaults_fill_what_is_not_given() {
    let config = load(LEAST, &[], &[]).unwrap();
    assert_eq!(config.node.id.get(), 2);
    assert_eq!(
        (config.listen.client.as_str(), config.listen.metrics.as_deref()),
        ("127.0.0.1:50051", Some("127.0.0.1:9090"))
    );
    assert_eq!(config.cluster.name, "quorate");
    assert_eq!(config.cluster.voters.len(), 3);
}

#[test]
fn one_number_is_shared_by_everything_that_takes_memory() {
    let mib = 1 << 20;
    let config = load(LEAST, &[], &[]).unwrap();
    assert_eq!((config.storage.memory_bytes, config.limits.in_flight_bytes), (256 * mib, 64 * mib));

    let config = load(LEAST, &[], &["limits.memory_bytes=1207959552", "limits.tail_cache_bytes=0"]).unwrap();
    let LimitsConfig { in_flight_bytes, queued_bytes, receive_bytes, read_ahead_bytes, tail_cache_bytes, .. } =
        config.limits;
    assert_eq!((config.storage.memory_bytes, in_flight_bytes, queued_bytes), (512 * mib, 128 * mib, 128 << 20));
    assert_eq!((receive_bytes, read_ahead_bytes, tail_cache_bytes), (128 * mib, 128 * mib, 0));
    assert!(config.report().contains("storage.memory_bytes = \"536870912\""), "{}", config.report());

    let text = refused(LEAST, &[], &["limits.memory_bytes=1000", "limits.queued_bytes=much"]);
    assert!(text.contains("limits.memory_bytes") && text.contains("1000"), "{text}");
    assert!(text.contains("auto, which is 1/9 of limits.memory_bytes, or a whole number from 18874368"), "{text}");
}

#[test]
fn a_flag_wins_over_the_environment_which_wins_over_the_file() {
    let file = format!("{LEAST}name = 'from-file'\n[log]\nlevel = 'warn'\nformat = 'json'");
    let environment = [("QUORATE_CLUSTER_NAME", "from-environment"), ("QUORATE_LOG_LEVEL", "debug")];
    let config = load(&file, &environment, &["cluster.name=from-flag"]).unwrap();
    assert_eq!(config.cluster.name, "from-flag");
    assert_eq!(config.log.level, "debug");
    assert_eq!(config.log.format, quorate_server::config::LogFormat::Json);
    let report = config.report();
    assert!(report.contains("cluster.name = \"from-flag\"   # flag --set"), "{report}");
    assert!(report.contains("log.level = \"debug\"   # environment variable QUORATE_LOG_LEVEL"), "{report}");
}

#[test]
fn an_unknown_key_is_refused_with_the_key_that_was_meant() {
    let file = format!("{LEAST}[listen]\nclinet = '127.0.0.1:1'");
    let text = refused(&file, &[], &[]);
    assert!(text.starts_with("listen.clinet: unknown key (file "), "{text}");
    assert!(text.ends_with("did you mean listen.client?"), "{text}");

    let text = refused(LEAST, &[("QUORATE_NODE_DATADIR", "x")], &[]);
    assert!(text.contains("QUORATE_NODE_DATADIR") && text.ends_with("did you mean node.data_dir?"), "{text}");

    let text = refused(LEAST, &[], &["detection.hartbeat_ms=5"]);
    assert!(text.contains("flag --set") && text.ends_with("did you mean detection.heartbeat_ms?"), "{text}");

    // Variables of the command line are none of ours.
    assert!(load(LEAST, &[("QUORATE_SERVER", "127.0.0.1:1")], &[]).is_ok());
}

#[test]
fn a_value_out_of_bounds_is_refused_with_field_value_and_limit() {
    let cases = [
        ("node.id=0", "node.id: \"0\" isn't accepted (flag --set); expected a whole number from 1 to 65535"),
        ("node.id=many", "node.id: \"many\" isn't accepted"),
        ("listen.client=nowhere", "expected host:port, such as 127.0.0.1:50051"),
        ("listen.client=host:70000", "expected host:port"),
        ("log.format=xml", "expected one of human, json"),
        ("cluster.voters=1=a:1,1=b:2", "expected one or more of NODE_ID=host:port, each node once"),
        ("cluster.voters=first=a:1", "expected one or more of NODE_ID=host:port"),
        ("detection.suspect_after_ms=299", "expected at least three heartbeats, 300"),
        ("listen.client=0.0.0.0:50051", "node.client_address: \"\" isn't accepted (default); expected an address"),
        ("node.data_dir=", "node.data_dir: required"),
        ("just-a-word", "--set just-a-word: expected section.key=value"),
    ];
    for (flag, expected) in cases {
        let text = refused(LEAST, &[], &[flag]);
        assert!(text.contains(expected), "{flag}: {text}");
    }
}

#[test]
fn all_problems_are_told_at_once() {
    let text = refused("[node]\nid = 0\nfriend = 1\n", &[], &[]);
    let fields: Vec<&str> = text.lines().filter_map(|line| line.split_once(": ").map(|(field, _)| field)).collect();
    assert_eq!(fields, ["node.friend", "node.id", "node.data_dir", "cluster.voters"], "{text}");
}

#[test]
fn a_file_that_is_missing_or_not_toml_is_refused_by_name() {
    let missing = Config::load(Some(Path::new("/no/such/file.toml")), [], &[]).expect_err("refused").to_string();
    assert!(missing.starts_with("cannot read configuration file /no/such/file.toml"), "{missing}");
    assert!(refused("[node", &[], &[]).contains("isn't valid TOML"));
}

#[test]
fn the_template_is_a_configuration_and_names_every_key() {
    let template = Config::template();
    for key in quorate_server::config::KEYS {
        assert!(template.contains(&key.variable()), "{}", key.name);
    }
    load(&template, &[], &[]).unwrap();
}

#[test]
fn the_shipped_configurations_load_and_their_ports_do_not_clash() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../cluster-configs");
    let mut addresses = BTreeSet::new();
    for (folder, nodes) in [("single", 1), ("three-node", 3), ("five-node", 5)] {
        let mut voters = None;
        for id in 1..=nodes {
            let name = if nodes == 1 { "node.toml".to_owned() } else { format!("node-{id}.toml") };
            let config = Config::load(Some(&root.join(folder).join(&name)), [], &[]).unwrap();
            assert_eq!(config.node.id.get(), id, "{folder}/{name}");
            assert!(config.is_voter());
            let own = config.cluster.voters.iter().find(|voter| voter.node == config.node.id).unwrap();
            assert_eq!(own.peer_address, config.listen.peer, "{folder}/{name}");
            for address in [config.listen.client, config.listen.peer, config.listen.metrics.unwrap()] {
                assert!(address.starts_with("127.0.0.1:"), "{address} would be reachable from outside");
                assert!(addresses.insert(address.clone()), "{address} is used twice");
            }
            let same = voters.get_or_insert_with(|| config.cluster.voters.clone());
            assert_eq!(*same, config.cluster.voters, "{folder}/{name}");
        }
    }
}
