//! Conditions on what is known about candidates.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::fields::Fields;
use crate::error::{Error, Result};

/// How deep conditions may contain each other.
const DEEPEST: usize = 32;

/// A condition on a candidate's fields, as JSON.
///
/// An object holds where all of its entries do:
///
/// | entry | holds where |
/// |---|---|
/// | `"kind": "photo"` | the field is equal |
/// | `"kind": ["photo", "drawing"]` | it is equal to one of these |
/// | `"year": {"ge": 2010, "lt": 2020}` | all of these do: `eq`, `ne`, `lt`, `le`, `gt`, `ge` |
/// | `"tags": {"has": "dog"}` | the field is a list with this element, or a text with this part |
/// | `"year": {"exists": false}` | there is no such field |
/// | `"camera.make": "Leica"` | so does the field of a field |
/// | `"$any": [.., ..]`, `"$all": [.., ..]`, `"$not": {..}` | one, all, none of these conditions do |
///
/// Numbers compare as numbers, texts as texts (dates as `2019-05-31` therefore by time); values of
/// different kinds are neither equal nor in any order. `ne` is the opposite of `eq`, and so holds
/// where there is no such field.
///
/// Slips are errors, since a condition that never holds looks like a search without answers.
/// Reading a condition refuses unknown operators and empty lists. Applying it to candidates
/// ([`ItemMetadata::matching`](super::ItemMetadata::matching)) refuses a field that none of them
/// has and values of a kind that the field never has. A field that may be missing everywhere is
/// allowed where the condition asks for it with `exists`, as in `{"$any": [{"licence": {"exists":
/// false}}, {"licence": "free"}]}`.
///
/// # Example
/// ```
/// use cart_retrieval::metadata::Condition;
/// let condition = Condition::parse(r#"{"kind": "photo", "$not": {"year": {"lt": 2000}}}"#)?;
/// let photo = serde_json::from_str(r#"{"kind": "photo", "year": 2004}"#).unwrap();
/// assert!(condition.holds(&photo));
/// assert!(Condition::parse(r#"{"year": {"after": 2000}}"#).unwrap_err().to_string().contains("after"));
/// # Ok::<(), cart_retrieval::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Value", into = "Value")]
pub struct Condition {
    pub(super) root: Node,
    source: Value,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    All(Vec<Node>),
    Any(Vec<Node>),
    Not(Box<Node>),
    Field { path: String, test: Test },
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Test {
    Equal(Value),
    Unequal(Value),
    Less(Value),
    AtMost(Value),
    More(Value),
    AtLeast(Value),
    OneOf(Vec<Value>),
    Has(Value),
    Exists(bool),
}

impl Condition {
    /// Reads a condition from JSON text.
    ///
    /// # Errors
    /// [`Error::Query`] naming what is no condition.
    pub fn parse(text: &str) -> Result<Self> {
        let value: Value =
            serde_json::from_str(text).map_err(|e| wrong("a condition in JSON", e.to_string()))?;
        Self::from_value(value)
    }

    /// Reads a condition from a JSON value.
    ///
    /// # Errors
    /// As [`Condition::parse`].
    pub fn from_value(source: Value) -> Result<Self> {
        Ok(Self { root: node(&source, 0)?, source })
    }

    /// Whether it holds for a candidate with these fields.
    pub fn holds(&self, fields: &Fields) -> bool {
        self.root.holds(fields)
    }
}

impl TryFrom<Value> for Condition {
    type Error = Error;

