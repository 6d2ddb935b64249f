//! Salt: what keeps a digest from telling what it is of.
//!
//! *In*: 32 bytes of the operating system's randomness. *Out*: [`Salt`], in documents as 64
//! lower-case hex digits. *Refuses*: any other text. Who has a value's digest and not its salt
//! cannot try values until one fits; who has both can check it.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::digest::{hex, unhex};

/// Bytes of salt.
pub const SALT_BYTES: usize = 32;

/// Salt. It belongs to one value, lies beside it, and leaves when the value does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Salt([u8; SALT_BYTES]);

impl Salt {
    /// From bytes that were drawn for one value and for nothing else.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; SALT_BYTES]) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for Salt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Salt")
    }
}

impl Serialize for Salt {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex(&self.0))
    }
}

impl<'de> Deserialize<'de> for Salt {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        unhex(&text).map(Self).ok_or_else(|| D::Error::custom("salt is 64 lower-case hex digits"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_64_hex_digits_and_shows_nothing() {
        let salt = Salt::from_bytes([0xa5; SALT_BYTES]);
        let text = serde_json::to_string(&salt).unwrap();
        assert_eq!(text, format!("\"{}\"", "a5".repeat(SALT_BYTES)));
        assert_eq!(serde_json::from_str::<Salt>(&text).unwrap(), salt);
        for wrong in ["\"\"".to_owned(), text.replace("a5", "A5"), text.replacen("a5", "", 1), "null".to_owned()] {
            assert!(serde_json::from_str::<Salt>(&wrong).is_err(), "{wrong}");
        }
        assert_eq!(format!("{salt:?}"), "Salt");
    }
}
