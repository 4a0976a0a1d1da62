//! The listener's answer to a greeting, and its bytes: one that says what it is, a length (4, little-endian), and as many bytes of text or,
//! to an inquiry, of membership.
//!
//! | first byte | meaning |
//! | --- | --- |
//! | 0 | accepted: frames may follow |
//! | 1 | refused; the protocol is not spoken here. All that protocol 1 knows besides 0 |
//! | 2 | refused for good |
//! | 3 | refused for now |
//! | 4 | the membership, to an inquiry: cluster (8), the listener's id (8), configuration, CRC32C of these (4) |
//! | 5 | refused for good, since it was removed from the cluster |

use bytes::Bytes;
use quorate_base::NodeId;
use quorate_raft::Config;

use super::Refusal;
use crate::codec::{DecodeError, Put, Reader, length};

/// Bytes of an answer before its text.
pub const ANSWER_HEAD: usize = 5;

/// The longest text, and the longest membership.
const MAX_LEN: (usize, usize) = (1024, 4 << 20);

/// What a listener says to a greeting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Frames may follow.
    Accepted,
    /// They may not.
    Refused {
        /// What to make of it.
        verdict: Verdict,
        /// The reason, for people.
        why: String,
    },
    /// What was inquired.
    Welcome(Welcome),
}

/// What a dialler should make of a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// This protocol is not spoken here: try an older one.
    Protocol,
    /// This may change: try again later.
    Retry,
    /// This never changes: the dialler has to end.
    Final,
    /// Neither does this: the dialler was removed from the cluster.
    Removed,
}

impl Verdict {
    /// Whether the dialler has to end.
    pub fn is_final(self) -> bool {
        matches!(self, Verdict::Final | Verdict::Removed)
    }
}

/// What someone who wants to join is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// The cluster.
    pub cluster: u64,
    /// The member that tells.
    pub member: NodeId,
    /// The configuration in force there.
    pub config: Config,
}

impl Answer {
    /// The bytes to send.
    pub fn encode(&self) -> Bytes {
        let (tag, body) = match self {
            Answer::Accepted => (0, Vec::new()),
            Answer::Refused { verdict, why } => {
                let tag = match verdict {
                    Verdict::Protocol => 1,
                    Verdict::Final => 2,
                    Verdict::Retry => 3,
                    Verdict::Removed => 5,
                };
                let cut = (0..=why.len().min(MAX_LEN.0))
                    .rev()
                    .find(|at| why.is_char_boundary(*at));
                (tag, why.as_bytes()[..cut.unwrap_or(0)].to_vec())
            }
            Answer::Welcome(welcome) => {
                let mut body = Vec::new();
                body.put_u64(welcome.cluster);
                body.put_u64(welcome.member.0);
                body.put_config(&welcome.config);
                body.put_u32(crc32c::crc32c(&body));
                (4, body)
            }
        };
        let mut bytes = vec![tag];
        bytes.put_u32(length(body.len()));
        bytes.extend_from_slice(&body);
        bytes.into()
    }

    /// Reads an answer from its head and the [`answer_len`] bytes that follow.
    pub fn decode(head: &[u8; ANSWER_HEAD], body: Bytes) -> Result<Answer, DecodeError> {
        let verdict = match head[0] {
            0 => return Ok(Answer::Accepted),
            4 => return Welcome::decode(body).map(Answer::Welcome),
            1 => Verdict::Protocol,
            2 => Verdict::Final,
            5 => Verdict::Removed,
            // Whatever a later version means by others, it is no acceptance.
            _ => Verdict::Retry,
        };
        let why = String::from_utf8_lossy(&body).into_owned();
        Ok(Answer::Refused { verdict, why })
    }
}

impl From<&Refusal> for Answer {
    fn from(refusal: &Refusal) -> Answer {
        Answer::Refused {
            verdict: refusal.verdict(),
            why: refusal.to_string(),
        }
    }
}

