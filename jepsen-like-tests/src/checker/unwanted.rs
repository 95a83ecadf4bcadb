//! Filters: nothing is delivered that a subscription's filter doesn't match. That all it matches is delivered is for
//! [`super::settled`] to say.

use super::Operations;

pub(super) fn check(operations: &Operations<'_>) -> Vec<String> {
    let deliveries = &operations.deliveries;
    let unwanted = deliveries.taken.iter().filter_map(|delivery| {
        let subscription = deliveries.subscriptions.get(delivery.place.subscription)?;
        let region = operations.publishes.get(delivery.message)?.terms.region.as_deref();
        let wanted = subscription.region.filter(|_| !subscription.wants(region))?;
        Some(format!("{delivery}, is of region {}, and the filter asks for {wanted}", region.unwrap_or("(none)")))
    });
    unwanted.collect()
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::checker::script::Script;
    use crate::history::Terms;

    #[test]
    fn only_what_matches_is_delivered() {
        let taken = |subscription, region: Option<&str>| {
            let terms = Terms { region: region.map(ToOwned::to_owned), ..Terms::default() };
            let script = Script::new().choosy("s", false, "eu").subscription("all", false).published_on("m1", 0, terms);
            script.deliver("c", subscription, (0, "m1", ""), 1).0.complaints(check)
        };
        assert_eq!(taken("s", Some("eu")), 0);
        assert_eq!(taken("s", Some("us")), 1);
        assert_eq!(taken("s", None), 1, "an attribute that isn't there matches nothing");
        assert_eq!(taken("all", Some("us")), 0);
    }
}
