//! Ids that are spelled nearly alike: what an unknown id was probably meant to be.

use unicode_normalization::UnicodeNormalization;

use super::ItemIds;

/// Characters that no one sees in an id: a byte order mark, joiners and soft hyphens.
const INVISIBLE: [char; 6] =
    ['\u{feff}', '\u{200b}', '\u{200c}', '\u{200d}', '\u{2060}', '\u{00ad}'];

/// Ids that are looked at for a near one.
const MOST: usize = 1 << 20;

/// An id without what cannot be seen: white space at its ends, invisible characters, and the
/// different ways in which Unicode writes one letter (form C, with a plain space for every kind of
/// space).
///
/// Two ids with the same canonical form look alike and are different to an index.
///
/// # Example
/// ```
/// use cart_retrieval::expert::canonical_id;
/// assert_eq!(canonical_id(" cafe\u{301}.jpg\u{a0}"), "caf\u{e9}.jpg");
/// ```
pub fn canonical_id(id: &str) -> String {
    let seen = id.chars().filter(|character| !INVISIBLE.contains(character));
    let spaced = seen.map(|character| if character.is_whitespace() { ' ' } else { character });
    spaced.nfc().collect::<String>().trim().to_string()
}

/// An id without its folders and its extension, in lower case.
fn stem(id: &str) -> String {
    let name = id.rsplit(['/', '\\']).next().unwrap_or(id);
    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
    stem.to_lowercase()
}

/// How an unknown id differs from one that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Difference {
    /// Nothing that can be seen.
    Unseen,
    Case,
    /// Folders or the extension.
    Path,
}

fn difference(canonical: &str, known: &str) -> Option<Difference> {
    let known = canonical_id(known);
    if known == canonical {
        return Some(Difference::Unseen);
    }
    if known.to_lowercase() == canonical.to_lowercase() {
        return Some(Difference::Case);
    }
    let (a, b) = (stem(canonical), stem(&known));
    (!a.is_empty() && a == b).then_some(Difference::Path)
}

impl ItemIds {
    /// A known id that is spelled nearly as an unknown one: it differs in what cannot be seen
    /// ([`canonical_id`]), in upper and lower case, or in folders and extension; the nearest of
    /// these, and of several the first. It looks at the first million ids, so ask it only for the
    /// text of an error.
    ///
    /// # Example
    /// ```
    /// use cart_retrieval::features::ItemIds;
    /// let ids = ItemIds::new(&["dog.jpg", "cat.jpg"])?;
    /// assert_eq!(ids.near("cat.jpg "), Some("cat.jpg"));
    /// assert_eq!(ids.near("pictures/Dog.png"), Some("dog.jpg"));
    /// assert_eq!(ids.near("cow.jpg"), None);
    /// # Ok::<(), cart_retrieval::Error>(())
    /// ```
    pub fn near(&self, id: &str) -> Option<&str> {
        nearest(id, self.iter().take(MOST))
    }

    /// A known id that looks like another one and is not the same ([`canonical_id`]): another
    /// normal form of Unicode, or a space at an end. A few look-ups, whatever the number of ids.
    ///
    /// # Example
    /// ```
    /// use cart_retrieval::features::ItemIds;
    /// let ids = ItemIds::new(&["caf\u{e9}.jpg"])?;
    /// assert_eq!(ids.twin("cafe\u{301}.jpg"), Some("caf\u{e9}.jpg"));
    /// assert_eq!(ids.twin("caf\u{e9}.jpg"), None);
    /// # Ok::<(), cart_retrieval::Error>(())
    /// ```
    pub fn twin(&self, id: &str) -> Option<&str> {
        let canonical = canonical_id(id);
        let decomposed = canonical.nfd().collect::<String>();
        let spaced = [format!("{canonical} "), format!(" {canonical}")];
        let mut tries = [canonical, decomposed].into_iter().chain(spaced);
        tries.find_map(|near| self.index_of(&near).filter(|_| near != id)).map(|row| self.get(row))
    }
}

/// The nearest of some known ids, as [`ItemIds::near`].
fn nearest<'a>(id: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let canonical = canonical_id(id);
    let mut found: Option<(Difference, &str)> = None;
    for known in known.filter(|known| *known != id) {
        if let Some(difference) = difference(&canonical, known)
            && found.is_none_or(|(least, _)| difference < least)
        {
            if difference == Difference::Unseen {
                return Some(known);
            }
            found = Some((difference, known));
        }
    }
    Some(found?.1)
}