    fn try_from(value: Value) -> Result<Self> {
        Self::from_value(value)
    }
}

impl From<Condition> for Value {
    fn from(condition: Condition) -> Self {
        condition.source
    }
}

/// What joins conditions.
pub(super) const JOINS: [&str; 3] = ["$all", "$any", "$not"];
/// Names that other query languages have for operators.
const FOREIGN: [(&str, &str); 13] = [
    ("gte", "ge"),
    ("lte", "le"),
    ("neq", "ne"),
    ("equals", "eq"),
    ("contains", "has"),
    ("one_of", "in"),
    ("=", "eq"),
    ("==", "eq"),
    ("!=", "ne"),
    ("<", "lt"),
    (">", "gt"),
    ("<=", "le"),
    (">=", "ge"),
];
/// What tests a field.
const OPERATORS: [&str; 9] = ["eq", "ne", "lt", "le", "gt", "ge", "has", "in", "exists"];

fn wrong(expected: impl Into<String>, found: impl Into<String>) -> Error {
    let remedy = "see metadata::Condition for the possible forms";
    Error::query("condition").expected(expected).found(found).fix(remedy)
}

/// The known name that is spelled most like another one, if any is.
pub(super) fn most_like<'a>(
    name: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let plain = |name: &str| name.trim_start_matches('$').to_lowercase();
    let name = plain(name);
    let far = name.chars().count().div_ceil(3).min(3);
    let near = known.into_iter().map(|known| (strsim::osa_distance(&name, &plain(known)), known));
    let nearest =
        near.filter(|(distance, _)| *distance <= far).min_by_key(|(distance, _)| *distance);
    Some(nearest?.1)
}

fn node(value: &Value, depth: usize) -> Result<Node> {
    if depth > DEEPEST {
        return Err(wrong(format!("at most {DEEPEST} nested conditions"), "more"));
    }
    let entries = value.as_object().ok_or_else(|| wrong("an object", value.to_string()))?;
    if entries.is_empty() && depth > 0 {
        return Err(wrong("a deeper condition", "{}, which always holds"));
    }
    let mut all = Vec::with_capacity(entries.len());
    for (key, value) in entries {
        let several = || {
            let list = value.as_array().filter(|list| !list.is_empty()).ok_or_else(|| {
                wrong(format!("a list of at least one condition under {key}"), value.to_string())
            })?;
            list.iter().map(|value| node(value, depth + 1)).collect::<Result<Vec<_>>>()
        };
        match key.as_str() {
            "$all" => all.extend(several()?),
            "$any" => all.push(Node::Any(several()?)),
            "$not" => all.push(Node::Not(Box::new(node(value, depth + 1)?))),
            key if key.starts_with('$') => {
                let remedy = match most_like(key, JOINS) {
                    Some(join) => format!("write {join}"),
                    None => "write one of these, or the name of a field".into(),
                };
                return Err(Error::query("condition")
                    .expected("$all, $any, $not or a field")
                    .found(key)
                    .fix(remedy));
            }
            path => tests(path, value, &mut all)?,
        }
    }
    Ok(Node::All(all))
}

fn tests(path: &str, value: &Value, all: &mut Vec<Node>) -> Result<()> {
    let mut add = |test| all.push(Node::Field { path: path.to_string(), test });
    match value {
        Value::Array(values) => add(one_of(path, values)?),
        Value::Object(operators) if !operators.is_empty() => {
            for (operator, value) in operators {
                add(test(path, operator, value)?);
            }
        }
        Value::Object(_) => return Err(wrong(format!("a test of {path}"), "{}")),
        value => add(Test::Equal(value.clone())),
    }
    Ok(())
}

fn one_of(path: &str, values: &[Value]) -> Result<Test> {
    if values.is_empty() {
        return Err(wrong(format!("at least one value for {path}"), "an empty list"));
    }
    Ok(Test::OneOf(values.to_vec()))
}

