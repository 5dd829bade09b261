//! A histogram that keeps all its buckets in a JSON file.
//!
//! Owns: the text form (HDR Histogram V2, as base64). Never: decides what is recorded.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer as _, V2Serializer};
use serde::{Deserialize, Serialize, de, ser};

/// A histogram of nanoseconds, with everything that percentiles and merging need.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SavedHistogram(pub Histogram<u64>);

impl Serialize for SavedHistogram {
    fn serialize<S: ser::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut bytes = Vec::new();
        V2Serializer::new().serialize(&self.0, &mut bytes).map_err(ser::Error::custom)?;
        serializer.serialize_str(&STANDARD.encode(bytes))
    }
}

impl<'de> Deserialize<'de> for SavedHistogram {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = STANDARD.decode(text).map_err(de::Error::custom)?;
        // The library makes room for as many bytes as the head claims to follow.
        let claimed = bytes.get(LENGTH_AT..).and_then(|rest| rest.first_chunk());
        let claimed = claimed.map(|length| u32::from_be_bytes(*length) as usize + HEAD_BYTES);
        if claimed != Some(bytes.len()) {
            return Err(de::Error::custom("a histogram is cut off"));
        }
        let read = Deserializer::new().deserialize(&mut bytes.as_slice());
        read.map(Self).map_err(|error| de::Error::custom(format!("a histogram: {error}")))
    }
}

/// Of the V2 form: cookie, length of what follows the head, and five fields more.
const HEAD_BYTES: usize = 40;
const LENGTH_AT: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::histogram;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_saved_histogram_is_the_same_when_it_is_read(
            values in prop::collection::vec(0u64..60_000_000_000, 0..200),
        ) {
            let mut histogram = histogram();
            for value in values {
                histogram.saturating_record(value);
            }
            let saved = SavedHistogram(histogram);
            let text = serde_json::to_string(&saved).expect("it can be written");
            let read: SavedHistogram = serde_json::from_str(&text).expect("it can be read");
            prop_assert_eq!(&read, &saved);
            for quantile in [0.0, 0.5, 0.9, 0.99, 0.999, 1.0] {
                prop_assert_eq!(
                    read.0.value_at_quantile(quantile),
                    saved.0.value_at_quantile(quantile)
                );
            }
        }

        #[test]
        fn a_damaged_histogram_is_an_error_or_another_histogram_but_no_panic(
            at in 0usize..1000,
            to in any::<u8>(),
        ) {
            let mut histogram = histogram();
            histogram.saturating_record(123_456);
            let mut bytes = Vec::new();
            V2Serializer::new().serialize(&histogram, &mut bytes).expect("it can be written");
            let at = at % bytes.len();
            bytes[at] = to;
            let text = format!("\"{}\"", STANDARD.encode(&bytes));
            let _ = serde_json::from_str::<SavedHistogram>(&text);
            let cut = format!("\"{}\"", STANDARD.encode(&bytes[..at]));
            prop_assert!(serde_json::from_str::<SavedHistogram>(&cut).is_err());
        }
    }
}