/// An id as a message shows it: in quotes, with everything that cannot be seen as its code.
pub(crate) fn shown(id: &str) -> String {
    // Character by character, so that accents are written as their codes where they stand alone.
    let characters = id.chars().flat_map(char::escape_debug);
    format!("\"{}\"", characters.collect::<String>())
}

/// What to do about an unknown id, where a known one is spelled nearly alike.
pub(crate) fn advice(id: &str, near: &str) -> String {
    let near_id = shown(near);
    if canonical_id(id) == canonical_id(near) {
        format!(
            "{near_id} exists and looks the same: they differ in spaces, invisible characters or \
             Unicode normalisation; use one spelling for both"
        )
    } else {
        format!("{near_id} exists: use one spelling for both")
    }
}

/// The same where ids can only be asked for, one at a time: tries the usual slips.
pub(crate) fn advice_by(id: &str, is_known: impl Fn(&str) -> bool) -> Option<String> {
    let canonical = canonical_id(id);
    let name = canonical.rsplit(['/', '\\']).next().unwrap_or(&canonical).to_string();
    let stem = name.rsplit_once('.').map_or(name.as_str(), |(stem, _)| stem).to_string();
    let decomposed = canonical.nfd().collect();
    let mut tries = vec![id.trim().to_string(), canonical.clone(), decomposed];
    tries.extend([format!("{canonical} "), format!(" {canonical}")]);
    tries.extend([canonical.to_lowercase(), canonical.to_uppercase()]);
    tries.extend([name.clone(), stem.clone(), name.to_lowercase()]);
    for extension in ["jpg", "jpeg", "png", "webp", "mp4", "wav", "flac", "mp3"] {
        tries.push(format!("{stem}.{extension}"));
    }
    let near = tries.iter().find(|near| *near != id && is_known(near))?;
    Some(advice(id, near))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_spelling_wins() {
        let ids = ItemIds::new(&["a/Photo.png", "PHOTO.jpg", "photo.jpg", "caf\u{e9}"]).unwrap();
        for (id, near) in [
            ("photo.jpg ", Some("photo.jpg")),
            ("\u{feff}photo.jpg", Some("photo.jpg")),
            ("photo\u{200b}.jpg\u{a0}", Some("photo.jpg")),
            ("Photo.JPG", Some("PHOTO.jpg")),
            ("b/photo.webp", Some("a/Photo.png")),
            ("cafe\u{301}", Some("caf\u{e9}")),
            ("CAFE\u{301}", Some("caf\u{e9}")),
            ("photos.jpg", None),
            (".hidden", None),
        ] {
            assert_eq!(ids.near(id), near, "{id:?}");
        }
        assert_eq!(ids.near("photo.jpg"), Some("PHOTO.jpg"), "never the id itself");
        assert_eq!(ids.twin("photo.jpg"), None);
        assert_eq!(ids.twin(" photo.jpg"), Some("photo.jpg"));
    }

    #[test]
    fn messages_show_what_cannot_be_seen() {
        assert_eq!(shown("a b\u{a0}\u{200b}\n"), r#""a b\u{a0}\u{200b}\n""#);
        assert!(advice("a ", "a").contains("looks the same"));
        assert!(!advice("a.png", "a.jpg").contains("looks the same"));
        // The combining accent is written as its code, so that the two forms differ on the screen.
        assert_ne!(shown("cafe\u{301}"), "\"caf\u{e9}\"");
    }

    #[test]
    fn slips_are_found_without_a_list() {
        for (known, id) in [
            ("cat.jpg", "cat.jpg "),
            ("cat.jpg ", "cat.jpg"),
            ("cafe\u{301}", "caf\u{e9}"),
            ("caf\u{e9}", "cafe\u{301}"),
            ("cat.jpg", "train/cat.png"),
            ("cat", "CAT"),
        ] {
            let found = advice_by(id, |tried| tried == known).unwrap();
            assert!(found.contains(&shown(known)), "{found}");
        }
        assert_eq!(advice_by("cat", |tried| tried == "cat"), None);
    }
}
