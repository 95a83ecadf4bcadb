//! The dispatcher and the partition's machine against a naive reference, with a clock that is moved by hand.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod commands;
mod reading;
mod reference;
mod world;

use proptest::prelude::{ProptestConfig, proptest};
use quorate_model::partition::subscription::deliver::SessionId;
use quorate_model::partition::subscription::{Lane, Place};

use commands::{Program, any_program};
use world::World;

/// Somebody takes and acknowledges everything, and nothing fails any more. Time moves to where the dispatcher, or the index
/// of delayed messages, says that something is due: what nobody waits for would never be delivered.
fn drain(world: &mut World) {
    world.commit();
    if world.program.ends_with_failover {
        world.fail(true, false);
    }
    for _ in 0..10_000 {
        world.grant(SessionId(99), 1_000);
        world.turn_and_acknowledge();
        world.propose(true);
        world.commit();
        world.send_letter();
        if !world.goes_on() {
            return;
        }
    }
    panic!("it never ends: {:?}", world.dispatcher);
}

/// Everything is settled, as one interval of each lane, and nothing is left.
fn check_end(world: &mut World) {
    let state = world.state();
    for message in &world.reference.messages {
        assert!(state.is_settled(message.position), "left over: {message:?}");
    }
    assert!(state.retries().is_empty() && state.outbox().is_empty());
    for (lane, settled) in state.lanes() {
        assert!(settled.len() <= 1, "{lane:?}: {:?}", settled.intervals().collect::<Vec<_>>());
    }
    let end = Place::at(world.partition().next_offset());
    assert!(state.lanes()[&Lane::LOG].floor() >= end);
    let gauges = world.dispatcher.gauges();
    assert_eq!((gauges.in_flight, gauges.scheduled, gauges.ready), (0, 0, 0));
    assert_eq!((world.dispatcher.wants(), world.dispatcher.next_due_ms(0)), (None, None));
    assert!(!world.dispatcher.has_pending() && !world.dispatcher.has_ready(u64::MAX));
}

fn run(program: Program) {
    let mut world = World::new(program);
    for command in world.program.commands.clone() {
        world.run(&command);
    }
    drain(&mut world);
    check_end(&mut world);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 15_000, max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn what_is_delivered_and_settled_is_what_is_promised(program in any_program(120)) {
        run(program);
    }
}
