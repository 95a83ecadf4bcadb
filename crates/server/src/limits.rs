//! Bounds of the front door that nobody would want to set, each with its reason. Bounds on messages and names
//! are the model's; bounds that depend on the machine are in the configuration.

use std::time::Duration;

use quorate_model::limits::SNAPSHOT_BYTES_MAX;

/// Longest a request without a deadline of its own may take; longer deadlines are cut to it.
pub(crate) const REQUEST_TIME_MAX: Duration = Duration::from_secs(30);

/// The answer is sent this much before the caller's deadline (or a tenth of it, if that is less): an answer
/// that arrives after the deadline is never seen.
pub(crate) const DEADLINE_MARGIN_MAX: Duration = Duration::from_millis(20);

/// How long a request for a topic that this node has never heard of waits for the cluster map to catch up:
/// another node may have created the topic a moment ago.
pub(crate) const MAP_CATCH_UP: Duration = Duration::from_millis(250);

/// How long a created topic may take to have a leader everywhere before the answer says that it hasn't.
pub(crate) const CREATE_WAIT_MAX: Duration = Duration::from_secs(10);

/// Pause between two looks at whether a created topic has its leaders.
pub(crate) const CREATE_POLL: Duration = Duration::from_millis(20);

/// Time that another node has to answer a question about one partition.
pub(crate) const PEER_QUESTION_TIME: Duration = Duration::from_secs(1);

/// Questions about partitions that one request asks of other nodes at the same time.
pub(crate) const PEER_QUESTIONS: usize = 16;

/// Longest a stream may refuse to take an answer before it is ended: its answers take up memory.
pub(crate) const STREAM_STALL: Duration = Duration::from_secs(30);

/// Batches that one publishing stream may have under way or answered but not read; further ones wait in the
/// connection.
pub(crate) const STREAM_WINDOW: usize = 1_024;

/// Answers of a publishing stream that may wait for the connection.
pub(crate) const STREAM_ANSWERS: usize = 256;

/// Messages in one unary publish request.
pub(crate) const PUBLISH_MESSAGES_MAX: usize = quorate_model::limits::BATCH_RECORDS_MAX;

/// Payload bytes after which the server starts another batch for the same request.
pub(crate) const BUILT_BATCH_BYTES: usize = 1 << 20;

/// Bytes that one reading request asks of the log at a time, over all its partitions.
pub(crate) const READ_BYTES: u64 = 4 << 20;

/// How long a reader that waits for records believes that its leader leads without a sign of a quorum, and how long it
/// then waits for one.
pub(crate) const LEADER_DOUBT: Duration = Duration::from_secs(3);

/// Least bytes asked of the log at a time, however many partitions are read.
pub(crate) const READ_BYTES_MIN: u64 = 64 << 10;

/// Bytes of messages in one response of a reader that wants messages.
pub(crate) const READ_RESPONSE_BYTES: usize = 1 << 20;

/// gRPC message size accepted from publishers: the largest batch and its envelope.
pub(crate) const PUBLISH_MESSAGE_BYTES: usize = 20 << 20;

/// gRPC message size accepted by services that take no payload.
pub(crate) const ADMIN_MESSAGE_BYTES: usize = 256 << 10;

/// gRPC message size accepted by the service of subscriptions: the largest snapshot and its envelope.
pub(crate) const SUBSCRIPTION_MESSAGE_BYTES: usize = SNAPSHOT_BYTES_MAX + ADMIN_MESSAGE_BYTES;

/// gRPC message size sent to anyone: the largest batch and its envelope.
pub(crate) const SENT_MESSAGE_BYTES: usize = 20 << 20;

/// Bytes of the headers of one request.
pub(crate) const HEADER_LIST_BYTES: u32 = 8 << 10;

/// Streams that reset on our side which are remembered per connection: half of what attacks of that kind need.
pub(crate) const LOCAL_RESETS_MAX: usize = 256;

/// Interval of HTTP/2 pings to clients.
pub(crate) const CLIENT_KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);

/// How long a client's ping may stay unanswered.
pub(crate) const CLIENT_KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Age at which a client connection is asked to make place for a new one; its streams may finish …
pub(crate) const CONNECTION_AGE: Duration = Duration::from_secs(3_600);

