//! The command line as its user sees it: help, wrong usage, and wrong input, each with its reason.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod support;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};
use support::{Cluster, User};

#[test]
fn help_and_version_are_printed_without_a_cluster() {
    let user = User::new();
    let help = user.run(&["--help"]).ok().text();
    for command in [
        "dev",
        "server",
        "topic",
        "subscription",
        "dlq",
        "pub",
        "read",
        "cluster",
        "bench",
        "explain",
        "context",
        "completion",
    ] {
        assert!(help.contains(command), "{command} in:\n{help}");
        assert!(!user.run(&[command, "--help"]).ok().text().is_empty());
    }
    assert!(user.run(&["--version"]).ok().text().starts_with("quorate 0."));
}

#[test]
fn wrong_usage_ends_with_2_and_says_what_is_expected() {
    let user = User::new();
    user.run(&[]).fails(2, &["Usage"]);
    user.run(&["publish-all"]).fails(2, &["unrecognized subcommand"]);
    user.run(&["topic", "create"]).fails(2, &["NAME"]);
    user.run(&["topic", "create", "a", "--partitions", "many"]).fails(2, &["--partitions"]);
    user.run(&["topic", "create", "a", "--retention", "soon"]).fails(2, &["--retention"]);
    let create = ["subscription", "create", "a", "--topic", "b"];
    let refuse = |flags: &[&str], texts: &[&str]| user.run(&[&create, flags].concat()).fails(2, texts);
    refuse(&["--retry", "sometimes"], &["--retry", "exponential:1s..10m"]);
    refuse(&["--ack-deadline", "soon"], &["--ack-deadline"]);
    refuse(&["--from", "yesterday"], &["--from", "earliest"]);
    refuse(&["--max-attempts", "0"], &["--max-attempts"]);
    refuse(&["--label", "no-equals-sign"], &["KEY=VALUE"]);
    user.run(&["subscription", "create", "a"]).fails(2, &["--topic"]);
    user.run(&["subscription", "update", "a", "--no-filter", "--filter", "true"]).fails(2, &["cannot be used"]);
    user.run(&["subscription", "test-filter", "--filter", "true"]).fails(2, &["--topic", "--subscription"]);
    user.run(&["subscription", "test-filter", "--topic", "a"]).fails(2, &["--filter"]);
    user.run(&["subscription", "test-filter", "--subscription", "a", "--last", "1001"]).fails(2, &["--last"]);
    user.run(&["subscription", "update", "a", "--no-dead-letters", "--max-attempts", "3"])
        .fails(2, &["cannot be used"]);
    user.run(&["read", "a", "--from", "yesterday"]).fails(2, &["--from", "earliest"]);
    user.run(&["read", "a", "--from", "-1"]).fails(2, &["--from"]);
    user.run(&["read", "a", "--from", "2025-13-01T00:00:00Z"]).fails(2, &["--from"]);
    user.run(&["read", "a", "--from", "0", "--last", "2"]).fails(2, &["--last"]);
    user.run(&["pub", "a", "b", "-H", "no-equals-sign"]).fails(2, &["KEY=VALUE"]);
    user.run(&["-o", "raw", "topic", "ls"]).fails(2, &["raw"]);
    user.run(&["--server", "not-an-address", "topic", "ls"]).fails(2, &["not-an-address", "HOST:PORT"]);
    user.run(&["dev", "--nodes", "0"]).fails(2, &["--nodes"]);
    user.run(&["dev", "kill", "someone"]).fails(2, &["leader"]);
}

#[test]
fn every_reason_is_explained() {
    let user = User::new();
    let one = user.run(&["explain", "not_leader"]).ok().text();
    assert!(one.contains("NOT_LEADER") && one.contains("UNAVAILABLE"), "{one}");
    user.run(&["explain", "NO_SUCH_THING"]).fails(2, &["NO_SUCH_THING", "--all"]);

    let all = user.run(&["explain", "--all", "-o", "json"]).ok().objects();
    let page = user.run(&["explain", "--all", "--markdown"]).ok().text();
    assert!(all.len() > 15);
    for row in all {
        let reason = row["reason"].as_str().unwrap();
        assert!(page.contains(&format!("| `{reason}` |")), "{reason} in:\n{page}");
        assert!(row["advice"].as_str().is_some_and(|advice| !advice.is_empty()), "{row}");
    }
}

