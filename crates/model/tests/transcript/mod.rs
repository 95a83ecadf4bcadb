//! What the commands of a transcript do: one partition and one metadata machine, each behind the same
//! door that consensus uses, so that the encodings are exercised too.

mod delivery;
mod subscriptions;

use std::collections::BTreeMap;
use std::fmt::Write;

use quorate_model::partition::subscription::Snapshot;
use quorate_model::{
    Applied, Change, Codec, Effect, IndexSegment, Machine, MachineKind, MetaCommand, MetaReply, NodeId, Offset,
    PartitionCommand, PartitionId, ProducerId, ProducerStamp, Record, RecordBatchBuilder, Reply, Retention, TopicId,
    TopicName, TopicState,
};

use self::delivery::{Leader, SUBSCRIPTION};

const PARTITION: PartitionId = PartitionId::new(TopicId::new(1), 0);

pub(crate) struct World {
    partition: Machine,
    meta: Machine,
    index: u64,
    segments: Vec<IndexSegment>,
    leader: Leader,
    snapshot: Snapshot,
}

/// `word word key=value key=value`
struct Line<'a> {
    words: Vec<&'a str>,
    values: BTreeMap<&'a str, &'a str>,
}

impl<'a> Line<'a> {
    fn parse(line: &'a str) -> Self {
        let (values, words): (Vec<&str>, Vec<&str>) = line.split_whitespace().partition(|part| part.contains('='));
        Line { words, values: values.into_iter().map(|part| part.split_once('=').unwrap()).collect() }
    }

    fn word(&self, at: usize) -> &'a str {
        self.words.get(at).copied().unwrap_or_default()
    }

    fn number(&self, key: &str) -> Option<u64> {
        self.values.get(key).map(|value| value.parse().unwrap())
    }

    fn labels(&self) -> Option<BTreeMap<String, String>> {
        let labels = self.values.get("labels")?.split(',').map(|label| label.split_once(':').unwrap());
        Some(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).collect())
    }

    fn text(&self, key: &str) -> String {
        self.values.get(key).copied().unwrap_or_default().to_owned()
    }
}

impl World {
    pub(crate) fn new() -> Self {
        World {
            partition: Machine::new(MachineKind::Partition(PARTITION)),
            meta: Machine::new(MachineKind::Meta),
            index: 0,
            segments: Vec::new(),
            leader: Leader::default(),
            snapshot: Snapshot::default(),
        }
    }

