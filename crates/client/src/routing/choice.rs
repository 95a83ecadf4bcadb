//! The choice of a way, as a pure function of what is known and what stands.

/// What the choice depends on. Addresses are `host:port`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ways<'a> {
    /// The partition's leader, where known.
    pub(crate) leader: Option<&'a str>,
    /// The node whose map this client follows.
    pub(crate) home: Option<&'a str>,
    /// Every other address worth asking: first those the caller gave, then those of the map.
    pub(crate) others: &'a [&'a str],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way<'a> {
    /// The leader itself.
    Direct(&'a str),
    /// A node that passes the request on.
    Forwarded(&'a str),
}

impl<'a> Ways<'a> {
    /// The leader if it can be reached from here, else any node that can: one reachable node is enough,
    /// whatever addresses the others advertise.
    pub(crate) fn choose(self, is_up: impl Fn(&str) -> bool) -> Option<Way<'a>> {
        // `is_up` also starts dialling, so the leader is asked about even if another way is taken now.
        if let Some(leader) = self.leader.filter(|leader| is_up(leader)) {
            return Some(Way::Direct(leader));
        }
        let forwarders = self.home.into_iter().chain(self.others.iter().copied());
        forwarders.into_iter().find(|address| is_up(address)).map(Way::Forwarded)
    }
}

#[cfg(test)]
mod tests {
    use super::{Way, Ways};

    const OTHERS: &[&str] = &["a", "b", "c"];

    #[test]
    fn a_reachable_leader_is_asked_directly() {
        let ways = Ways { leader: Some("b"), home: Some("a"), others: OTHERS };
        assert_eq!(ways.choose(|_| true), Some(Way::Direct("b")));
    }

    #[test]
    fn an_unreachable_leader_is_asked_through_the_node_whose_map_is_followed() {
        let ways = Ways { leader: Some("b"), home: Some("a"), others: OTHERS };
        assert_eq!(ways.choose(|address| address != "b"), Some(Way::Forwarded("a")));
    }

    #[test]
    fn without_a_known_leader_any_reachable_node_forwards() {
        let ways = Ways { leader: None, home: Some("a"), others: OTHERS };
        assert_eq!(ways.choose(|address| address == "c"), Some(Way::Forwarded("c")));
        assert_eq!(ways.choose(|_| false), None);
    }
}