/// The test of a field by the name of its operator.
fn test(path: &str, operator: &str, value: &Value) -> Result<Test> {
    let found = format!("{operator}: {value}");
    let ordered = |test: fn(Value) -> Test| match value {
        Value::Number(_) | Value::String(_) => Ok(test(value.clone())),
        _ => Err(wrong(format!("a number or a text to compare {path} with"), &found)),
    };
    match (operator, value) {
        ("eq", _) => Ok(Test::Equal(value.clone())),
        ("ne", _) => Ok(Test::Unequal(value.clone())),
        ("lt", _) => ordered(Test::Less),
        ("le", _) => ordered(Test::AtMost),
        ("gt", _) => ordered(Test::More),
        ("ge", _) => ordered(Test::AtLeast),
        ("has", _) => Ok(Test::Has(value.clone())),
        ("in", Value::Array(values)) => one_of(path, values),
        ("exists", Value::Bool(exists)) => Ok(Test::Exists(*exists)),
        _ => {
            let expected =
                "eq, ne, lt, le, gt, ge, has, in with a list, or exists with true or false";
            let foreign =
                FOREIGN.iter().find(|(name, _)| *name == operator.trim_start_matches('$'));
            let known = foreign.map(|(_, own)| *own).or_else(|| most_like(operator, OPERATORS));
            let remedy = match known {
                Some(known) if known != operator => format!("write {known}"),
                Some(_) => "give it such a value".into(),
                None => {
                    format!("write one of these; a field of the field {path} is {path}.{operator}")
                }
            };
            Err(Error::query(format!("condition on {path}"))
                .expected(expected)
                .found(found)
                .fix(remedy))
        }
    }
}

impl Node {
    fn holds(&self, fields: &Fields) -> bool {
        match self {
            Self::All(nodes) => nodes.iter().all(|node| node.holds(fields)),
            Self::Any(nodes) => nodes.iter().any(|node| node.holds(fields)),
            Self::Not(node) => !node.holds(fields),
            Self::Field { path, test } => test.holds(find(fields, path)),
        }
    }
}

/// A field, by its whole name or from field to field.
pub(super) fn find<'a>(fields: &'a Fields, path: &str) -> Option<&'a Value> {
    fields.get(path).or_else(|| {
        let (first, rest) = path.split_once('.')?;
        find(fields.get(first)?.as_object()?, rest)
    })
}

impl Test {
    fn holds(&self, found: Option<&Value>) -> bool {
        use std::cmp::Ordering::{Equal, Greater, Less};
        let order = |value: &Value| found.and_then(|found| compare(found, value));
        let is = |value: &Value| found.is_some_and(|found| same(found, value));
        match self {
            Self::Equal(value) => is(value),
            Self::Unequal(value) => !is(value),
            Self::Less(value) => order(value) == Some(Less),
            Self::AtMost(value) => matches!(order(value), Some(Less | Equal)),
            Self::More(value) => order(value) == Some(Greater),
            Self::AtLeast(value) => matches!(order(value), Some(Greater | Equal)),
            Self::OneOf(values) => values.iter().any(is),
            Self::Has(value) => match (found, value) {
                (Some(Value::Array(list)), value) => list.iter().any(|found| same(found, value)),
                (Some(Value::String(text)), Value::String(part)) => text.contains(part.as_str()),
                _ => false,
            },
            Self::Exists(exists) => found.is_some() == *exists,
        }
    }
}

fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(_), Value::Number(_)) => compare(a, b) == Some(std::cmp::Ordering::Equal),
        _ => a == b,
    }
}

