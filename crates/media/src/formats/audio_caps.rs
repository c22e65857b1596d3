//! AudioCaps: ten seconds of sound from videos, with one caption each, or five.

use std::path::Path;

use cart_retrieval::Result;

use super::{PublishedSet, files::read_table, set::Builder};
use crate::media::Modality;

/// How the sounds of AudioCaps are called on disk; the set has only captions and where its sounds
/// come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClipName {
    /// `YOUTUBEID_START.wav`, cut to ten seconds.
    #[default]
    IdAndStart,
    /// `YYOUTUBEID.wav`, cut to ten seconds.
    YAndId,
    /// `YOUTUBEID.wav` of the whole video, of which ten seconds from the start are meant.
    Whole,
}

const COLUMNS: [&str; 4] = ["audiocap_id", "youtube_id", "start_time", "caption"];
/// Length of a clip in seconds.
const LENGTH: f64 = 10.0;

/// Reads AudioCaps: a table for each split (`train.csv`, `val.csv`, `test.csv`), with the name that
/// the split gets.
///
/// A clip has a line for each of its captions: one in the training split, five in the others. Ids
/// are `YOUTUBEID_START`; captions carry their `audiocap_id`.
///
/// # Errors
/// [`Error::Io`](cart_retrieval::Error::Io) when a file cannot be read;
/// [`Error::Captions`](cart_retrieval::Error::Captions) for a table without these columns, a line
/// of another number of values, or a start that is no number;
/// [`Error::Splits`](cart_retrieval::Error::Splits) for a clip in two splits.
///
/// # Example
/// ```no_run
/// use cart_media::formats::{ClipName, audio_caps};
/// let tables = [("train", "train.csv"), ("val", "val.csv"), ("test", "test.csv")];
/// let set = audio_caps(&tables, ClipName::default())?;
/// # Ok::<(), cart_retrieval::Error>(())
/// ```
pub fn audio_caps<P: AsRef<Path>>(tables: &[(&str, P)], names: ClipName) -> Result<PublishedSet> {
    let mut set = Builder::new(Modality::Audio);
    let mut last = Path::new("AudioCaps");
    for (split, path) in tables {
        let path = path.as_ref();
        let mut blank = 0;
        let mut here = std::collections::HashSet::new();
        read_table(path, &COLUMNS, |row| {
            let (video, start) = (row.required(1)?, row.seconds(2)?);
            let id = format!("{video}_{start}");
            if here.insert(id.clone()) {
                if !set.has(&id) {
                    let (file, span) = match names {
                        ClipName::IdAndStart => (format!("{id}.wav"), None),
                        ClipName::YAndId => (format!("Y{video}.wav"), None),
                        ClipName::Whole => (format!("{video}.wav"), Some((start, start + LENGTH))),
                    };
                    set.item(|| row.at(), &id, file, span)?;
                }
                set.assign(split, &id);
            }
            let number = row.required(0)?.parse().ok();
            blank += usize::from(!set.caption(&id, row.get(3), number)?);
            Ok(())
        })?;
        set.leave_out(path, blank, "blank captions");
        last = path;
    }
    set.finish(last)
}
