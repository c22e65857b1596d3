//! Files of the state of an extraction, as JSON.

use std::path::Path;

use cart_retrieval::{
    Error, Result,
    members::{read_limited, write_bytes},
};
use serde::Serialize;

/// The longest file of state that is read.
const LONGEST_STATE: u64 = 1 << 32;

pub(super) fn read_state<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    let bytes = read_limited(path, LONGEST_STATE)?;
    serde_json::from_slice(&bytes).map_err(|e| {
        Error::media(path.display().to_string()).expected("the state of an extraction").found(e.to_string()).fix("remove this file, and the folder `extraction` next to the features, and start again")
    })
}

pub(super) fn to_json(state: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(state).map_err(|e| {
        Error::media("state of the extraction")
            .expected("text")
            .found(e.to_string())
            .fix("report this")
    })
}

pub(super) fn write_state(path: &Path, state: &impl Serialize) -> Result<()> {
    write_bytes(path, &to_json(state)?)
}
