//! Names of shards in a folder: `features-00000-of-00008.npy`.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use crate::error::{Error, ProblemBuilder, Result};

/// What files are called, and the error when they do not go together.
pub struct Names {
    pub(crate) stem: &'static str,
    pub(crate) extensions: &'static [&'static str],
    pub(crate) error: fn(String) -> ProblemBuilder<0>,
}

/// Shards of features.
pub const FEATURES: Names = Names {
    stem: "features",
    extensions: &["npy", "npz", "safetensors"],
    error: |subject| Error::features(subject),
};

/// The ids of shards.
pub(crate) const IDS: Names =
    Names { stem: "ids", extensions: &["txt"], error: |subject| Error::ids(subject) };

/// Files of a folder named `<stem>-<number>-of-<count>.<extension>`, by number; `None` when there
/// is no such file.
///
/// # Errors
/// [`Error::Io`] when the folder cannot be read; that of `names` when counts disagree, or a number
/// is missing, there twice, or not below the count.
pub fn find(folder: &Path, names: &Names) -> Result<Option<Vec<PathBuf>>> {
    let refused = |source| Error::io("read", folder, source);
    let mut found: Vec<(String, usize, usize)> = Vec::new();
    for entry in fs::read_dir(folder).map_err(refused)? {
        let name = entry.map_err(refused)?.file_name();
        if let Some(name) = name.to_str()
            && let Some((number, count)) = parse(name, names)
        {
            found.push((name.to_string(), number, count));
        }
    }
    found.sort();
    let Some((first, _, count)) = found.first().cloned() else {
        return Ok(None);
    };
    let wrong = |subject: &str, expected: String, found: String, remedy: &str| {
        let subject = folder.join(subject).display().to_string();
        Err((names.error)(subject).expected(expected).found(found).fix(remedy))
    };
    let mut shards: BTreeMap<usize, &str> = BTreeMap::new();
    for (name, number, of) in &found {
        if *of != count {
            return wrong(
                name,
                format!("one of {count} shards, as {first}"),
                format!("one of {of}"),
                "keep the shards of one export in a folder",
            );
        }
        if *number >= count {
            return wrong(
                name,
                format!("a number below {count}: shards are counted from 0"),
                number.to_string(),
                "rename the shards",
            );
        }
        if let Some(other) = shards.insert(*number, name) {
            return wrong(
                name,
                format!("shard {number} once"),
                format!("also {other}"),
                "remove the file that is out of date",
            );
        }
    }
    if let Some(missing) = (0..count).find(|number| !shards.contains_key(number)) {
        return wrong(
            &format!("{}-{missing:05}-of-{count:05}", names.stem),
            format!("all of {count} shards"),
            format!("only {}: this one is missing", shards.len()),
            "make or fetch it again",
        );
    }
    Ok(Some(shards.values().map(|name| folder.join(name)).collect()))
}

/// Number and count in the name of a shard.
fn parse(name: &str, names: &Names) -> Option<(usize, usize)> {
    let (name, extension) = name.rsplit_once('.')?;
    if !names.extensions.iter().any(|known| extension.eq_ignore_ascii_case(known)) {
        return None;
    }
    let (number, count) = name.strip_prefix(names.stem)?.strip_prefix('-')?.split_once("-of-")?;
    let parse = |digits: &str| {
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
    };
    Some((parse(number)?, parse(count)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(names: &[&str]) -> Result<Option<Vec<String>>> {
        let folder = tempfile::tempdir().unwrap();
        for name in names {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let name = |path: PathBuf| path.file_name().unwrap().to_str().unwrap().to_string();
        let names = Names { stem: "x", ..FEATURES };
        Ok(find(folder.path(), &names)?.map(|paths| paths.into_iter().map(name).collect()))
    }

    #[test]
    fn names_are_put_in_the_order_of_their_numbers() {
        let names =
            ["x-2-of-3.npy", "x-0-of-3.npy", "x-01-of-03.safetensors", "x.npy", "y-0-of-9.npy"];
        let expected = ["x-0-of-3.npy", "x-01-of-03.safetensors", "x-2-of-3.npy"];
        assert_eq!(found(&names).unwrap().unwrap(), expected);
        for other in ["x-a-of-3.npy", "x--of-.npy", "x-1-of-3.npy.tmp", ".x-0-of-1.npy.1.tmp"] {
            assert_eq!(found(&[other]).unwrap(), None, "{other}");
        }
        assert!(matches!(find(Path::new("no/such/folder"), &IDS), Err(Error::Io { .. })));
    }

    #[test]
    fn gaps_repetitions_and_other_counts_are_named() {
        for (names, words) in [
            (
                &["x-00000-of-00003.npy", "x-00002-of-00003.npy"][..],
                &["x-00001-of-00003", "only 2"][..],
            ),
            (
                &["x-0-of-2.npy", "x-1-of-2.npy", "x-1-of-2.npz"],
                &["x-1-of-2.npz", "also x-1-of-2.npy"],
            ),
            (&["x-0-of-1.npy", "x-0-of-2.npy"], &["x-0-of-2.npy", "one of 1 shards"]),
            (&["x-1-of-1.npy"], &["x-1-of-1.npy", "counted from 0"]),
        ] {
            let message = found(names).unwrap_err().to_string();
            for word in words {
                assert!(message.contains(word), "{message}: {word}");
            }
        }
    }
}
