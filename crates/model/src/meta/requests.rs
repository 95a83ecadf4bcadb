//! Requests that were carried out. A client that doesn't get an answer sends its request again, perhaps seconds later, when
//! others have changed or removed what it made: it must be told what came of it, and not have it done again.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::ids::TopicId;
use crate::limits::REQUESTS_REMEMBERED;
use crate::names::TopicName;

/// What a request is known by. Its id alone is not enough: a careless client gives the same id to different requests.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Request {
    pub(super) kind: RequestKind,
    pub(super) name: TopicName,
    /// Empty: none.
    pub(super) id: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum RequestKind {
    Create,
    Update,
    Delete,
}

/// The last [`REQUESTS_REMEMBERED`] requests, and the topic that each was about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Requests {
    topics: BTreeMap<Request, TopicId>,
    /// The same requests, the oldest first.
    order: VecDeque<Request>,
}

impl Requests {
    /// The topic that a request was about, if it was carried out. Without an id nobody can tell.
    pub(super) fn topic(&self, request: &Request) -> Option<TopicId> {
        self.topics.get(request).copied()
    }

    /// A request was carried out.
    pub(super) fn remember(&mut self, request: Request, topic: TopicId) {
        if request.id.is_empty() || self.topics.insert(request.clone(), topic).is_some() {
            return;
        }
        self.order.push_back(request);
        if self.order.len() > REQUESTS_REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.topics.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Request, RequestKind, Requests};
    use crate::ids::TopicId;
    use crate::limits::REQUESTS_REMEMBERED;
    use crate::names::TopicName;

    fn request(kind: RequestKind, id: &(impl ToString + ?Sized)) -> Request {
        Request { kind, name: TopicName::parse("books").expect("a name"), id: id.to_string() }
    }

    #[test]
    fn the_last_ones_are_remembered_and_no_more() {
        let mut requests = Requests::default();
        for number in 0..=REQUESTS_REMEMBERED as u64 {
            requests.remember(request(RequestKind::Create, &number), TopicId::new(number));
        }
        assert_eq!(requests.topic(&request(RequestKind::Create, &0)), None);
        assert_eq!(requests.topic(&request(RequestKind::Create, &1)), Some(TopicId::new(1)));
        assert_eq!(requests.topics.len(), REQUESTS_REMEMBERED);
        assert_eq!(requests.topic(&request(RequestKind::Delete, &1)), None, "the same id, and another request");
        requests.remember(request(RequestKind::Create, ""), TopicId::new(1));
        assert_eq!(requests.topic(&request(RequestKind::Create, "")), None, "no id is no request's");
    }
}