fn compare(a: &Value, b: &Value) -> Option<std::cmp::Ordering> {
    match (a, b) {
        // Whole numbers are compared as such: those beyond 2^53 have no exact place among 64-bit
        // floats.
        (Value::Number(a), Value::Number(b)) => match (a.as_i64(), b.as_i64()) {
            (Some(a), Some(b)) => Some(a.cmp(&b)),
            _ => a.as_f64()?.partial_cmp(&b.as_f64()?),
        },
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn holds(condition: Value, fields: Value) -> bool {
        let condition = Condition::from_value(condition).unwrap();
        condition.holds(fields.as_object().unwrap())
    }

    #[test]
    fn every_form_holds_where_it_says() {
        let photo = json!({
            "kind": "photo", "year": 2019, "tags": ["dog", 7], "camera": {"make": "Leica"},
            "a.b": true, "day": "2019-05-31", "none": null,
        });
        for condition in [
            json!({}),
            json!({"kind": "photo", "year": 2019.0}),
            json!({"kind": ["drawing", "photo"]}),
            json!({"kind": {"in": ["photo"]}}),
            json!({"year": {"ge": 2019, "lt": 2020}}),
            json!({"year": {"gt": 2018.5, "le": 2019}}),
            json!({"day": {"gt": "2019-05-30", "lt": "2019-06-01"}}),
            json!({"tags": {"has": "dog"}}),
            json!({"tags": {"has": 7.0}}),
            json!({"kind": {"has": "hot"}}),
            json!({"camera.make": "Leica"}),
            json!({"a.b": true}),
            json!({"size": {"exists": false}, "none": {"exists": true}}),
            json!({"size": {"ne": 3}}),
            json!({"none": null}),
            json!({"$any": [{"year": 1}, {"kind": "photo"}]}),
            json!({"$all": [{"year": 2019}, {"kind": "photo"}]}),
            json!({"$not": {"year": {"lt": 2000}}}),
        ] {
            assert!(holds(condition.clone(), photo.clone()), "{condition}");
            // An empty condition is no part of another one.
            if condition != json!({}) {
                assert!(!holds(json!({"$not": condition}), photo.clone()), "not {condition}");
            }
        }
        for condition in [
            json!({"kind": "photo", "year": 2020}),
            json!({"year": "2019"}),
            json!({"year": {"lt": "2020"}}),
            json!({"tags": {"has": "do"}}),
            json!({"size": 3}),
            json!({"size": {"lt": 3}}),
            json!({"camera.lens": {"exists": true}}),
        ] {
            assert!(!holds(condition.clone(), photo.clone()), "{condition}");
        }
    }

    #[test]
    fn what_is_no_condition_is_named() {
        for (text, words) in [
            ("[", "JSON"),
            ("3", "an object"),
            ("{\"$or\": []}", "$or"),
            ("{\"$any\": {}}", "$any"),
            ("{\"$not\": [1]}", "[1]"),
            ("{\"year\": {}}", "year"),
            ("{\"year\": {\"ge\": 1, \"about\": 2}}", "about"),
            ("{\"year\": {\"in\": 3}}", "in"),
            ("{\"year\": {\"exists\": 1}}", "exists"),
            ("{\"$any\": []}", "at least one condition under $any"),
            ("{\"$all\": []}", "at least one condition under $all"),
            ("{\"$not\": {}}", "always holds"),
            ("{\"kind\": []}", "at least one value for kind"),
            ("{\"kind\": {\"in\": []}}", "at least one value for kind"),
            ("{\"$al\": []}", "write $all"),
            ("{\"$ANY\": []}", "write $any"),
            ("{\"$kind\": 3}", "the name of a field"),
            ("{\"year\": {\"$gt\": 3}}", "write gt"),
            ("{\"year\": {\"gte\": 3}}", "write ge"),
            ("{\"tags\": {\"hass\": 3}}", "write has"),
            ("{\"year\": {\"lt\": null}}", "a number or a text"),
            ("{\"camera\": {\"make\": \"Leica\"}}", "camera.make"),
        ] {
            let error = Condition::parse(text).unwrap_err().to_string();
            assert!(error.contains(words), "{error}: {words}");
        }
        let deep = format!("{}{{}}{}", "{\"$not\": ".repeat(40), "}".repeat(40));
        assert!(Condition::parse(&deep).unwrap_err().to_string().contains("nested"));
    }

    #[test]
    fn it_is_its_own_json() {
        let text = json!({"year": {"ge": 2010}, "$not": {"kind": ["a", "b"]}});
        let condition: Condition = serde_json::from_value(text.clone()).unwrap();
        assert_eq!(serde_json::to_value(&condition).unwrap(), text);
        assert!(serde_json::from_value::<Condition>(json!({"$no": 1})).is_err());
    }

    #[test]
    fn large_whole_numbers_are_not_rounded() {
        let big = 9_007_199_254_740_993i64;
        assert!(!holds(json!({ "n": big }), json!({ "n": big - 1 })));
        assert!(holds(json!({ "n": {"gt": big - 1} }), json!({ "n": big })));
    }
}