#[test]
fn shells_get_their_completions() {
    let user = User::new();
    for shell in ["bash", "zsh", "fish"] {
        assert!(user.run(&["completion", shell]).ok().text().contains("quorate"), "{shell}");
    }
}

#[test]
fn contexts_are_set_selected_and_used() {
    let user = User::new();
    assert_eq!(user.run(&["context", "ls", "-o", "json"]).ok().text(), "");
    user.run(&["context", "use", "far"]).fails(1, &["far", "context set"]);
    user.run(&["context", "set", "far", "localhost"]).fails(2, &["HOST:PORT"]);
    user.run(&["context", "set", "far", "127.0.0.1:1,127.0.0.1:2"]).ok();
    user.run(&["context", "use", "far"]).ok();
    let row = user.run(&["context", "ls", "-o", "json"]).ok().object();
    assert_eq!((row["name"].as_str(), row["selected"].as_bool()), (Some("far"), Some(true)));

    // The selected context is where commands go; a flag wins over it.
    user.run(&["--timeout", "1s", "topic", "ls"]).fails(1, &["127.0.0.1:"]);
    user.run(&["--timeout", "1s", "--server", "127.0.0.1:3", "topic", "ls"]).fails(1, &["127.0.0.1:3"]);
}

#[test]
fn a_dead_or_silent_address_is_given_up_in_time() {
    let user = User::new();
    // Accepts connections and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = silent.local_addr().unwrap().to_string();
    for address in ["127.0.0.1:1", silent.as_str()] {
        for command in [&["topic", "ls"][..], &["pub", "a", "b"], &["read", "a", "--exit"], &["cluster", "status"]] {
            let started = Instant::now();
            let arguments = [&["--server", address, "--timeout", "2s"][..], command].concat();
            user.run(&arguments).fails(1, &["error", "next:"]);
            assert!(started.elapsed() < Duration::from_secs(20), "{arguments:?} took {:?}", started.elapsed());
        }
    }
}

#[test]
fn a_configuration_is_checked_without_starting_anything() {
    let user = User::new();
    let file = user.home().join("node.toml");
    let path = file.to_str().unwrap();
    user.run(&["server", "check", "--config", path]).fails(1, &["node.toml"]);
    let template = user.run(&["server", "template"]).ok().text();
    std::fs::write(&file, &template).unwrap();
    let report = user.run(&["server", "check", "--config", path, "--set", "log.level=debug"]).ok().text();
    assert!(report.contains("log.level") && report.contains("debug"), "{report}");
    std::fs::write(&file, template.replace("\nid = ", "\nidd = ")).unwrap();
    user.run(&["server", "check", "--config", path]).fails(1, &["node.idd", "node.id"]);
}

