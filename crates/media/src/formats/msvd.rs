//! MSVD, the Microsoft Research Video Description Corpus.

use std::path::Path;

use cart_retrieval::{Error, Result};

use super::{
    PublishedSet,
    files::{lines, read_table},
    set::Builder,
};
use crate::media::Modality;

/// Reads MSVD: the descriptions, and a list of clips for each split (`train_list.txt` and so on: a
/// clip a line, 1,200, 100 and 670 in the usual split).
///
/// The descriptions are `AllVideoDescriptions.txt` (a clip and a sentence a line, `#` before
/// comments) or the corpus' own `.csv` (columns `VideoID`, `Start`, `End`, `Language`,
/// `Description`), of which the English ones are taken. Ids are `VideoID_Start_End`
/// (`mv89psg6zh4_33_46`), files that with `.avi`.
///
/// # Errors
/// [`Error::Io`] when a file cannot be read; [`Error::Captions`] when it looks otherwise, a list names a clip
/// twice, or one without a description.
pub fn msvd<P: AsRef<Path>>(
    descriptions: impl AsRef<Path>,
    lists: &[(&str, P)],
) -> Result<PublishedSet> {
    let path = descriptions.as_ref();
    let is_table = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("csv"));
    let mut described: Vec<(String, String)> = Vec::new();
    let (mut other, mut blank) = (0, 0);
    match is_table {
        true => {
            let columns = ["VideoID", "Start", "End", "Language", "Description"];
            read_table(path, &columns, |row| {
                let (start, end) = (row.required(1)?, row.required(2)?);
                let id = format!("{}_{start}_{end}", row.required(0)?);
                match (row.get(3), row.get(4)) {
                    (language, _) if language != "English" => other += 1,
                    (_, "") => blank += 1,
                    (_, text) => described.push((id, text.to_string())),
                }
                Ok(())
            })?;
        }
        false => {
            for (line, text) in lines(path)? {
                let Some((id, text)) = text.split_once(char::is_whitespace) else {
                    return Err(Error::captions(format!("{}:{line}", path.display()))
                        .expected("a clip, a space, and a sentence")
                        .found(format!("{text:?}"))
                        .fix("correct the line, or download the file again"));
                };
                described.push((id.to_string(), text.trim().to_string()));
            }
        }
    }
    let known: std::collections::HashSet<&str> =
        described.iter().map(|(id, _)| id.as_str()).collect();
    let mut set = Builder::new(Modality::Video);
    for (split, list) in lists {
        let list = list.as_ref();
        for (line, clip) in lines(list)? {
            let id = clip.strip_suffix(".avi").unwrap_or(&clip);
            let at = || format!("{}:{line}", list.display());
            if !known.contains(id) {
                return Err(Error::captions(at())
                    .expected(format!("a clip that {} describes", path.display()))
                    .found(format!("`{id}`"))
                    .fix("download both files again; clips are named VideoID_Start_End"));
            }
            set.item(at, id, format!("{id}.avi"), None)?;
            set.assign(split, id);
        }
    }
    let mut unlisted = 0;
    for (id, text) in &described {
        match set.has(id) {
            true => blank += usize::from(!set.caption(id, text, None)?),
            false => unlisted += 1,
        }
    }
    set.leave_out(path, other, "descriptions in other languages");
    set.leave_out(path, blank, "blank descriptions");
    set.leave_out(path, unlisted, "descriptions of clips that are in no list");
    set.finish(path)
}
