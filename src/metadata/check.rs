//! Slips in a condition that only the candidates can show: fields that none has, values of another
//! kind.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicU16, Ordering},
};

use serde_json::Value;

use super::{
    condition::{Condition, JOINS, Node, Test, find, most_like},
    fields::Fields,
};
use crate::error::{Error, Result};

/// Names of fields that are gathered for a message.
const MOST_NAMES: usize = 10_000;
/// Names of fields that a message lists.
const MOST_SHOWN: usize = 12;

/// Kinds of values, a bit each; those of the elements of lists, [`ELEMENTS`] bits higher.
const KINDS: [(u16, &str); 6] = [
    (NULL, "null"),
    (BOOL, "true or false"),
    (NUMBER, "a number"),
    (TEXT, "a text"),
    (LIST, "a list"),
    (OBJECT, "an object"),
];
const NULL: u16 = 1;
const BOOL: u16 = 1 << 1;
const NUMBER: u16 = 1 << 2;
const TEXT: u16 = 1 << 3;
const LIST: u16 = 1 << 4;
const OBJECT: u16 = 1 << 5;
const ELEMENTS: u16 = 8;

fn kind(value: &Value) -> u16 {
    match value {
        Value::Null => NULL,
        Value::Bool(_) => BOOL,
        Value::Number(_) => NUMBER,
        Value::String(_) => TEXT,
        Value::Array(_) => LIST,
        Value::Object(_) => OBJECT,
    }
}

fn names(kinds: u16) -> String {
    let named = KINDS.iter().filter(|(bit, _)| kinds & bit != 0).map(|(_, name)| *name);
    named.collect::<Vec<_>>().join(" or ")
}

/// What candidates have in the fields that a condition names. Candidates are noted from any thread.
pub(super) struct Observed<'a> {
    condition: &'a Condition,
    kinds: BTreeMap<&'a str, AtomicU16>,
}

impl<'a> Observed<'a> {
    pub(super) fn new(condition: &'a Condition) -> Self {
        let mut kinds = BTreeMap::new();
        visit(&condition.root, &mut |path, _| {
            kinds.insert(path, AtomicU16::new(0));
        });
        Self { condition, kinds }
    }

    /// Notes the fields of a candidate.
    pub(super) fn note(&self, fields: &Fields) {
        for (path, kinds) in &self.kinds {
            let Some(value) = find(fields, path) else { continue };
            let mut found = kind(value);
            if let Value::Array(elements) = value {
                found |= elements.iter().fold(0, |all, element| all | kind(element)) << ELEMENTS;
            }
            if kinds.load(Ordering::Relaxed) & found != found {
                kinds.fetch_or(found, Ordering::Relaxed);
            }
        }
    }

    /// Fails for a test that holds for no candidate, or for all of them, whatever they have in the
    /// field; `candidates` gives their fields once more for a message.
    pub(super) fn check<I: Iterator<Item = Result<Fields>>>(
        &self,
        candidates: impl Fn() -> I,
    ) -> Result<()> {
        let mut optional = BTreeSet::new();
        let mut tests = Vec::new();
        visit(&self.condition.root, &mut |path, test| match test {
            Test::Exists(_) => drop(optional.insert(path)),
            test => tests.push((path, test)),
        });
        for (path, test) in tests {
            let kinds = self.kinds[path].load(Ordering::Relaxed);
            if kinds != 0 {
                check_kind(path, test, kinds)?;
            } else if !optional.contains(path) {
                return Err(unknown(path, candidates())?);
            }
        }
        Ok(())
    }
}

/// Shows every test of a field.
fn visit<'a>(node: &'a Node, each: &mut impl FnMut(&'a str, &'a Test)) {
    match node {
        Node::All(nodes) | Node::Any(nodes) => nodes.iter().for_each(|node| visit(node, each)),
        Node::Not(node) => visit(node, each),
        Node::Field { path, test } => each(path, test),
    }
}