    pub(crate) fn run(&mut self, line: &str) -> String {
        let line = Line::parse(line);
        if let Some(answer) = self.leader.obey(&line, self.partition.as_partition().unwrap()) {
            return answer;
        }
        match line.word(0) {
            "append" => self.append(&line),
            "publish" => {
                self.leader.published(&line);
                self.append(&line)
            }
            "release-due" => {
                let time_ms = self.leader.now_ms();
                self.apply_partition(&PartitionCommand::Release { time_ms }.encode())
            }
            "begin" => self.begin(Offset::new(line.number("at").unwrap_or(0))),
            "end" => self.apply_partition(&PartitionCommand::EndSubscription { subscription: SUBSCRIPTION }.encode()),
            "commit" => match self.leader.proposal() {
                Some(proposal) => self.apply_partition(&proposal.encode()) + &self.leader.committed(),
                None => "nothing to propose\n".to_owned(),
            },
            "seek" => {
                let (subscription, to) = (SUBSCRIPTION, Offset::new(line.number("to").unwrap()));
                let request = line.number("request").unwrap();
                self.apply_partition(&PartitionCommand::Seek { subscription, request, to }.encode())
            }
            "delete-messages" => {
                let offsets = line.words[1..].iter().map(|word| Offset::new(word.parse().unwrap()));
                let ranges = offsets.map(|offset| offset..offset.next()).collect();
                self.apply_partition(&PartitionCommand::Delete { ranges }.encode())
            }
            "snapshot" => {
                let partition = self.partition.as_partition().unwrap();
                self.snapshot = partition.subscriptions().get(SUBSCRIPTION).unwrap().snapshot();
                "taken\n".to_owned()
            }
            "restore" => {
                let (subscription, request) = (SUBSCRIPTION, line.number("request").unwrap());
                let snapshot = self.snapshot.clone();
                self.apply_partition(&PartitionCommand::Restore { subscription, request, snapshot }.encode())
            }
            "letters-sent" => {
                let (subscription, next) = (SUBSCRIPTION, line.number("next").unwrap() as u32);
                self.apply_partition(&PartitionCommand::DeadLettersSent { subscription, next }.encode())
            }
            "drain" => self.drain(),
            // The leader proposed it, and was gone before it was carried out.
            "commit-unheard" => {
                let proposal = self.leader.proposal().unwrap();
                self.apply_partition(&proposal.encode())
            }
            "subscription" => {
                let partition = self.partition.as_partition().unwrap();
                partition.subscriptions().get(SUBSCRIPTION).map_or("unknown\n".to_owned(), delivery::state_text)
            }
            "append-each" => self.append_each(&line),
            "garbage" => self.apply_partition(&b"\x63garbage"[..].into()),
            "malformed" => {
                let batch = b"not a batch"[..].into();
                self.apply_partition(&PartitionCommand::Append { time_ms: 0, batch }.encode())
            }
            "blank" => self.blank(line.number("entries").unwrap_or(1)),
            "mark" => self.apply_partition(&PartitionCommand::Mark.encode()),
            "trim" => {
                let offset = Offset::new(line.number("to").unwrap());
                self.apply_partition(&PartitionCommand::TrimTo { offset }.encode())
            }
            "restart" => self.restart(),
            "partition" => self.show_partition(),
            "index" => self.show_index(),
            "node" | "create" | "update" | "delete" => self.apply_meta(&meta_command(&line)),
            "subscribe" | "change" | "unsubscribe" => self.apply_meta(&subscriptions::command(&line)),
            "map" => self.show_map(),
            other => panic!("unknown command {other:?}"),
        }
    }

    fn append(&mut self, line: &Line<'_>) -> String {
        let producer = line.number("producer").map(|id| ProducerStamp {
            id: ProducerId::new(id),
            epoch: line.number("epoch").unwrap_or(0) as u32,
            base_sequence: line.number("sequence").unwrap_or(0),
        });
        let mut batch = RecordBatchBuilder::new(PARTITION, Codec::None, producer);
        let time = line.number("time").unwrap_or(0);
        let bytes = line.number("bytes").unwrap_or(1) as usize;
        let data = line.text("data") + &".".repeat(bytes);
        let options = delivery::options(line);
        for _ in 0..line.number("records").unwrap_or(1) {
            batch.push(Record { options, ..Record::new(time, "", [], data.clone()) }).unwrap();
        }
        let batch = batch.build().unwrap().bytes().clone();
        self.apply_partition(&PartitionCommand::Append { time_ms: time, batch }.encode())
    }

    /// Delivers and acknowledges until nothing is left. What was read again is told, and how much was delivered at a time.
    fn drain(&mut self) -> String {
        let (mut out, mut delivered) = (String::new(), Vec::new());
        loop {
            let partition = self.partition.as_partition().unwrap();
            let told = self.leader.obey(&Line::parse("deliver"), partition).unwrap();
            told.lines().filter(|line| line.starts_with("read")).for_each(|line| writeln!(out, "{line}").unwrap());
            let acknowledged = self.leader.acknowledge_all();
            let (Some(first), Some(last)) = (acknowledged.first(), acknowledged.last()) else { break };
            writeln!(out, "{} of {first}..={last}", acknowledged.len()).unwrap();
            delivered.extend(acknowledged);
            let proposal = self.leader.proposal().unwrap().encode();
            self.apply_partition(&proposal);
            self.leader.committed();
        }
        assert!(delivered.is_sorted(), "out of order: {delivered:?}");
        out
    }

    fn begin(&mut self, start: Offset) -> String {
        let subscription = SUBSCRIPTION;
        self.apply_partition(&PartitionCommand::BeginSubscription { subscription, start }.encode())
    }