#[test]
fn wrong_input_is_refused_with_its_reason_and_leaves_nothing_behind() {
    let cluster = Cluster::start(3);
    let refuse = |arguments: &[&str], says: &[&str]| _ = cluster.run(arguments).fails(1, says);

    // Names.
    refuse(&["topic", "create", ""], &["INVALID_NAME"]);
    refuse(&["topic", "create", &"x".repeat(250)], &["INVALID_NAME", "249"]);
    refuse(&["topic", "create", "no spaces"], &["INVALID_NAME"]);
    refuse(&["topic", "create", "_system"], &["RESERVED_NAME"]);

    // Numbers.
    cluster.run(&["topic", "create", "books", "--partitions", "0"]).fails(2, &["--partitions", "1.."]);
    refuse(&["topic", "create", "books", "--partitions", "1001"], &["PARTITIONS", "1000"]);
    refuse(&["topic", "create", "books", "--replication-factor", "4"], &["REPLICATION_FACTOR", "3"]);
    assert_eq!(cluster.run(&["topic", "ls", "-o", "json"]).ok().text(), "");

    // Topics that are there already, or are not.
    cluster.run(&["topic", "create", "books", "--max-message-bytes", "1000"]).ok();
    refuse(&["topic", "create", "books"], &["TOPIC_EXISTS", "books"]);
    for command in [
        &["topic", "get", "films"][..],
        &["topic", "delete", "films"],
        &["pub", "films", "x"],
        &["read", "films", "--exit"],
    ] {
        refuse(command, &["TOPIC_NOT_FOUND", "films"]);
    }

    // Messages.
    let large = "x".repeat(2000);
    refuse(&["pub", "books", &large], &["MESSAGE_TOO_LARGE", "1000", "1 failed", "0 unknown"]);
    let attributes: Vec<String> = (0..101).map(|number| format!("a{number}=1")).collect();
    let flags: Vec<&str> = attributes.iter().flat_map(|attribute| ["-H", attribute]).collect();
    refuse(&[&["pub", "books", "x"], &flags[..]].concat(), &["ATTRIBUTES", "100"]);
    refuse(&["pub", "books", "x", "--partition", "7"], &["PARTITION_NOT_FOUND"]);

    // A failure among successes is counted, and doesn't take the others with it.
    let input = format!("good\n{large}\nalso good");
    let said = cluster.user().run_with_input(&["pub", "books", "-o", "json"], input.as_bytes());
    let said = said.fails(1, &["line 2", "MESSAGE_TOO_LARGE", "1 failed"]);
    assert_eq!((said.object()["published"].as_u64(), said.object()["failed"].as_u64()), (Some(2), Some(1)));

    // Positions.
    refuse(&["read", "books", "--from", "99", "--exit"], &["OFFSET_OUT_OF_RANGE"]);
    refuse(&["read", "books", "--partition", "7", "--exit"], &["PARTITION_NOT_FOUND"]);

    // Nothing of it did any harm.
    let read = cluster.run(&["read", "books", "--from", "earliest", "--exit", "-o", "raw"]).ok();
    assert_eq!(read.text(), "good\nalso good\n");
}