/// … within this time.
pub(crate) const CONNECTION_GRACE: Duration = Duration::from_secs(300);

/// How long a client connection may be without any request.
pub(crate) const CONNECTION_IDLE: Duration = Duration::from_secs(300);

/// Time that a new connection has to begin to speak HTTP/2.
pub(crate) const PREFACE_TIME: Duration = Duration::from_secs(5);

/// How long the rest of a message may take to begin to come: what came of it takes up memory.
pub(crate) const REQUEST_STALL: Duration = Duration::from_secs(10);

/// Streams that a connection may have beyond those that are served: they are told why they aren't, where a client
/// that keeps to the protocol's own bound would wait without a word.
pub(crate) const STREAMS_TO_REFUSE: u32 = 64;

/// Streams that were reset before they were looked at which end a connection: what a flood of resets leaves behind.
pub(crate) const PENDING_RESETS_MAX: usize = 20;

/// HTTP/2 window of one stream of a client, in bytes: a batch of the usual size never waits for it.
pub(crate) const STREAM_WINDOW_BYTES: u32 = 2 << 20;

/// HTTP/2 window of a whole client connection, in bytes.
pub(crate) const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

/// Connections of other nodes: a few for each node that a cluster may have.
pub(crate) const PEER_CONNECTIONS: usize = 8 * quorate_model::limits::NODES_MAX;

/// Streams that one other node may have open: reads that were forwarded, and consensus.
pub(crate) const PEER_STREAMS: u32 = 4_096;

/// Interval of HTTP/2 pings to other nodes: a cut link must be noticed on both sides.
pub(crate) const PEER_KEEPALIVE_INTERVAL: Duration = Duration::from_secs(1);

/// How long another node's ping may stay unanswered.
pub(crate) const PEER_KEEPALIVE_TIMEOUT: Duration = Duration::from_millis(1_500);

/// gRPC message size accepted from another node: a frame holds several batches.
pub(crate) const PEER_MESSAGE_BYTES: usize = 64 << 20;

/// Groups that are opened or destroyed at the same time after a change of the map.
pub(crate) const GROUPS_AT_ONCE: usize = 16;

/// Shortest and longest pause between attempts at something that another node must do for this one.
pub(crate) const RETRY_PAUSE: std::ops::Range<Duration> = Duration::from_millis(100)..Duration::from_secs(2);

/// How often the partitions that this node leads are held against the retention of their topics: what comes in
/// meanwhile is what they may have too much.
pub(crate) const RETENTION_PERIOD: Duration = Duration::from_secs(1);

/// How often the partitions that this node leads are searched for subscriptions that were deleted.
pub(crate) const ENDINGS_PERIOD: Duration = Duration::from_secs(10);

/// Longest wait for the answer to a command of retention.
pub(crate) const RETENTION_PROPOSAL_TIME: Duration = Duration::from_secs(5);

/// Shortest time between two cluster maps sent to the same watcher: elections come in bursts.
pub(crate) const WATCH_PAUSE: Duration = Duration::from_millis(20);

/// Topics or subscriptions in one page, if the request doesn't say.
pub(crate) const PAGE_SIZE_DEFAULT: usize = 100;

/// Reads of higher lanes before an actor hands out what it has of lower ones: one for each lane.
pub(crate) const DISPATCH_READS_AT_ONCE: usize = 20;

/// Messages with a priority or a time of their own that are looked at to count those that wait, in one partition.
pub(crate) const DEPTH_PLACES: usize = 20_000;

/// Of those, at a time.
pub(crate) const DEPTH_PLACES_AT_ONCE: usize = 1_000;

/// Messages that are looked at for one page of a list of them.
pub(crate) const LIST_LOOKED_AT_MAX: usize = 10_000;

/// Bytes of data after which a page of messages ends.
pub(crate) const LIST_BYTES: usize = 1 << 20;

/// The same, whatever the request says.
pub(crate) const PAGE_SIZE_MAX: usize = 1_000;

