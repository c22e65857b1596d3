//! Clotho: sounds with five captions each.

use std::path::Path;

use cart_retrieval::Result;

use super::{PublishedSet, files::read_table, set::Builder};
use crate::media::Modality;

const COLUMNS: [&str; 6] =
    ["file_name", "caption_1", "caption_2", "caption_3", "caption_4", "caption_5"];

/// Reads Clotho: a table for each split (`clotho_captions_development.csv`, `_validation.csv`,
/// `_evaluation.csv`), with the name that the split gets and the folder of its sounds.
///
/// Ids are `folder/file name`, since a name may occur in two splits; files too.
///
/// # Errors
/// [`Error::Io`](cart_retrieval::Error::Io) when a file cannot be read;
/// [`Error::Captions`](cart_retrieval::Error::Captions) for a table without these columns, a line
/// of another number of values, or a sound twice.
///
/// # Example
/// ```no_run
/// use cart_media::formats::clotho;
/// let set = clotho(&[
///     ("train", "development", "clotho_captions_development.csv"),
///     ("val", "validation", "clotho_captions_validation.csv"),
///     ("test", "evaluation", "clotho_captions_evaluation.csv"),
/// ])?;
/// # Ok::<(), cart_retrieval::Error>(())
/// ```
pub fn clotho<P: AsRef<Path>>(tables: &[(&str, &str, P)]) -> Result<PublishedSet> {
    let mut set = Builder::new(Modality::Audio);
    let mut last = Path::new("Clotho");
    for (split, folder, path) in tables {
        let path = path.as_ref();
        let mut blank = 0;
        read_table(path, &COLUMNS, |row| {
            let id = format!("{folder}/{}", row.required(0)?);
            set.item(|| row.at(), &id, &id, None)?;
            set.assign(split, &id);
            for caption in 1..COLUMNS.len() {
                let number = caption as i64 - 1;
                blank += usize::from(!set.caption(&id, row.get(caption), Some(number))?);
            }
            Ok(())
        })?;
        set.leave_out(path, blank, "blank captions");
        last = path;
    }
    set.finish(last)
}