impl Welcome {
    fn decode(body: Bytes) -> Result<Welcome, DecodeError> {
        let Some((covered, crc)) = body.split_last_chunk::<4>() else {
            return Err(DecodeError::Short);
        };
        if crc32c::crc32c(covered) != u32::from_le_bytes(*crc) {
            return Err(DecodeError::Invalid("the checksum of an answer is wrong"));
        }
        let mut reader = Reader::new(body.slice(..covered.len()));
        let welcome = Welcome {
            cluster: reader.u64()?,
            member: NodeId(reader.u64()?),
            config: reader.config()?,
        };
        reader.end()?;
        Ok(welcome)
    }
}

/// Bytes after an answer's head; refused if they are unreasonably many.
pub fn answer_len(head: &[u8; ANSWER_HEAD]) -> Result<usize, DecodeError> {
    let len = u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize;
    let most = if head[0] == 4 { MAX_LEN.1 } else { MAX_LEN.0 };
    if len > most {
        return Err(DecodeError::Invalid("the answer to the greeting is too long"));
    }
    Ok(len)
}

#[cfg(test)]
mod tests {
    use quorate_base::{Index, Term};

    use super::super::refusal::Older;
    use super::*;

    fn round_trip(answer: &Answer) -> Result<Answer, DecodeError> {
        let bytes = answer.encode();
        let head = bytes[..ANSWER_HEAD].try_into().unwrap();
        assert_eq!(answer_len(&head), Ok(bytes.len() - ANSWER_HEAD));
        Answer::decode(&head, bytes.slice(ANSWER_HEAD..))
    }

    #[test]
    fn answers_carry_the_reason_whole() {
        let id = NodeId(u64::MAX);
        let (known, shown) = (u64::MAX, u64::MAX - 1);
        let older = [
            Older::Boot { shown, seen: known },
            Older::Term {
                shown: Term(shown),
                seen: Term(known),
            },
            Older::Log {
                shown: Index(shown),
                seen: Index(known),
            },
        ];
        let mut refusals = vec![
            Refusal::WrongCluster { ours: 8, theirs: 9 },
            Refusal::Removed { id },
            Refusal::Wiped { id, known, shown },
            Refusal::Duplicate { id, boot: known },
        ];
        refusals.extend(older.map(|older| Refusal::OlderData { id, older }));
        for refusal in &refusals {
            let (verdict, why) = (refusal.verdict(), refusal.to_string());
            assert_eq!(round_trip(&refusal.into()), Ok(Answer::Refused { verdict, why }));
        }
        assert_eq!(round_trip(&Answer::Accepted), Ok(Answer::Accepted));
        assert!(answer_len(&[1, 255, 255, 255, 255]).is_err());
    }

    #[test]
    fn nodes_of_protocol_1_understand_acceptance_and_refusal() {
        assert_eq!(Answer::Accepted.encode()[..], [0; ANSWER_HEAD]);
        for refusal in [
            Refusal::NoPapers,
            Refusal::NotAPeer,
            Refusal::Removed { id: NodeId(1) },
        ] {
            assert_ne!(Answer::from(&refusal).encode()[0], 0);
        }
    }

    #[test]
    fn a_membership_arrives_whole_or_not_at_all() {
        let welcome = Answer::Welcome(Welcome {
            cluster: 7,
            member: NodeId(2),
            config: Config::of([NodeId(1), NodeId(2)]),
        });
        assert_eq!(round_trip(&welcome), Ok(welcome.clone()));
        let bytes = welcome.encode();
        let head: [u8; ANSWER_HEAD] = bytes[..ANSWER_HEAD].try_into().unwrap();
        for at in ANSWER_HEAD..bytes.len() {
            let mut flipped = bytes.to_vec();
            flipped[at] ^= 4;
            assert!(Answer::decode(&head, Bytes::from(flipped).slice(ANSWER_HEAD..)).is_err());
        }
    }
}