/// Orders that wait for one subscription's actor in one partition.
pub(crate) const DISPATCH_ORDERS: usize = 1_024;

/// Orders that an actor takes before it looks at everything else.
pub(crate) const DISPATCH_ORDERS_AT_ONCE: usize = 256;

/// Bytes of the log that an actor reads at a time.
pub(crate) const DISPATCH_READ_BYTES: u64 = 256 << 10;

/// Messages with an order of their own that an actor reads at a time.
pub(crate) const DISPATCH_READ_PLACES: usize = 128;

/// Bytes of messages that an actor keeps after it has read them.
pub(crate) const DISPATCH_RECENT_BYTES: usize = 1 << 20;

/// Messages of one subscription in one partition that are read and not yet handed out.
pub(crate) const DISPATCH_READ_AHEAD: usize = 1_000;

/// Messages of one subscription in one partition that are in flight or wait for another attempt.
pub(crate) const DISPATCH_UNSETTLED: usize = 10_000;

/// Intervals of settled messages of one subscription in one partition.
pub(crate) const DISPATCH_INTERVALS: usize = 100_000;

/// Dead letters of one subscription in one partition that wait to be published. Beyond them messages are tried again.
pub(crate) const DISPATCH_DEAD_LETTERS: usize = 1_000;

/// Messages that a filter is asked about before an actor looks at everything else.
pub(crate) const DISPATCH_FILTERED: usize = 1_000;

/// How deep a filter's expression may be nested: what bounds the stack that it takes.
pub(crate) const FILTER_NESTING_MAX: u16 = 32;

/// Shortest time between two lines in the log about the failures of one filter in one partition.
pub(crate) const FILTER_LOG_PAUSE: Duration = Duration::from_secs(60);

/// Messages that a filter is tried on, if the request doesn't say.
pub(crate) const TEST_FILTER_DEFAULT: u32 = 100;

/// The same, whatever the request says.
pub(crate) const TEST_FILTER_MAX: u32 = 1_000;

/// Messages that a trial of a filter shows.
pub(crate) const TEST_FILTER_SHOWN: usize = 10;

/// Pause after a dead letter that couldn't be published.
pub(crate) const DEAD_LETTER_PAUSE: Duration = Duration::from_secs(1);

/// A leader that hasn't heard of a quorum for so long asks one before it hands out anything: there may be another, who
/// knows of acknowledgements that it doesn't. Shorter than it takes the others to miss it.
pub(crate) const DISPATCH_DOUBT: Duration = Duration::from_millis(250);

/// Oldest unsettled messages whose publish times are remembered for those who ask.
pub(crate) const OLDEST_REMEMBERED: usize = 10_000;

/// Longest wait for a settlement to become certain, or for a leader to know that it leads.
pub(crate) const SETTLEMENT_TIME: Duration = Duration::from_secs(5);

/// How long messages that were passed over may wait to be settled with something that somebody waits for.
pub(crate) const SETTLEMENT_PAUSE: Duration = Duration::from_secs(1);

/// Messages that a subscriber's stream may have credit for.
pub(crate) const CREDIT_MESSAGES_MAX: u64 = 100_000;

/// Bytes that a subscriber's stream may have credit for.
pub(crate) const CREDIT_BYTES_MAX: u64 = 1 << 30;

/// Credit that is lent to another node at a time, in messages.
pub(crate) const CREDIT_LENT: u64 = 100;

/// Acknowledgements, or the like, in one request; also the messages of one pull.
pub(crate) const ACK_IDS_MAX: usize = 1_000;

/// Longest wait of a pull for its first message.
pub(crate) const PULL_WAIT_MAX: Duration = Duration::from_secs(30);

/// How long a pull waits at least, so that every partition has been asked, and for what else is ready after its first
/// message.
pub(crate) const PULL_FIRST: Duration = Duration::from_millis(50);

/// How long a pull waits for what is on its way when it ends.
pub(crate) const PULL_GOODBYE: Duration = Duration::from_secs(2);

/// Subscriptions in partitions that a node shows in its metrics, one pair counted once. Each has about a dozen series.
pub(crate) const METRIC_SUBSCRIPTIONS_MAX: usize = 2_000;
