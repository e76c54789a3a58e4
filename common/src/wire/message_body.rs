//! The body of a message between tasks on its way: the text of a [`Blob`] in JSON, which the
//! service carries without looking into it. Pure.

use crate::task::blob::Blob;
use crate::task::json::Json;
use serde::{Deserialize, Serialize};

/// The bytes of a message, as they are written on the wire.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MessageBody(Json);

impl MessageBody {
    /// Writes bytes.
    #[must_use]
    #[allow(clippy::expect_used, reason = "a string, or an object with one, always encodes")]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Json::of(&BlobText(bytes)).expect("bytes always encode"))
    }

    /// Reads the bytes.
    ///
    /// # Errors
    /// When the text is not that of bytes, in words.
    pub fn bytes(&self) -> Result<Vec<u8>, String> {
        let blob: Result<Blob, _> = serde_json::from_str(self.0.text());
        blob.map(|blob| blob.0).map_err(|error| format!("its body is no bytes: {error}"))
    }
}

/// Bytes that are written as a [`Blob`].
struct BlobText<'a>(&'a [u8]);

impl Serialize for BlobText<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Blob::write(self.0, serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_are_read_as_they_were_written_and_other_json_is_not() {
        for bytes in [&b""[..], b"text\n\"", &[0xff, 0, 1], "gr\u{fc}\u{df}".as_bytes()] {
            let body = MessageBody::of(bytes);
            let carried = serde_json::to_string(&body).unwrap();
            assert_eq!(carried, serde_json::to_string(&Blob(bytes.to_vec())).unwrap());
            let read: MessageBody = serde_json::from_str(&carried).unwrap();
            assert_eq!(read.bytes().unwrap(), bytes);
        }
        for other in ["7", "[]", r#"{"base64":"!"}"#, "{}"] {
            let body: MessageBody = serde_json::from_str(other).unwrap();
            assert!(body.bytes().unwrap_err().contains("no bytes"), "{other}");
        }
    }
}