#[test]
fn topics_are_created_changed_listed_and_deleted() {
    let cluster = Cluster::start(1);
    let created = cluster.run(&[
        "topic",
        "create",
        "tea",
        "--partitions",
        "2",
        "--retention",
        "1h",
        "--label",
        "kind=drink",
        "-o",
        "json",
    ]);
    let created = created.ok();
    // One node can't keep three copies, which is said but is no failure.
    assert!(created.err.contains("replication"), "{}", created.err);
    let topic = created.object();
    assert_eq!((topic["partitions"].as_u64(), topic["replication_factor"].as_u64()), (Some(2), Some(1)));
    assert_eq!(topic["labels"]["kind"], "drink");

    let etag = topic["etag"].as_str().unwrap();
    let update = ["topic", "update", "tea", "--max-message-bytes", "2048", "--etag", etag, "-o", "json"];
    let updated = cluster.run(&update).ok().object();
    assert_eq!(updated["max_message_bytes"], 2048);
    assert_eq!(updated["labels"]["kind"], "drink", "what isn't named stays: {updated}");
    // Whoever looked before the change must look again.
    cluster.run(&["topic", "update", "tea", "--retention", "2h", "--etag", etag]).fails(1, &["ETAG_MISMATCH"]);
    cluster
        .run(&["topic", "update", "tea", "--retention", "2h", "--etag", "nonsense"])
        .fails(1, &["INVALID_ARGUMENT", "etag"]);
    cluster.run(&["topic", "update", "tea"]).fails(2, &["nothing to change"]);

    cluster.run(&["topic", "create", "coffee"]).ok();
    let names: Vec<_> = cluster.run(&["topic", "ls", "-o", "json"]).ok().objects();
    let names: Vec<_> = names.iter().map(|topic| topic["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["coffee", "tea"]);
    cluster.run(&["topic", "delete", "coffee"]).ok();
    cluster.run(&["topic", "get", "coffee"]).fails(1, &["TOPIC_NOT_FOUND"]);
}

#[test]
fn subscriptions_are_created_changed_listed_and_deleted() {
    let cluster = Cluster::start(1);
    for topic in ["tea", "coffee", "dregs"] {
        cluster.run(&["topic", "create", topic]).ok();
    }
    let create = [
        "subscription",
        "create",
        "waiters",
        "--topic",
        "tea",
        "--ack-deadline",
        "1m",
        "--retry",
        "linear:1s+2s..1m",
        "--dead-letter-topic",
        "dregs",
        "--ordered",
        "--label",
        "team=floor",
        "-o",
        "json",
    ];
    let created = cluster.run(&create).ok().object();
    assert_eq!((created["topic"].as_str(), created["ack_deadline"].as_str()), (Some("tea"), Some("1m")));
    assert_eq!((created["retry"].as_str(), created["ordered"].as_bool()), (Some("linear:1s+2s..1m"), Some(true)));
    assert_eq!((created["dead_letter_topic"].as_str(), created["max_attempts"].as_u64()), (Some("dregs"), Some(5)));
    assert_eq!(created["labels"]["team"], "floor");
    cluster.run(&create).fails(1, &["SUBSCRIPTION_EXISTS"]);

    // What isn't named stays, also within the policy.
    let etag = created["etag"].as_str().unwrap();
    let change = |flags: &[&str]| cluster.run(&[&["subscription", "update", "waiters", "-o", "json"], flags].concat());
    let changed = change(&["--max-attempts", "9", "--etag", etag]).ok().object();
    assert_eq!((changed["dead_letter_topic"].as_str(), changed["max_attempts"].as_u64()), (Some("dregs"), Some(9)));
    assert_eq!(changed["retry"], "linear:1s+2s..1m");
    change(&["--retry", "immediate", "--etag", etag]).fails(1, &["ETAG_MISMATCH"]);
    change(&[]).fails(2, &["nothing to change"]);
    assert_eq!(change(&["--retry", "list:1s,5s"]).ok().object()["retry"], "list:1s,5s");

    // The topic of dead letters stays for as long as they go there.
    cluster.run(&["topic", "delete", "dregs"]).fails(1, &["TOPIC_IN_USE", "waiters"]);
    assert!(change(&["--no-dead-letters"]).ok().object()["dead_letter_topic"].is_null());
    change(&["--max-attempts", "3"]).fails(2, &["--dead-letter-topic"]);
    cluster.run(&["topic", "delete", "dregs"]).ok();

    cluster.run(&["subscription", "create", "baristas", "--topic", "coffee"]).ok();
    let names = |flags: &[&str]| -> Vec<String> {
        let listed = cluster.run(&[&["subscription", "ls", "-o", "json"], flags].concat()).ok().objects();
        listed.iter().map(|subscription| subscription["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&[]), ["baristas", "waiters"]);
    assert_eq!(names(&["--topic", "tea"]), ["waiters"]);
    cluster.run(&["subscription", "ls", "--topic", "milk"]).fails(1, &["TOPIC_NOT_FOUND"]);
    let shown = cluster.run(&["subscription", "get", "waiters"]).ok().text();
    assert!(
        shown.contains("list:1s,5s") && shown.contains("by ordering key") && shown.contains("team=floor"),
        "{shown}"
    );

    // What it gets, tried before it is decided.
    assert!(change(&["--ack-deadline", "2m"]).ok().object()["filter"].is_null());
    cluster.run(&["pub", "tea", "-H", "kind=green", "a cup"]).ok();
    cluster.run(&["pub", "tea", "another"]).ok();
    let green = r#"attributes["kind"] == "green""#;
    let test = |flags: &[&str]| cluster.run(&[&["subscription", "test-filter"], flags].concat());
    let tested = test(&["--topic", "tea", "--filter", green, "-o", "json"]).ok().object();
    let counts = ["tested", "matched", "failed"].map(|count| tested[count].as_u64());
    assert_eq!(counts, [Some(2), Some(1), Some(1)]);
    assert_eq!(tested["matches"][0]["attributes"]["kind"], "green");
    assert_eq!(tested["failure"]["error"], "No such key: kind");
    test(&["--subscription", "waiters"]).fails(1, &["filter: required"]);
    assert_eq!(change(&["--filter", green]).ok().object()["filter"], green);
    assert_eq!(change(&["--ack-deadline", "1m"]).ok().object()["filter"], green, "what isn't named stays");
    let text = test(&["--subscription", "waiters"]).ok().text();
    assert!(text.starts_with("1 of 2 messages match; the filter fails for 1") && text.contains("kind=green"), "{text}");
    assert!(cluster.run(&["subscription", "get", "waiters"]).ok().text().contains(green));
    change(&["--filter", "kind == 'green'"]).fails(1, &["INVALID_FILTER", "line 1, column 1", "kind"]);
    assert!(change(&["--no-filter"]).ok().object()["filter"].is_null());

    cluster.run(&["subscription", "delete", "waiters"]).ok();
    cluster.run(&["subscription", "delete", "waiters"]).fails(1, &["SUBSCRIPTION_NOT_FOUND"]);
    cluster.run(&["topic", "delete", "coffee"]).ok();
    assert_eq!(names(&[]).len(), 0, "a subscription ends with its topic");
}

#[test]
fn what_a_subscription_cannot_be_is_refused_with_its_reason() {
    let cluster = Cluster::start(1);
    cluster.run(&["topic", "create", "tea"]).ok();
    cluster.run(&["topic", "create", "dregs"]).ok();
    cluster.run(&["pub", "tea", "one", "two"]).ok();
    let refuse = |flags: &[&str], texts: &[&str]| {
        cluster.run(&[&["subscription", "create", "waiters", "--topic", "tea"], flags].concat()).fails(1, texts);
    };
    refuse(&["--from", "3"], &["OFFSET_OUT_OF_RANGE", "tea/0", "0 to 2"]);
    refuse(&["--ack-deadline", "500ms"], &["INVALID_ARGUMENT", "ack_deadline", "500", "1000"]);
    refuse(&["--retry", "fixed:13h"], &["INVALID_ARGUMENT", "retry_policy.fixed.pause"]);
    refuse(&["--retry", "exponential:2s..1s"], &["INVALID_ARGUMENT", "retry_policy.exponential.minimum"]);
    refuse(&["--dead-letter-topic", "tea"], &["INVALID_ARGUMENT", "dead_letter_policy.topic"]);
    refuse(&["--dead-letter-topic", "grounds"], &["TOPIC_NOT_FOUND", "grounds"]);
    let many = ["--dead-letter-topic", "dregs", "--max-attempts", "1001"];
    refuse(&many, &["INVALID_ARGUMENT", "max_delivery_attempts", "1001", "1000"]);
    let other = |arguments: &[&str], texts: &[&str]| {
        cluster.run(&[&["subscription", "create"], arguments].concat()).fails(1, texts);
    };
    other(&["waiters", "--topic", "milk"], &["TOPIC_NOT_FOUND", "milk"]);
    other(&["_waiters", "--topic", "tea"], &["RESERVED_NAME", "subscription name"]);
    other(&["wait ers", "--topic", "tea"], &["INVALID_NAME", "subscription name"]);
    assert_eq!(cluster.run(&["subscription", "ls", "-o", "json"]).ok().text(), "");
}

#[test]
fn messages_are_read_from_where_one_asks() {
    let cluster = Cluster::start(1);
    cluster.run(&["topic", "create", "tea"]).ok();
    cluster.run(&["pub", "tea", "zero", "one"]).ok();
    cluster.run(&["pub", "tea", "two", "-k", "cup", "-H", "kind=green", "--compression", "zstd"]).ok();
    let raw = |flags: &[&str]| cluster.run(&[&["read", "tea", "--exit", "-o", "raw"], flags].concat()).ok().text();
    assert_eq!(raw(&["--from", "earliest"]), "zero\none\ntwo\n");
    assert_eq!(raw(&["--from", "1"]), "one\ntwo\n");
    assert_eq!(raw(&["--from", "3"]), "", "the end is a position");
    assert_eq!(raw(&["--from", "latest"]), "");
    assert_eq!(raw(&["--last", "2"]), "one\ntwo\n");
    assert_eq!(raw(&["--from", "earliest", "--count", "1"]), "zero\n");
    assert_eq!(raw(&["--from", "2020-01-01T00:00:00Z"]), "zero\none\ntwo\n");
    assert_eq!(raw(&["--from", "10000d ago"]), "zero\none\ntwo\n");

    let message = cluster.run(&["read", "tea", "--from", "2", "--exit", "-o", "json"]).ok().object();
    assert_eq!(message["topic"], "tea");
    assert_eq!((message["partition"].as_u64(), message["offset"].as_u64()), (Some(0), Some(2)));
    assert_eq!((message["ordering_key"].as_str(), message["data"].as_str()), (Some("cup"), Some("two")));
    assert_eq!(message["attributes"]["kind"], "green");
    assert!(message["publish_time"].as_str().is_some_and(|time| time.ends_with('Z')), "{message}");
    assert!(message["message_id"].as_str().is_some_and(|id| !id.is_empty()), "{message}");

    // Without --exit it waits for what comes.
    let arguments = ["read", "tea", "--from", "latest", "--count", "1", "-o", "raw"];
    let mut follower = cluster.user().command(&arguments).spawn().unwrap();
    support::eventually("the waiting reader gets a message", || {
        cluster.run(&["pub", "tea", "fresh"]).ok();
        follower.try_wait().unwrap()
    });
    assert_eq!(support::finish(follower, &arguments).ok().text(), "fresh\n");

    // --count repeats an argument.
    let summary = cluster.run(&["pub", "tea", "again", "--count", "3", "-o", "json"]).ok().object();
    assert_eq!(summary["published"], 3);
    assert_eq!(raw(&["--last", "3"]), "again\nagain\nagain\n");
}

#[test]
fn a_cluster_in_the_foreground_gives_a_tour_and_ends_with_an_interrupt() {
    let user = User::new();
    let arguments = ["dev", "--nodes", "1", "--ephemeral"];
    let mut foreground = user.command(&arguments).spawn().unwrap();
    let mut out = BufReader::new(foreground.stdout.take().unwrap()).lines();
    let tour: Vec<String> = out.by_ref().map(Result::unwrap).take_while(|line| !line.starts_with("Ctrl-C")).collect();
    let tour = tour.join("\n");
    assert!(tour.contains("Hello, Quorate") && tour.contains("quorate dev kill leader"), "{tour}");

    // Commands from another terminal find it, without being told where it is.
    let node = user.run(&["dev", "status", "-o", "json"]).ok().object();
    assert_eq!(node["state"], "running");
    assert_eq!(user.run(&["read", "hello", "--exit", "-o", "raw"]).ok().text(), "Hello, Quorate\n");

    kill(Pid::from_raw(foreground.id() as i32), Signal::SIGINT).unwrap();
    support::finish(foreground, &arguments).ok();
    user.run(&["dev", "status"]).fails(1, &["no development cluster"]);
    assert!(!Path::new(node["config"].as_str().unwrap()).exists());
}

#[test]
fn health_says_by_its_exit_code_what_a_script_needs() {
    let cluster = Cluster::start(3);
    cluster.run(&["topic", "create", "tea"]).ok();
    cluster.run(&["cluster", "health", "--wait"]).ok();
    cluster.run(&["dev", "kill", "3"]).ok();
    support::eventually("the dead node is noticed", || {
        let said = cluster.run(&["cluster", "health", "-o", "json"]);
        (said.code == Some(10)).then(|| assert!(said.text().contains("node 3"), "{}", said.text()))
    });
    let status = cluster.run(&["cluster", "status", "-o", "json"]).ok().object();
    assert_eq!(status["nodes"].as_array().map(Vec::len), Some(3), "{status}");
    cluster.run(&["dev", "restart", "3"]).ok();
    cluster.run(&["cluster", "health", "--wait"]).ok();
}