/// Whether a test compares with values of a kind that the candidates have.
fn check_kind(path: &str, test: &Test, kinds: u16) -> Result<()> {
    let (own, elements) = (kinds & ((1 << ELEMENTS) - 1), kinds >> ELEMENTS);
    // All that is known of it is that nothing is known.
    if own == NULL {
        return Ok(());
    }
    let (sought, possible): (&[Value], u16) = match test {
        Test::Exists(_) => return Ok(()),
        Test::OneOf(values) => (values, own),
        Test::Equal(value)
        | Test::Unequal(value)
        | Test::Less(value)
        | Test::AtMost(value)
        | Test::More(value)
        | Test::AtLeast(value) => (std::slice::from_ref(value), own),
        Test::Has(value) => {
            // Of empty lists, nothing is known; a text has parts that are texts.
            let of_lists = if own & LIST != 0 && elements == 0 { u16::MAX } else { elements };
            (std::slice::from_ref(value), of_lists | own & TEXT)
        }
    };
    let found = sought.iter().fold(0, |all, value| all | kind(value));
    if found & possible != 0 {
        return Ok(());
    }
    let shown = match sought {
        [value] => value.to_string(),
        values => Value::from(values.to_vec()).to_string(),
    };
    let (expected, remedy) = if matches!(test, Test::Has(_)) {
        let expected = match possible {
            0 => "a field with lists or texts, where `has` can look for a part".to_string(),
            possible => {
                format!("{}, as the lists or texts of the candidates have", names(possible))
            }
        };
        let remedy = if possible == 0 {
            format!("write {{\"{path}\": {}}}", sought[0])
        } else {
            "look for a part of that kind".into()
        };
        (expected, remedy)
    } else {
        let remedy = if found & elements != 0 {
            format!("to look into lists, write {{\"{path}\": {{\"has\": {}}}}}", sought[0])
        } else if found == NULL {
            format!("for candidates without the field, write {{\"{path}\": {{\"exists\": false}}}}")
        } else {
            "compare with a value of the kind that the candidates have".into()
        };
        (format!("{}, as the candidates have", names(own)), remedy)
    };
    Err(Error::query(format!("condition on {path}")).expected(expected).found(shown).fix(remedy))
}

/// The error about a field that no candidate has.
fn unknown(path: &str, candidates: impl Iterator<Item = Result<Fields>>) -> Result<Error> {
    let (mut known, mut count) = (BTreeSet::new(), 0);
    for fields in candidates {
        count += 1;
        gather(&mut known, "", &fields?);
    }
    let shown: Vec<&str> = known.iter().take(MOST_SHOWN).map(String::as_str).collect();
    let more = if known.len() > shown.len() { ", ..." } else { "" };
    let join = JOINS.into_iter().find(|join| join[1..].eq_ignore_ascii_case(path));
    let near = most_like(path, known.iter().map(String::as_str));
    let optional = format!(
        "if it may be missing everywhere, also test for that with {{\"{path}\": {{\"exists\": \
         false}}}}"
    );
    let remedy = match (join, near) {
        (Some(join), _) => format!("write {join}"),
        (None, Some(near)) => format!("write {near}; {optional}"),
        (None, None) => format!("name one of these fields; {optional}"),
    };
    Ok(Error::query("condition")
        .expected(match shown.as_slice() {
            [] => "candidates with fields".into(),
            shown => format!("a field that candidates have ({}{more})", shown.join(", ")),
        })
        .found(format!("{path:?}, which none of {count} candidates has"))
        .fix(remedy))
}

