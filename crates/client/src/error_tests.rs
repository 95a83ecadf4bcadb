#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

use super::{Cause, ClientError};
use quorate_model::{Executed, Reason};
use std::collections::HashMap;
use std::time::Duration;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

#[test]
fn the_facts_of_a_brokers_error_are_read_from_its_details() {
    let facts = HashMap::from([("limit".to_owned(), "5".to_owned())]);
    let mut details = ErrorDetails::with_error_info("OVERLOADED", "quorate", facts);
    details.set_retry_info(Some(Duration::from_millis(70)));
    let error = ClientError::from_status(&Status::with_error_details(Code::ResourceExhausted, "busy", details));
    assert_eq!((error.reason(), error.message()), ("OVERLOADED", "busy"));
    assert!(error.is(Reason::Overloaded) && error.retryable());
    assert_eq!(error.executed(), Executed::No);
    assert_eq!(error.metadata()["limit"], "5");
    assert_eq!(error.retry_after(), Some(Duration::from_millis(70)));
}

#[test]
fn a_reason_of_a_newer_broker_is_judged_by_its_code() {
    let newer = |code: Code| {
        let details = ErrorDetails::with_error_info("BRAND_NEW", "quorate", HashMap::new());
        ClientError::from_status(&Status::with_error_details(code, "", details))
    };
    assert_eq!(newer(Code::Unavailable).reason(), "BRAND_NEW");
    assert!(newer(Code::Unavailable).retryable());
    assert!(!newer(Code::FailedPrecondition).retryable());
    // Nothing says that it was not carried out.
    assert_eq!(newer(Code::FailedPrecondition).executed(), Executed::Maybe);
}

#[test]
fn details_of_another_domain_are_not_taken_for_ours() {
    let details = ErrorDetails::with_error_info("NOT_LEADER", "example.com", HashMap::new());
    let error = ClientError::from_status(&Status::with_error_details(Code::Unavailable, "", details));
    assert!(!error.is(Reason::NotLeader));
}

#[test]
fn a_status_without_details_says_what_the_transport_knows() {
    let cause = |status: Status| ClientError::from_status(&status).cause().clone();
    assert_eq!(cause(Status::unavailable("broken pipe")), Cause::ConnectionLost);
    assert_eq!(cause(Status::deadline_exceeded("")), Cause::Known(Reason::DeadlineExceeded));
    let unimplemented = ClientError::from_status(&Status::unimplemented(""));
    assert_eq!((unimplemented.executed(), unimplemented.retryable()), (Executed::No, false));
    let lost = ClientError::from_status(&Status::unavailable("broken pipe"));
    assert_eq!((lost.executed(), lost.retryable()), (Executed::Maybe, true));
}
