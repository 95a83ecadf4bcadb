//! Requests that were carried out. A client that doesn't get an answer sends its request again, perhaps seconds later, when
//! others have changed or removed what it made: it must be told what came of it, and not have it done again.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::limits::{REQUEST_ID_BYTES_MAX, REQUESTS_REMEMBERED};
use crate::meta::MetaRejected;

/// What a request is known by. Its id alone is not enough: a careless client gives the same id to different requests.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Request<Name> {
    kind: RequestKind,
    name: Name,
    /// Empty: none.
    id: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum RequestKind {
    Create,
    Update,
    Delete,
}

/// The last [`REQUESTS_REMEMBERED`] requests about one kind of thing, and the id of what each was about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Requests<Name: Ord, Id> {
    subjects: BTreeMap<Request<Name>, Id>,
    /// The same requests, the oldest first.
    order: VecDeque<Request<Name>>,
}

impl<Name: Clone> Request<Name> {
    pub(super) fn new(kind: RequestKind, name: &Name, id: &str) -> Result<Self, MetaRejected> {
        if id.len() > REQUEST_ID_BYTES_MAX {
            return Err(MetaRejected::RequestIdTooLong { bytes: id.len() as u64 });
        }
        Ok(Self { kind, name: name.clone(), id: id.to_owned() })
    }
}

impl<Name: Ord, Id> Default for Requests<Name, Id> {
    fn default() -> Self {
        Self { subjects: BTreeMap::new(), order: VecDeque::new() }
    }
}

impl<Name: Ord + Clone, Id: Copy> Requests<Name, Id> {
    /// What a request was about, if it was carried out. Without an id nobody can tell.
    pub(super) fn subject(&self, request: &Request<Name>) -> Option<Id> {
        self.subjects.get(request).copied()
    }

    /// A request was carried out.
    pub(super) fn remember(&mut self, request: Request<Name>, subject: Id) {
        if request.id.is_empty() || self.subjects.insert(request.clone(), subject).is_some() {
            return;
        }
        self.order.push_back(request);
        if self.order.len() > REQUESTS_REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.subjects.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Request, RequestKind, Requests};
    use crate::ids::TopicId;
    use crate::limits::REQUESTS_REMEMBERED;
    use crate::names::TopicName;

    fn request(kind: RequestKind, id: &(impl ToString + ?Sized)) -> Request<TopicName> {
        Request::new(kind, &TopicName::parse("books").expect("a name"), &id.to_string()).expect("a short id")
    }

    #[test]
    fn the_last_ones_are_remembered_and_no_more() {
        let mut requests = Requests::default();
        for number in 0..=REQUESTS_REMEMBERED as u64 {
            requests.remember(request(RequestKind::Create, &number), TopicId::new(number));
        }
        assert_eq!(requests.subject(&request(RequestKind::Create, &0)), None);
        assert_eq!(requests.subject(&request(RequestKind::Create, &1)), Some(TopicId::new(1)));
        assert_eq!(requests.subjects.len(), REQUESTS_REMEMBERED);
        assert_eq!(requests.subject(&request(RequestKind::Delete, &1)), None, "the same id, and another request");
        requests.remember(request(RequestKind::Create, ""), TopicId::new(1));
        assert_eq!(requests.subject(&request(RequestKind::Create, "")), None, "no id is no request's");
    }
}
