//! Splits: which items belong to training, validation and test.

use std::{collections::HashMap, fmt, path::Path};

use rand::{SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, Visitor},
};

use crate::{
    error::{Error, Result},
    features::{advice_by, shown},
    storage::write_bytes,
};

/// Named, disjoint sets of item ids, in file order.
///
/// # Example
/// ```
/// use cart_retrieval::data::Splits;
/// let ids: Vec<String> = (0..10).map(|n| format!("img{n}")).collect();
/// let splits = Splits::random(&ids, &[("train", 0.8), ("test", 0.2)], 7)?;
/// let test = splits.indices("test", |id| ids.iter().position(|known| known == id))?;
/// assert_eq!(test.len(), 2);
/// # Ok::<(), cart_retrieval::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Splits {
    splits: Vec<(String, Vec<String>)>,
}

impl Splits {
    /// Reads `{"train": [ids], "val": [ids], "test": [ids]}`; any names will do.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be read; [`Error::Splits`] when it is no such object,
    /// holds no split, or an id occurs twice.
    ///
    /// # Example
    /// ```
    /// use cart_retrieval::data::Splits;
    /// let folder = tempfile::tempdir().unwrap();
    /// let path = folder.path().join("splits.json");
    /// std::fs::write(&path, r#"{"train": ["a", "b"], "test": ["c"]}"#).unwrap();
    /// assert_eq!(Splits::from_json(&path)?.ids("test")?, ["c"]);
    /// # Ok::<(), cart_retrieval::Error>(())
    /// ```
    pub fn from_json(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let bytes = std::fs::read(path).map_err(|e| Error::io("read", path, e))?;
        let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&bytes);
        let subject = path.display().to_string();
        let Ordered(splits) = serde_json::from_slice(bytes).map_err(|e| {
            Error::splits(&subject)
                .expected(r#"a JSON object {"train": ["id", ...], "test": ["id", ...]}"#)
                .found(e.to_string())
                .fix("correct the file; ids are strings in double quotes")
        })?;
        Self::checked(splits, &subject)
    }

    /// Splits from names and ids.
    ///
    /// # Errors
    /// [`Error::Splits`] when there is no split, a name is given twice, or an id occurs twice.
    pub fn from_ids<N, I>(splits: impl IntoIterator<Item = (N, Vec<I>)>) -> Result<Self>
    where
        N: Into<String>,
        I: Into<String>,
    {
        let splits = splits
            .into_iter()
            .map(|(name, ids)| (name.into(), ids.into_iter().map(Into::into).collect()))
            .collect();
        Self::checked(splits, "splits")
    }

    /// Deals ids out at random; the same ids, fractions and seed give the same splits.
    ///
    /// Ids keep their given order within a split.
    ///
    /// # Errors
    /// As [`random_indices`], and [`Error::Splits`] when an id or a name occurs twice.
    pub fn random<S: AsRef<str>>(ids: &[S], fractions: &[(&str, f64)], seed: u64) -> Result<Self> {
        let shares: Vec<f64> = fractions.iter().map(|(_, share)| *share).collect();
        let parts = random_indices(ids.len(), &shares, seed)?;
        let named = fractions.iter().zip(parts).map(|((name, _), part)| {
            (*name, part.iter().map(|&item| ids[item as usize].as_ref()).collect())
        });
        Self::from_ids(named)
    }