    /// One record from each producer of a range.
    fn append_each(&mut self, line: &Line<'_>) -> String {
        let (from, to) = (line.number("from").unwrap(), line.number("to").unwrap());
        for producer in from..=to {
            let answer = self.run(&format!("append producer={producer}"));
            assert!(answer.contains("appended"), "{answer}");
        }
        let machine = self.partition.as_partition().unwrap();
        format!("remembered producers: {}\n", machine.producer_count())
    }

    fn apply_partition(&mut self, command: &bytes::Bytes) -> String {
        let index = self.index;
        self.index += 1;
        let applied = self.partition.apply(index, command);
        format!("index {index}: {}", self.tell(applied))
    }

    fn apply_meta(&mut self, command: &MetaCommand) -> String {
        let applied = self.meta.apply(0, &command.encode());
        self.tell(applied)
    }

    fn blank(&mut self, entries: u64) -> String {
        let mut out = String::new();
        for _ in 0..entries {
            let changes = self.partition.skip(self.index);
            self.index += 1;
            self.keep(&changes, &mut out);
        }
        out
    }

    /// Both machines are lost and come back from their checkpoints.
    fn restart(&mut self) -> String {
        for machine in [&mut self.partition, &mut self.meta] {
            let checkpoint = machine.checkpoint();
            let restored = Machine::restore(machine.kind(), &checkpoint).unwrap();
            assert_eq!(&restored, machine);
            assert_eq!(restored.checkpoint(), checkpoint);
            *machine = restored;
        }
        String::new()
    }

    fn show_partition(&self) -> String {
        let machine = self.partition.as_partition().unwrap();
        let (start, end, bytes) = (machine.log_start(), machine.next_offset(), machine.bytes());
        format!("offsets {start}..{end}, {bytes} bytes, {} producers\n", machine.producer_count())
    }

    fn show_index(&self) -> String {
        let mut out = String::new();
        for segment in &self.segments {
            writeln!(out, "closed {}", segment_text(segment)).unwrap();
        }
        let open = self.partition.as_partition().unwrap().open_segment();
        writeln!(out, "open   {}", segment_text(open)).unwrap();
        out
    }

    fn show_map(&self) -> String {
        let map = self.meta.as_meta().unwrap().cluster_map();
        let mut out = format!("version {}\n", map.version);
        for (node, info) in &map.nodes {
            writeln!(out, "node {node} at {}, peers {}", info.client_address, info.peer_address).unwrap();
        }
        for topic in map.topics.values() {
            out.push_str(&topic_text(topic));
        }
        for subscription in map.subscriptions.values() {
            out.push_str(&subscriptions::text(subscription));
        }
        let deleted: Vec<String> = map.tombstones.iter().map(|group| group.to_string()).collect();
        if !deleted.is_empty() {
            writeln!(out, "deleted groups {}", deleted.join(" ")).unwrap();
        }
        out
    }

    fn tell(&mut self, applied: Applied) -> String {
        let mut out = match applied.reply {
            Reply::Partition(Ok(appended)) => {
                let base = appended.base_offset.get();
                let end = base + u64::from(appended.count);
                let what = if appended.duplicate { "duplicate of" } else { "appended" };
                format!("{what} {base}..{end}\n")
            }
            Reply::Partition(Err(rejected)) => format!("{}: {rejected}\n", rejected.reason()),
            Reply::Meta(Ok(reply)) => meta_reply(&reply),
            Reply::Meta(Err(rejected)) => format!("{}: {rejected}\n", rejected.reason()),
            Reply::Subscription(outcome) => delivery::reply_text(&outcome),
            Reply::Released(time_ms) => format!("released to {time_ms} ms\n"),
            Reply::LogStart(offset) => format!("log starts at {offset}\n"),
            Reply::Seeked(offset) => format!("stands at {offset}\n"),
            Reply::Deleted(Ok(count)) => format!("deleted {count}\n"),
            Reply::Deleted(Err(rejected)) => format!("{rejected}\n"),
            Reply::Refused(why) => format!("refused: {why}\n"),
        };
        self.keep(&applied.changes, &mut out);
        for effect in applied.effects {
            if effect == Effect::MapChanged {
                let version = self.meta.as_meta().unwrap().version();
                writeln!(out, "map version {version}").unwrap();
            }
        }
        out
    }

