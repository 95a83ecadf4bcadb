//! Names that people choose. Parsed once, at the edge; a value of these types is always valid.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::limits::NAME_BYTES_MAX;
use crate::reason::Reason;

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks a name that came from outside.
            pub fn parse(name: &str) -> Result<Self, NameError> {
                check($kind, name)?;
                Ok(Self(name.into()))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        // Ordering and equality of a name are those of its text, so a map keyed by it can be asked by `&str`.
        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(name: &str) -> Result<Self, NameError> {
                Self::parse(name)
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(name: String) -> Result<Self, NameError> {
                Self::parse(&name)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.as_str().to_owned()
            }
        }
    };
}

name! {
    /// The name of a topic: `[A-Za-z][A-Za-z0-9._-]{0,248}`. Cheap to clone.
    TopicName, "topic"
}

name! {
    /// The name of a subscription, by the same rule. Cheap to clone.
    SubscriptionName, "subscription"
}

/// The rule for every kind of name.
fn check(kind: &'static str, name: &str) -> Result<(), NameError> {
    let Some(first) = name.chars().next() else {
        return Err(NameError::Empty { kind });
    };
    if name.len() > NAME_BYTES_MAX {
        return Err(NameError::TooLong { kind, bytes: name.len(), limit: NAME_BYTES_MAX });
    }
    if first == '_' {
        return Err(NameError::Reserved { kind, name: name.to_owned() });
    }
    if !first.is_ascii_alphabetic() {
        return Err(NameError::FirstCharacter { kind, name: name.to_owned(), character: first });
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    match name.char_indices().find(|(_, c)| !allowed(*c)) {
        Some((position, character)) => Err(NameError::Character { kind, name: name.to_owned(), character, position }),
        None => Ok(()),
    }
}

/// Why a text is no name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing was given.
    #[error("{kind} name is empty; it needs 1 to {NAME_BYTES_MAX} characters")]
    Empty {
        /// What the name is of.
        kind: &'static str,
    },
    /// Too many characters.
    #[error("{kind} name has {bytes} bytes, the limit is {limit}")]
    TooLong {
        /// What the name is of.
        kind: &'static str,
        /// Length given.
        bytes: usize,
        /// Length allowed.
        limit: usize,
    },
    /// Names that begin with an underscore belong to the system.
    #[error("{kind} name {name:?} begins with '_', which is reserved for the system")]
    Reserved {
        /// What the name is of.
        kind: &'static str,
        /// The name given.
        name: String,
    },
    /// The first character isn't a letter.
    #[error("{kind} name {name:?} begins with {character:?}; it must begin with a letter A-Z or a-z")]
    FirstCharacter {
        /// What the name is of.
        kind: &'static str,
        /// The name given.
        name: String,
        /// Its first character.
        character: char,
    },
    /// A character that no name may hold.
    #[error("{kind} name {name:?} holds {character:?} at byte {position}; allowed are A-Z a-z 0-9 . _ -")]
    Character {
        /// What the name is of.
        kind: &'static str,
        /// The name given.
        name: String,
        /// The offending character.
        character: char,
        /// Where it stands.
        position: usize,
    },
}

impl NameError {
    /// The entry of the error table.
    pub fn reason(&self) -> Reason {
        match self {
            NameError::Reserved { .. } => Reason::ReservedName,
            _ => Reason::InvalidName,
        }
    }

    /// Facts for a program: the field, and the value and limit where there is one.
    pub fn metadata(&self) -> Vec<(&'static str, String)> {
        let mut facts = vec![("field", "name".to_owned())];
        match self {
            NameError::Empty { .. } => {
                facts.push(("value", String::new()));
                facts.push(("limit", NAME_BYTES_MAX.to_string()));
            }
            NameError::TooLong { bytes, limit, .. } => {
                facts.push(("value", bytes.to_string()));
                facts.push(("limit", limit.to_string()));
            }
            NameError::Reserved { name, .. }
            | NameError::FirstCharacter { name, .. }
            | NameError::Character { name, .. } => facts.push(("value", name.clone())),
        }
        facts
    }
}

#[cfg(test)]
mod tests {
    use super::{NAME_BYTES_MAX, NameError, SubscriptionName, TopicName};

    #[test]
    fn a_name_is_accepted_at_the_bound_and_refused_one_past_it() {
        let longest = "a".repeat(NAME_BYTES_MAX);
        assert_eq!(TopicName::parse(&longest).map(|n| n.to_string()), Ok(longest.clone()));
        assert_eq!(
            TopicName::parse(&(longest + "a")),
            Err(NameError::TooLong { kind: "topic", bytes: 250, limit: 249 })
        );
    }

    #[test]
    fn every_way_to_be_wrong_has_its_own_error() {
        let refused = |name: &str| TopicName::parse(name).expect_err("refused").to_string();
        insta::assert_snapshot!(
            ["", "_system", "9lives", "a b", "größe", "a/b"].map(refused).join("\n"),
            @r#"
        topic name is empty; it needs 1 to 249 characters
        topic name "_system" begins with '_', which is reserved for the system
        topic name "9lives" begins with '9'; it must begin with a letter A-Z or a-z
        topic name "a b" holds ' ' at byte 1; allowed are A-Z a-z 0-9 . _ -
        topic name "größe" holds 'ö' at byte 2; allowed are A-Z a-z 0-9 . _ -
        topic name "a/b" holds '/' at byte 1; allowed are A-Z a-z 0-9 . _ -
        "#
        );
        for name in ["a", "Orders.eu-west_1", "z.", "A-"] {
            assert!(TopicName::parse(name).is_ok(), "{name}");
        }
    }

    #[test]
    fn an_error_says_which_kind_of_name_it_is_about() {
        let refused = SubscriptionName::parse("").expect_err("refused");
        assert_eq!(refused.to_string(), "subscription name is empty; it needs 1 to 249 characters");
    }
}
