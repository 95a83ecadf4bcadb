//! What a subscription says about messages that were not acknowledged.

use serde::{Deserialize, Serialize};

use crate::ids::TopicId;
use crate::limits::{RETRY_PAUSE_MS_MAX, RETRY_PAUSES_MAX};

/// The pause before the next attempt, by the number of attempts so far.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RetryPolicy {
    /// None at all.
    Immediate,
    /// Always the same.
    Fixed {
        /// The pause.
        pause_ms: u64,
    },
    /// Longer by the same step each time.
    Linear {
        /// The first pause.
        first_ms: u64,
        /// How much longer each one is.
        step_ms: u64,
        /// The longest one.
        maximum_ms: u64,
    },
    /// Twice as long each time.
    Exponential {
        /// The first pause.
        minimum_ms: u64,
        /// The longest one.
        maximum_ms: u64,
        /// By how much a pause is made shorter or longer at random, at most.
        jitter_percent: u32,
    },
    /// As listed; the last one from then on.
    Explicit {
        /// The pauses.
        pauses_ms: Vec<u64>,
    },
}

impl Default for RetryPolicy {
    /// Exponential from 1 s to 10 min, with 20 % jitter.
    fn default() -> Self {
        Self::Exponential { minimum_ms: 1_000, maximum_ms: 600_000, jitter_percent: 20 }
    }
}

/// Where messages go that were tried often enough.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetterPolicy {
    /// The topic.
    pub topic: TopicId,
    /// How often a message is delivered before it goes there.
    pub max_attempts: u32,
}

impl RetryPolicy {
    /// The pause after `attempts` attempts, at least one. `chance` is a random number, for the jitter: the same one gives
    /// the same pause.
    pub fn pause_ms(&self, attempts: u32, chance: u64) -> u64 {
        let earlier = u64::from(attempts.saturating_sub(1));
        let pause_ms = match self {
            Self::Immediate => 0,
            Self::Fixed { pause_ms } => *pause_ms,
            Self::Linear { first_ms, step_ms, maximum_ms } => {
                first_ms.saturating_add(step_ms.saturating_mul(earlier)).min(*maximum_ms)
            }
            Self::Exponential { minimum_ms, maximum_ms, jitter_percent } => {
                let doubled = 1_u64.checked_shl(attempts.saturating_sub(1)).unwrap_or(u64::MAX);
                jittered(minimum_ms.saturating_mul(doubled).min(*maximum_ms), *jitter_percent, chance)
            }
            Self::Explicit { pauses_ms } => {
                let position = usize::try_from(earlier).unwrap_or(usize::MAX).min(pauses_ms.len().saturating_sub(1));
                pauses_ms.get(position).copied().unwrap_or(0)
            }
        };
        pause_ms.min(RETRY_PAUSE_MS_MAX)
    }

    /// The first thing that is out of bounds: which field, its value, the limit.
    pub fn check(&self) -> Result<(), PolicyError> {
        let pause = |field: &str, value| PolicyError::check(field, value, RETRY_PAUSE_MS_MAX);
        match self {
            Self::Immediate => Ok(()),
            Self::Fixed { pause_ms } => pause("fixed.pause", *pause_ms),
            Self::Linear { first_ms, step_ms, maximum_ms } => {
                pause("linear.maximum", *maximum_ms)?;
                pause("linear.step", *step_ms)?;
                PolicyError::check("linear.first", *first_ms, *maximum_ms)
            }
            Self::Exponential { minimum_ms, maximum_ms, jitter_percent } => {
                pause("exponential.maximum", *maximum_ms)?;
                PolicyError::check("exponential.jitter_percent", (*jitter_percent).into(), 100)?;
                PolicyError::check("exponential.minimum", *minimum_ms, *maximum_ms)
            }
            Self::Explicit { pauses_ms } => {
                let count = pauses_ms.len() as u64;
                PolicyError::check("explicit.pauses", count, RETRY_PAUSES_MAX as u64)?;
                if count == 0 {
                    return Err(PolicyError { field: "explicit.pauses".to_owned(), value: 0, limit: 1 });
                }
                let mut pauses = pauses_ms.iter().enumerate();
                pauses.try_for_each(|(place, pause_ms)| pause(&format!("explicit.pauses[{place}]"), *pause_ms))
            }
        }
    }
}

/// A pause between `percent` less and `percent` more.
fn jittered(pause_ms: u64, percent: u32, chance: u64) -> u64 {
    let spread = u128::from(pause_ms) * u128::from(percent) / 100;
    let drawn = u128::from(chance) % (2 * spread + 1);
    let jittered = u128::from(pause_ms) + drawn - spread.min(u128::from(pause_ms) + drawn);
    u64::try_from(jittered).unwrap_or(u64::MAX)
}

