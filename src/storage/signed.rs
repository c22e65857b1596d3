//! JSON files that hold a checksum of themselves.

use std::ops::Range;

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::hex;

/// What stands in the field `checksum` while the checksum is computed.
pub(crate) const UNSIGNED: &str =
    "0000000000000000000000000000000000000000000000000000000000000000";

/// The file of a value whose field `checksum` is [`UNSIGNED`], and the SHA-256 that was put there.
pub(crate) fn signed_json(unsigned: &impl Serialize) -> serde_json::Result<(Vec<u8>, String)> {
    let mut bytes = serde_json::to_vec_pretty(unsigned)?;
    let sum = hex(&Sha256::digest(&bytes));
    if let Some(place) = checksum_place(&bytes) {
        bytes[place].copy_from_slice(sum.as_bytes());
    }
    Ok((bytes, sum))
}

/// The checksum in a file, if it is that of the file.
pub(crate) fn verified_checksum(mut bytes: Vec<u8>) -> Option<String> {
    let place = checksum_place(&bytes)?;
    let found = bytes[place.clone()].to_vec();
    bytes[place].copy_from_slice(UNSIGNED.as_bytes());
    Some(hex(&Sha256::digest(&bytes))).filter(|sum| sum.as_bytes() == found)
}

/// Where the checksum is.
fn checksum_place(bytes: &[u8]) -> Option<Range<usize>> {
    const KEY: &[u8] = b"\"checksum\": \"";
    let start = bytes.windows(KEY.len()).position(|window| window == KEY)? + KEY.len();
    let place = start..start + UNSIGNED.len();
    (place.end <= bytes.len()).then_some(place)
}