    fn keep(&mut self, changes: &[Change], out: &mut String) {
        for change in changes {
            match change {
                Change::Segment(segment) => {
                    writeln!(out, "segment {}", segment_text(segment)).unwrap();
                    self.segments.push(*segment);
                }
                Change::Checkpoint => out.push_str("checkpoint\n"),
                Change::Lanes(positions) => self.leader.placed(positions),
                Change::LanesTrimmed(trimmed) => self.leader.trimmed(trimmed),
            }
        }
    }
}

fn segment_text(segment: &IndexSegment) -> String {
    let marks: String = segment.indices().map(|index| if segment.is_accepted(index) { '+' } else { '.' }).collect();
    format!(
        "indices {}..{} [{marks}] offsets {}..{} until {} ms",
        segment.first_index,
        segment.indices().end,
        segment.base_offset,
        segment.end_offset,
        segment.max_timestamp_ms
    )
}

fn meta_command(line: &Line<'_>) -> MetaCommand {
    let topic = || TopicName::parse(line.word(1)).unwrap();
    let labels = || line.labels();
    match line.word(0) {
        "node" => MetaCommand::RegisterNode {
            node: NodeId::new(line.word(1).parse().unwrap()),
            client_address: line.text("client"),
            peer_address: line.text("peer"),
            store_id: line.number("store").unwrap(),
        },
        "create" => MetaCommand::CreateTopic {
            time_ms: 0,
            request_id: line.text("request"),
            name: topic(),
            partitions: line.number("partitions").unwrap_or(1) as u32,
            replication_factor: line.number("replication").map(|factor| factor as u32),
            retention: Retention::default(),
            max_message_bytes: line.number("max").unwrap_or(1 << 20),
            labels: labels().unwrap_or_default(),
        },
        "update" => MetaCommand::UpdateTopic {
            request_id: line.text("request"),
            name: topic(),
            etag: line.number("etag"),
            retention: line.number("age").map(|age| Retention { age_ms: Some(age), ..Retention::default() }),
            max_message_bytes: line.number("max"),
            labels: labels(),
        },
        "delete" => MetaCommand::DeleteTopic { request_id: line.text("request"), name: topic() },
        other => panic!("unknown command {other:?}"),
    }
}

fn meta_reply(reply: &MetaReply) -> String {
    match reply {
        MetaReply::NodeRegistered { version } => format!("registered as of version {version}\n"),
        MetaReply::TopicCreated { topic, existing } => {
            let what = if *existing { "exists from an earlier attempt" } else { "created" };
            format!("{what}: {}", topic_text(topic))
        }
        MetaReply::TopicUpdated { topic } => format!("updated: {}", topic_text(topic)),
        MetaReply::TopicDeleted { topic } => format!("deleted topic {topic}\n"),
        MetaReply::SubscriptionCreated { subscription, existing } => {
            let what = if *existing { "exists from an earlier attempt" } else { "created" };
            format!("{what}: {}", subscriptions::text(subscription))
        }
        MetaReply::SubscriptionUpdated { subscription } => format!("updated: {}", subscriptions::text(subscription)),
        MetaReply::SubscriptionDeleted { subscription, version } => {
            format!("deleted subscription {subscription} as of version {version}\n")
        }
    }
}

fn topic_text(topic: &TopicState) -> String {
    let mut out = format!(
        "topic {} {}, etag {}, messages up to {} bytes, kept {:?} ms, labels {:?}\n",
        topic.id,
        topic.name,
        topic.etag,
        topic.max_message_bytes,
        topic.retention.age_ms.unwrap_or_default(),
        topic.labels
    );
    for (partition, state) in topic.partition_ids() {
        let replicas: Vec<String> =
            state.replicas.iter().map(|replica| format!("{} on node {}", replica.id, replica.node)).collect();
        writeln!(out, "  {partition} group {}: {}", state.group, replicas.join(", ")).unwrap();
    }
    out
}
