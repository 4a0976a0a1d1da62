//! What the members know of each other besides their ids: [`About`] is what stands in a configuration's
//! [`about`](quorate_raft::Config::about), opaque to the core.

use bytes::Bytes;

use crate::codec::{DecodeError, Put, Reader, length};

const VERSION: u8 = 1;

/// One member, as the configuration describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct About {
    /// A name for people. May be empty until the member has started.
    pub name: String,
    /// `host:port` of its peer listener, in order of preference.
    pub addresses: Vec<String>,
    /// Whatever the application wants to be known of it.
    pub extra: Bytes,
}

impl About {
    /// The bytes for the configuration.
    pub fn encode(&self) -> Box<[u8]> {
        let mut bytes = vec![VERSION];
        let mut put = |text: &[u8]| {
            bytes.put_u32(length(text.len()));
            bytes.extend_from_slice(text);
        };
        put(self.name.as_bytes());
        put(&self.extra);
        self.addresses.iter().for_each(|address| put(address.as_bytes()));
        bytes.into()
    }

    /// From a configuration's bytes.
    pub fn decode(bytes: &[u8]) -> Result<About, DecodeError> {
        let mut reader = Reader::new(Bytes::copy_from_slice(bytes));
        match reader.u8()? {
            VERSION => {}
            other => return Err(DecodeError::Version(other)),
        }
        let mut parts = Vec::new();
        while !reader.is_empty() {
            let len = reader.u32()? as usize;
            parts.push(reader.bytes(len)?);
        }
        let text = |part: &Bytes| {
            let text = std::str::from_utf8(part);
            text.map(str::to_owned)
                .map_err(|_| DecodeError::Invalid("a member's description is not text"))
        };
        let [name, extra, addresses @ ..] = &parts[..] else {
            return Err(DecodeError::Short);
        };
        Ok(About {
            name: text(name)?,
            addresses: addresses.iter().map(text).collect::<Result<_, _>>()?,
            extra: extra.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_survive_the_log_and_garbage_does_not() {
        let full = About {
            name: "n1".into(),
            addresses: vec!["a:1".into(), "b:2".into()],
            extra: Bytes::from_static(b"\x00\xff"),
        };
        for about in [full, About::default()] {
            let bytes = about.encode();
            assert_eq!(About::decode(&bytes), Ok(about));
            for cut in 0..9 {
                assert!(About::decode(&bytes[..cut]).is_err(), "cut at {cut}");
            }
        }
        assert_eq!(About::decode(&[9]), Err(DecodeError::Version(9)));
        assert!(
            About::decode(&[1, 1, 0, 0, 0, 255, 0, 0, 0, 0]).is_err(),
            "a name that is no text"
        );
    }
}
