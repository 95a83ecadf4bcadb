//! What may happen to a subscription: few keys, short times and small bounds, so that they meet.

use proptest::prelude::{Just, Strategy, any, prop_oneof};
use quorate_model::RetryPolicy;
use quorate_model::partition::subscription::deliver::{Bounds, KeyBounds, Rules};

/// One step. Times are in milliseconds.
#[derive(Clone, Debug)]
pub(crate) enum Command {
    Publish(Vec<Draft>),
    /// A subscriber takes so many messages more; it joins, if it hasn't.
    Grant {
        session: u64,
        messages: u64,
    },
    /// A subscriber is gone; whether it keeps what it has in hand until the deadline.
    Leave {
        session: u64,
        keeps: bool,
    },
    /// The leader reads what is wanted, at most so often and so much at a time, and hands out what is ready.
    Deliver {
        reads: usize,
        at_a_time: usize,
    },
    /// A subscriber speaks of some deliveries in a row, the first of which is the `back`th from the last.
    Say {
        what: Saying,
        back: usize,
        count: usize,
    },
    /// What was decided is proposed, unless something is.
    Propose {
        all: bool,
    },
    /// What was proposed is carried out, and the leader hears of it.
    Commit,
    /// The leader is gone; whether what it had proposed is carried out nevertheless, and whether the next one leads in the
    /// same term.
    Fail {
        is_carried_out: bool,
        is_same_term: bool,
    },
    Advance(u64),
    /// Delayed messages that are due are released.
    Release,
    /// Retention: a stretch of the log ends here.
    Mark,
    /// Retention: stretches are removed, those that end that part of the log ago.
    Trim {
        percent: u64,
    },
    /// The subscription is moved to that part of the log.
    Seek {
        percent: u64,
        is_carried_out_before: bool,
    },
    /// The first dead letter that waits is published.
    SendLetter,
}

/// What a subscriber says of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Saying {
    Ack,
    Nack { pause_ms: Option<u64> },
    Release,
    Extend { by_ms: u64 },
}

/// A message to be published.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Draft {
    pub(crate) key: Option<u8>,
    pub(crate) priority: u8,
    pub(crate) delay_ms: Option<u64>,
    pub(crate) lives_ms: Option<u64>,
    /// Whether the subscription's filter matches it.
    pub(crate) wanted: bool,
}

/// A subscription, and what happens to it.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    pub(crate) rules: Rules,
    pub(crate) bounds: Bounds,
    pub(crate) commands: Vec<Command>,
    /// Whether another leader is there when all faults are over.
    pub(crate) ends_with_failover: bool,
}

fn any_draft() -> impl Strategy<Value = Draft> {
    let key = prop_oneof![2 => Just(None), 5 => (0_u8..3).prop_map(Some)];
    let priority = prop_oneof![5 => Just(0_u8), 1 => Just(2), 1 => Just(9)];
    let delay_ms = prop_oneof![5 => Just(None), 1 => (1_u64..30).prop_map(Some)];
    let lives_ms = prop_oneof![8 => Just(None), 1 => (1_u64..40).prop_map(Some)];
    let wanted = prop_oneof![8 => Just(true), 1 => Just(false)];
    (key, priority, delay_ms, lives_ms, wanted).prop_map(|(key, priority, delay_ms, lives_ms, wanted)| Draft {
        key,
        priority,
        delay_ms,
        lives_ms,
        wanted,
    })
}

fn any_saying() -> impl Strategy<Value = Saying> {
    let pause_ms = prop_oneof![2 => Just(None), 1 => Just(Some(0)), 2 => (1_u64..15).prop_map(Some)];
    prop_oneof![
        6 => Just(Saying::Ack),
        4 => pause_ms.prop_map(|pause_ms| Saying::Nack { pause_ms }),
        2 => Just(Saying::Release),
        1 => (1_u64..30).prop_map(|by_ms| Saying::Extend { by_ms }),
    ]
}

fn any_command() -> impl Strategy<Value = Command> {
    let session = || 1_u64..4;
    let back = prop_oneof![6 => 0_usize..6, 2 => 0_usize..40];
    prop_oneof![
        6 => proptest::collection::vec(any_draft(), 1..7).prop_map(Command::Publish),
        5 => (session(), 0_u64..6).prop_map(|(session, messages)| Command::Grant { session, messages }),
        1 => (session(), any::<bool>()).prop_map(|(session, keeps)| Command::Leave { session, keeps }),
        12 => (0_usize..6, 1_usize..5).prop_map(|(reads, at_a_time)| Command::Deliver { reads, at_a_time }),
        6 => (1_usize..5).prop_map(|at_a_time| Command::Deliver { reads: 1_000, at_a_time }),
        16 => (any_saying(), back, 1_usize..4).prop_map(|(what, back, count)| Command::Say { what, back, count }),
        5 => any::<bool>().prop_map(|all| Command::Propose { all }),
        6 => Just(Command::Commit),
        2 => any::<(bool, bool)>()
            .prop_map(|(is_carried_out, is_same_term)| Command::Fail { is_carried_out, is_same_term }),
        5 => (1_u64..15).prop_map(Command::Advance),
        3 => Just(Command::Release),
        2 => Just(Command::Mark),
        2 => (0_u64..=100).prop_map(|percent| Command::Trim { percent }),
        1 => (0_u64..=100, any::<bool>())
            .prop_map(|(percent, is_carried_out_before)| Command::Seek { percent, is_carried_out_before }),
        1 => Just(Command::SendLetter),
    ]
}

fn bound(small: std::ops::Range<usize>) -> impl Strategy<Value = usize> {
    prop_oneof![1 => small, 2 => Just(1_000)]
}

pub(crate) fn any_program(length: usize) -> impl Strategy<Value = Program> {
    let retry = prop_oneof![
        Just(RetryPolicy::Immediate),
        Just(RetryPolicy::Fixed { pause_ms: 7 }),
        Just(RetryPolicy::Explicit { pauses_ms: vec![0, 12] }),
    ];
    let rules = (retry, proptest::option::of(1_u32..4), prop_oneof![1 => Just(false), 3 => Just(true)])
        .prop_map(|(retry, max_attempts, ordered)| Rules { ack_deadline_ms: 20, retry, max_attempts, ordered });
    let keys = (bound(1..5), bound(1..6), bound(1..4)).prop_map(|(line, lines_total, batch)| KeyBounds {
        line,
        lines_total,
        batch,
    });
    // Each lane costs an interval, and there are six.
    let bounds = (bound(1..6), bound(7..12), bound(1..6), bound(1..3), keys).prop_map(
        |(unsettled, intervals, read_ahead, dead_letters, keys)| Bounds {
            unsettled,
            intervals,
            read_ahead,
            dead_letters,
            keys,
        },
    );
    let commands = proptest::collection::vec(any_command(), 1..length);
    (rules, bounds, commands, any::<bool>()).prop_map(|(rules, bounds, commands, ends_with_failover)| Program {
        rules,
        bounds,
        commands,
        ends_with_failover,
    })
}