/// A field of a policy that is out of bounds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("retry_policy.{field} is {value}{unit}, the limit is {limit}{unit}", unit = unit(.field))]
pub struct PolicyError {
    /// Its name below `retry_policy`.
    pub field: String,
    /// Its value; times in milliseconds.
    pub value: u64,
    /// What is allowed at most, or at least if the value is below it.
    pub limit: u64,
}

/// Everything is a time but these two: how many pauses there are, and the jitter.
fn unit(field: &str) -> &'static str {
    if matches!(field, "explicit.pauses" | "exponential.jitter_percent") { "" } else { " ms" }
}

impl PolicyError {
    fn check(field: &str, value: u64, limit: u64) -> Result<(), Self> {
        if value > limit { Err(Self { field: field.to_owned(), value, limit }) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert, proptest};

    use super::*;

    fn pauses(policy: &RetryPolicy) -> Vec<u64> {
        [1, 2, 3, 4, 40, u32::MAX].map(|attempts| policy.pause_ms(attempts, 0)).to_vec()
    }

    #[test]
    fn each_policy_grows_as_it_says_and_ends_at_its_maximum() {
        assert_eq!(pauses(&RetryPolicy::Immediate), [0; 6]);
        assert_eq!(pauses(&RetryPolicy::Fixed { pause_ms: 7 }), [7; 6]);
        let linear = RetryPolicy::Linear { first_ms: 10, step_ms: 5, maximum_ms: 22 };
        assert_eq!(pauses(&linear), [10, 15, 20, 22, 22, 22]);
        let exponential = RetryPolicy::Exponential { minimum_ms: 10, maximum_ms: 35, jitter_percent: 0 };
        assert_eq!(pauses(&exponential), [10, 20, 35, 35, 35, 35]);
        assert_eq!(pauses(&RetryPolicy::Explicit { pauses_ms: vec![3, 1] }), [3, 1, 1, 1, 1, 1]);
    }

    #[test]
    fn what_is_out_of_bounds_is_named() {
        let over = RETRY_PAUSE_MS_MAX + 1;
        let refused = |policy: RetryPolicy| policy.check().map_err(|error| (error.field, error.value, error.limit));
        let named = |field: &str, value, limit| Err((field.to_owned(), value, limit));
        assert_eq!(refused(RetryPolicy::Fixed { pause_ms: over }), named("fixed.pause", over, RETRY_PAUSE_MS_MAX));
        assert_eq!(refused(RetryPolicy::Fixed { pause_ms: RETRY_PAUSE_MS_MAX }), Ok(()));
        let above = RetryPolicy::Exponential { minimum_ms: 2, maximum_ms: 1, jitter_percent: 20 };
        assert_eq!(refused(above), named("exponential.minimum", 2, 1));
        let wild = || RetryPolicy::Exponential { minimum_ms: 1, maximum_ms: 1, jitter_percent: 101 };
        assert_eq!(refused(wild()), named("exponential.jitter_percent", 101, 100));
        let steep = RetryPolicy::Linear { first_ms: 0, step_ms: over, maximum_ms: 1 };
        assert_eq!(refused(steep), named("linear.step", over, RETRY_PAUSE_MS_MAX));
        assert_eq!(refused(RetryPolicy::Explicit { pauses_ms: vec![] }), named("explicit.pauses", 0, 1));
        let many = RetryPolicy::Explicit { pauses_ms: vec![1; RETRY_PAUSES_MAX + 1] };
        let limit = RETRY_PAUSES_MAX as u64;
        assert_eq!(refused(many), named("explicit.pauses", limit + 1, limit));
        assert_eq!(refused(RetryPolicy::default()), Ok(()));
        let text = |policy: RetryPolicy| policy.check().expect_err("refused").to_string();
        let second = RetryPolicy::Explicit { pauses_ms: vec![1, over] };
        assert_eq!(text(second), "retry_policy.explicit.pauses[1] is 43200001 ms, the limit is 43200000 ms");
        assert_eq!(text(wild()), "retry_policy.exponential.jitter_percent is 101, the limit is 100");
    }

    proptest! {
        #[test]
        fn jitter_stays_within_its_bounds(pause_ms in 0..=RETRY_PAUSE_MS_MAX, percent in 0_u32..=100, chance in any::<u64>()) {
            let spread = pause_ms * u64::from(percent) / 100;
            let jittered = jittered(pause_ms, percent, chance);
            prop_assert!((pause_ms - spread..=pause_ms + spread).contains(&jittered));
        }
    }
}