    /// Names of the splits, in file order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.splits.iter().map(|(name, _)| name.as_str())
    }

    /// Whether there is a split of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.names().any(|known| known == name)
    }

    /// Ids of one split, in file order.
    ///
    /// # Errors
    /// [`Error::Splits`] when there is no split of this name.
    pub fn ids(&self, name: &str) -> Result<&[String]> {
        let found = self.splits.iter().find(|(known, _)| known == name);
        found.map(|(_, ids)| ids.as_slice()).ok_or_else(|| {
            Error::splits("split name")
                .expected(format!("one of {}", self.names().collect::<Vec<_>>().join(", ")))
                .found(format!("`{name}`"))
                .fix("ask for one of these or add the split to the file")
        })
    }

    /// Rows of one split's items, in file order; `index_of` gives the row of an id.
    ///
    /// # Errors
    /// [`Error::Splits`] when there is no split of this name or `index_of` does not know an id.
    pub fn indices(
        &self,
        name: &str,
        index_of: impl Fn(&str) -> Option<usize>,
    ) -> Result<Vec<u32>> {
        let ids = self.ids(name)?;
        let row = |id: &String| index_of(id).and_then(|index| u32::try_from(index).ok());
        ids.iter()
            .map(|id| {
                row(id).ok_or_else(|| {
                    let unknown = ids.iter().filter(|id| row(id).is_none()).count();
                    Error::splits(format!("split `{name}`")).expected("ids of candidates").found(format!("{}, one of {unknown} unknown ids", shown(id))).fix(advice_by(id, |id| index_of(id).is_some()).unwrap_or_else(|| {
                            "remove the id from the split or add the item to ids.txt and the features"
                                .into()
                        }))
                })
            })
            .collect()
    }

    /// Checks every id of every split, so that a run does not stop at the test set.
    ///
    /// # Errors
    /// [`Error::Splits`] for an id that `index_of` does not know.
    pub fn verify(&self, index_of: impl Fn(&str) -> Option<usize>) -> Result<()> {
        self.names().try_for_each(|name| self.indices(name, &index_of).map(drop))
    }

    /// Writes the splits as JSON, replacing the file in one step.
    ///
    /// # Errors
    /// [`Error::Io`]; the file then holds what it held before.
    pub fn to_json(&self, path: impl AsRef<Path>) -> Result<()> {
        write_bytes(path, &self.to_bytes()?)
    }

    /// The splits without the ids of which `gone` is true.
    ///
    /// # Errors
    /// As [`Splits::from_ids`].
    pub fn without(self, gone: &dyn Fn(&str) -> bool) -> Result<Self> {
        let split = |name: &str| -> Result<(String, Vec<String>)> {
            let ids = self.ids(name)?.iter().filter(|id| !gone(id));
            Ok((name.to_string(), ids.cloned().collect()))
        };
        Self::from_ids(self.names().map(split).collect::<Result<Vec<_>>>()?)
    }

    /// The splits as JSON.
    ///
    /// # Errors
    /// [`Error::Io`] when they cannot be written as JSON.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self).map_err(|e| Error::io("write", "splits", e.into()))
    }

    fn checked(splits: Vec<(String, Vec<String>)>, subject: &str) -> Result<Self> {
        let wrong = |expected: &str, found: String, remedy: &str| {
            Err(Error::splits(subject).expected(expected).found(found).fix(remedy))
        };
        if splits.is_empty() {
            return wrong("at least one split", "none".into(), "name a list of ids \"train\"");
        }
        let mut owners: HashMap<&str, &str> = HashMap::new();
        for (position, (name, ids)) in splits.iter().enumerate() {
            if splits[..position].iter().any(|(known, _)| known == name) {
                let found = format!("`{name}` twice");
                return wrong("every split named once", found, "merge or rename the two lists");
            }
            for id in ids {
                match owners.insert(id, name) {
                    Some(owner) if owner == name => {
                        let found = format!("`{id}` twice in `{name}`");
                        return wrong("every id once", found, "remove the second mention");
                    }
                    Some(owner) => {
                        let found = format!("`{id}` in `{owner}` and in `{name}`");
                        return wrong("disjoint splits", found, "keep the id in one of the two");
                    }
                    None => {}
                }
            }
        }
        Ok(Self { splits })
    }
}

/// Deals the rows `0..items` out at random, one ascending list a fraction.
///
/// # Errors
/// [`Error::Splits`] when fractions are not positive or do not sum to 1, or when a split would
/// get no item.
///
/// # Example
/// ```
/// let parts = cart_retrieval::expert::random_indices(10, &[0.5, 0.5], 1)?;
/// assert_eq!((parts[0].len(), parts[1].len()), (5, 5));
/// # Ok::<(), cart_retrieval::Error>(())
/// ```
pub fn random_indices(items: usize, fractions: &[f64], seed: u64) -> Result<Vec<Vec<u32>>> {
    let sum: f64 = fractions.iter().sum();
    let positive = fractions.iter().all(|share| share.is_finite() && *share > 0.0);
    if !positive || (sum - 1.0).abs() > 1e-6 {
        return Err(Error::splits("fractions")
            .expected("positive numbers that sum to 1")
            .found(format!("{fractions:?}"))
            .fix("name a further split for items to leave out"));
    }
    let count = u32::try_from(items).map_err(|_| {
        let remedy = "split the collection";
        Error::splits("items")
            .expected("fewer than 2^32 items")
            .found(items.to_string())
            .fix(remedy)
    })?;
    let mut order: Vec<u32> = (0..count).collect();
    order.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    let mut parts = Vec::with_capacity(fractions.len());
    let (mut start, mut share) = (0, 0.0);
    for (position, fraction) in fractions.iter().enumerate() {
        share += fraction;
        // Rounding the running total keeps every size within one item of its fraction.
        let rounded = (share * items as f64).round() as usize;
        let last = position + 1 == fractions.len();
        let end = if last { items } else { rounded.clamp(start, items) };
        if end == start {
            return Err(Error::splits("fractions")
                .expected("at least one item in every split")
                .found(format!("none of {items} items for the fraction {fraction}"))
                .fix("enlarge the fraction or bring more items"));
        }
        let mut part = order[start..end].to_vec();
        part.sort_unstable();
        parts.push(part);
        start = end;
    }
    Ok(parts)
}

