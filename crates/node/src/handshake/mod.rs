//! The first words on a connection between two members: who speaks to whom, in which cluster, in which format, and with which data behind
//! it. Only the bytes and the rules that need no memory; what is remembered of a peer is in [`roster`](crate::roster), the connection
//! itself belongs to the driver.
//!
//! The dialler sends a [`Hello`], the listener an [`Answer`]. Both begin in a form that later versions must keep, so that different
//! versions can at least refuse each other politely. A dialler whose version is not spoken ([`Verdict::Protocol`]) tries the one before.
//!
//! Someone who is no member yet sends an *inquiry* ([`Hello::inquiry`]) and is told the membership, after which the connection ends.

mod answer;
mod hello;
mod refusal;

pub use answer::{ANSWER_HEAD, Answer, Verdict, Welcome, answer_len};
pub use hello::{HELLO_LEN, Hello, MAGIC, MAX_NONCES, Papers};
pub use refusal::{Local, Older, Refusal};

/// The latest protocol version that this program speaks.
pub const PROTOCOL: u32 = 2;

/// The oldest protocol version that this program speaks.
pub const MIN_PROTOCOL: u32 = 1;

/// The features beyond the protocol that this program knows; counts up. 2 brought membership changes.
pub const FEATURE_LEVEL: u32 = 2;

/// The protocol that a node with these features speaks at most. A node held back to old features speaks as old nodes do.
pub fn protocol_of(features: u32) -> u32 {
    features.clamp(MIN_PROTOCOL, PROTOCOL)
}