/// Names of fields, and of fields of fields.
fn gather(known: &mut BTreeSet<String>, before: &str, fields: &Fields) {
    for (name, value) in fields {
        if known.len() >= MOST_NAMES {
            return;
        }
        let path = format!("{before}{name}");
        if let Value::Object(fields) = value {
            gather(known, &format!("{path}."), fields);
        }
        known.insert(path);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::ItemMetadata;
    use super::*;

    fn candidates() -> ItemMetadata {
        let rows = [
            json!({"kind": "photo", "year": 2004, "tags": ["dog", "snow"], "none": null}),
            json!({"kind": "drawing", "year": 2005, "tags": [], "camera": {"make": "Leica"}}),
            json!({"kind": "photo", "mixed": 3, "sizes": [1, 2]}),
            json!({"mixed": "three"}),
        ];
        ItemMetadata::new(&rows.map(|row| row.as_object().unwrap().clone())).unwrap()
    }

    #[test]
    fn slips_are_named_with_what_was_meant() {
        let candidates = candidates();
        for (condition, words) in [
            (json!({"all": [{"kind": "photo"}]}), &["\"all\"", "write $all"][..]),
            (json!({"any": [{"kind": "photo"}]}), &["write $any"]),
            (json!({"not": {"eq": 3}}), &["write $not"]),
            (json!({"yaer": 2005}), &["\"yaer\"", "none of 4 candidates", "write year"]),
            (json!({"Year": {"ge": 2005}}), &["write year"]),
            (json!({"camera.mkae": "Leica"}), &["write camera.make"]),
            (json!({"make": "Leica"}), &["camera.make", "exists"]),
            (json!({"licence": {"ne": "free"}}), &["licence", "kind", "tags"]),
            (json!({"$not": {"$any": [{"kind": "photo"}, {"yeer": 1}]}}), &["write year"]),
            (json!({"year": "2005"}), &["a number", "\"2005\""]),
            (json!({"year": {"ne": "2005"}}), &["a number"]),
            (json!({"year": {"gt": "2005"}}), &["on year", "a number"]),
            (json!({"year": ["2004", "2005"]}), &["[\"2004\",\"2005\"]"]),
            (json!({"year": null}), &["{\"year\": {\"exists\": false}}"]),
            (json!({"kind": {"lt": 3}}), &["a text"]),
            (json!({"kind": true}), &["a text", "true"]),
            (json!({"tags": "dog"}), &["a list", "{\"tags\": {\"has\": \"dog\"}}"]),
            (json!({"tags": {"has": 7}}), &["a text", "7"]),
            (json!({"year": {"has": 2005}}), &["lists or texts", "{\"year\": 2005}"]),
            (json!({"kind": {"has": 3}}), &["a text"]),
        ] {
            let condition = Condition::from_value(condition).unwrap();
            let error = candidates.matching(&condition).unwrap_err();
            assert!(matches!(error, Error::Query(_)), "{error}");
            for word in words {
                assert!(error.to_string().contains(word), "{error}: {word}");
            }
        }
        let none = ItemMetadata::empty(3);
        let error = none.matching(&Condition::parse(r#"{"year": 3}"#).unwrap()).unwrap_err();
        assert!(error.to_string().contains("candidates with fields"), "{error}");
    }

    #[test]
    fn conditions_without_a_slip_pass_though_nothing_meets_them() {
        let candidates = candidates();
        for condition in [
            json!({}),
            json!({"year": 1900}),
            json!({"year": ["2004", 1900]}),
            json!({"kind": {"gt": "z"}}),
            json!({"mixed": {"gt": 2}}),
            json!({"mixed": {"gt": "a"}}),
            json!({"none": 3}),
            json!({"tags": {"has": "cat"}}),
            json!({"sizes": {"has": 3.5}}),
            json!({"kind": {"has": "oto"}}),
            json!({"camera": {"eq": {"make": "Leica"}}}),
            json!({"licence": {"exists": false}}),
            json!({"$any": [{"licence": {"exists": false}}, {"licence": "free"}]}),
        ] {
            let condition = Condition::from_value(condition).unwrap();
            let met = candidates.matching(&condition);
            assert!(met.is_ok(), "{condition:?}: {met:?}");
        }
        let empty = ItemMetadata::empty(0);
        assert!(empty.matching(&Condition::parse(r#"{"year": 3}"#).unwrap()).unwrap().is_empty());
    }
}