/// A JSON object as a list, so that a name given twice is seen rather than overwritten.
struct Ordered(Vec<(String, Vec<String>)>);

impl<'de> Deserialize<'de> for Ordered {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Ordered;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of lists of ids")
            }

            fn visit_map<A: MapAccess<'de>>(
                self,
                mut map: A,
            ) -> std::result::Result<Ordered, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Ordered(entries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

impl Serialize for Splits {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_map(self.splits.iter().map(|(name, ids)| (name, ids)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Result<Splits> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("splits.json");
        std::fs::write(&path, text).unwrap();
        Splits::from_json(&path)
    }

    #[test]
    fn refuses_what_would_leak_or_mislead() {
        for (text, expected) in [
            ("", "EOF"),
            ("[]", "an object of lists"),
            ("{}", "at least one split"),
            (r#"{"train": "a"}"#, "JSON object"),
            (r#"{"train": [1]}"#, "integer `1`"),
            (r#"{"train": ["a"], "train": ["b"]}"#, "`train` twice"),
            (r#"{"train": ["a", "a"]}"#, "`a` twice in `train`"),
            (r#"{"train": ["a"], "test": ["b", "a"]}"#, "`a` in `train` and in `test`"),
        ] {
            let error = read(text).unwrap_err();
            assert!(matches!(error, Error::Splits(_)), "{error}");
            let message = error.to_string();
            assert!(message.contains(expected) && message.contains("splits.json"), "{message}");
        }
        assert!(matches!(Splits::from_json("no/such/file"), Err(Error::Io { .. })));
    }

    #[test]
    fn indices_and_unknown_ids() {
        let splits = read(r#"{"zeta": ["b", "a"], "alpha": ["c"], "none": []}"#).unwrap();
        assert_eq!(splits.names().collect::<Vec<_>>(), ["zeta", "alpha", "none"]);
        let index = |id: &str| ["a", "b"].iter().position(|known| *known == id);
        assert_eq!(splits.indices("zeta", index).unwrap(), [1, 0]);
        assert!(splits.indices("none", index).unwrap().is_empty());
        assert!(splits.indices("alpha", index).unwrap_err().to_string().contains("\"c\""));
        assert!(splits.verify(index).is_err());
        let slip = read(r#"{"zeta": ["b "]}"#).unwrap().verify(index).unwrap_err().to_string();
        assert!(slip.contains("\"b\" exists"), "{slip}");
        let message = splits.indices("test", index).unwrap_err().to_string();
        assert!(message.contains("one of zeta, alpha, none"), "{message}");
    }

    #[test]
    fn random_needs_honest_fractions() {
        for fractions in [&[][..], &[0.5, 0.4], &[1.5, -0.5], &[f64::NAN], &[0.999, 0.001]] {
            assert!(random_indices(10, fractions, 0).is_err(), "{fractions:?}");
        }
    }

    #[test]
    fn real_files_are_disjoint_and_known() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data");
        for name in ["emoji", "esc50_mel", "flickr8k_clip", "lucide"] {
            let Ok(ids) = std::fs::read_to_string(root.join(name).join("ids.txt")) else {
                eprintln!("skipped: {name} is not here");
                continue;
            };
            let ids: HashMap<&str, usize> =
                ids.lines().enumerate().map(|(index, id)| (id, index)).collect();
            let splits = Splits::from_json(root.join(name).join("splits.json")).unwrap();
            splits.verify(|id| ids.get(id).copied()).unwrap();
        }
    }

    proptest! {
        #[test]
        fn random_parts_cover_everything_once(
            items in 20usize..200, cut in 0.1f64..0.9, seed in any::<u64>(),
        ) {
            let ids: Vec<String> = (0..items).map(|n| n.to_string()).collect();
            let fractions = [("train", cut), ("test", 1.0 - cut)];
            let splits = Splits::random(&ids, &fractions, seed).unwrap();
            prop_assert_eq!(&splits, &Splits::random(&ids, &fractions, seed).unwrap());
            let mut all: Vec<usize> = Vec::new();
            for name in ["train", "test"] {
                all.extend(splits.ids(name).unwrap().iter().map(|id| id.parse::<usize>().unwrap()));
            }
            let train = splits.ids("train").unwrap().len() as f64;
            prop_assert!((train - cut * items as f64).abs() <= 1.0);
            all.sort_unstable();
            prop_assert_eq!(all, (0..items).collect::<Vec<_>>());
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("splits.json");
            splits.to_json(&path).unwrap();
            prop_assert_eq!(Splits::from_json(&path).unwrap(), splits);
        }
    }
}
