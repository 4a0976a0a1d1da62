//! The JSON form of the messages, as etcd 3.6's gateway reads and writes it: snake_case names, unset fields left out, 64-bit
//! integers as strings, bytes as base64 on output; camelCase too, numbers or strings, names or numbers for enums on input.
//! Which path takes which message is the server's business.
//!
//! Where etcd's gateway is lenient, so is this one: unknown fields, unknown enum names and whatever follows the first JSON
//! value are passed over. A field given twice, a fraction for an integer and a string for a bool are refused.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::LazyLock;

use prost::{Message, Name};
use prost_reflect::{DescriptorPool, DeserializeOptions, DynamicMessage, SerializeOptions};
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// All message types, read once from the descriptors that the build kept.
static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    DescriptorPool::decode(crate::DESCRIPTORS).expect("the descriptors that the build wrote are well-formed")
});

/// Why a piece of JSON is not the message it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The text ends in the middle of a value.
    #[error("unexpected EOF")]
    Truncated,
    /// Not JSON, or not of the message's shape. The text says where and why.
    #[error("proto: {0}")]
    Invalid(String),
}

impl From<serde_json::Error> for DecodeError {
    fn from(e: serde_json::Error) -> Self {
        if e.is_eof() {
            DecodeError::Truncated
        } else {
            DecodeError::Invalid(e.to_string())
        }
    }
}

/// Reads the first JSON value of `text` as a message. Blank text is the empty message.
///
/// # Errors
/// [`DecodeError`] when the value is cut off, is not JSON, or does not fit the message.
pub fn decode<M: Message + Name + Default>(text: &[u8]) -> Result<M, DecodeError> {
    if text.iter().all(u8::is_ascii_whitespace) {
        return Ok(M::default());
    }
    DistinctNames.deserialize(&mut serde_json::Deserializer::from_slice(text))?;
    let options = DeserializeOptions::new().deny_unknown_fields(false);
    let mut reader = serde_json::Deserializer::from_slice(text);
    let dynamic = DynamicMessage::deserialize_with_options(descriptor::<M>(), &mut reader, &options)?;
    dynamic
        .transcode_to()
        .map_err(|e| DecodeError::Invalid(e.to_string()))
}

/// Writes a message as compact JSON.
pub fn encode<M: Message + Name>(message: &M) -> Vec<u8> {
    let mut dynamic = DynamicMessage::new(descriptor::<M>());
    dynamic
        .transcode_from(message)
        .expect("a message fits its own descriptor");
    let options = SerializeOptions::new()
        .use_proto_field_name(true)
        .skip_default_fields(true);
    let mut out = Vec::new();
    dynamic
        .serialize_with_options(&mut serde_json::Serializer::new(&mut out), &options)
        .expect("a message is always writable as JSON");
    out
}

/// The length of the first whole JSON value in `text`, leading blanks included; `None` while it is still incomplete. For
/// request streams, where one value follows the other.
///
/// # Errors
/// [`DecodeError::Invalid`] when what is there can never become JSON.
pub fn first_value(text: &[u8]) -> Result<Option<usize>, DecodeError> {
    let mut values = serde_json::Deserializer::from_slice(text).into_iter::<IgnoredAny>();
    match values.next() {
        None => Ok(None),
        Some(Ok(IgnoredAny)) => Ok(Some(values.byte_offset())),
        Some(Err(e)) if e.is_eof() => Ok(None),
        Some(Err(e)) => Err(e.into()),
    }
}

fn descriptor<M: Name>() -> prost_reflect::MessageDescriptor {
    POOL.get_message_by_name(&M::full_name())
        .expect("every generated message is in the descriptors")
}

/// Walks a JSON value and refuses an object that names a field twice, which the message reader would take silently.
struct DistinctNames;

impl<'de> DeserializeSeed<'de> for DistinctNames {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for DistinctNames {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = BTreeSet::new();
        while let Some(name) = map.next_key::<String>()? {
            if seen.contains(&name) {
                return Err(A::Error::custom(format_args!("duplicate field {name:?}")));
            }
            seen.insert(name);
            map.next_value_seed(DistinctNames)?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(DistinctNames)?.is_some() {}
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}
