//! The real engine on real files: killed, cut off from its power, filled up, damaged, trimmed. What was
//! acknowledged comes back whole, or is missed with a name; and the space of what was deleted comes back too.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod damage;
mod journal;
mod killed;
mod mounted;
mod space;
