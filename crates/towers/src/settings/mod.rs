//! The settings files of CLIP and CLAP: every field is followed, known to be harmless, or refused
//! by name.

use std::path::Path;

use cart_retrieval::{
    Result,
    members::settings::{PREPROCESSOR, PROCESSOR, Settings, Table},
};

mod clap;
mod clip;
#[cfg(test)]
mod tests;

pub(super) use clap::clap_pair;
pub(super) use clip::clip_pair;

/// The settings of the preparation of media: those under one of `keys` in the file of transformers
/// 5 if it has them, otherwise the file of transformers 4, if it is there.
fn preparation(folder: &Path, keys: &[&str], outer: Table) -> Result<Option<Settings>> {
    if let Some(settings) = Settings::read_if_there(&folder.join(PROCESSOR))? {
        settings.check(outer)?;
        let nested = keys.iter().map(|key| settings.object(key)).collect::<Result<Vec<_>>>()?;
        if let Some(nested) = nested.into_iter().flatten().next() {
            return Ok(Some(nested));
        }
    }
    Settings::read_if_there(&folder.join(PREPROCESSOR))
}
