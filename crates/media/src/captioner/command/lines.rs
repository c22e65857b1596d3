//! What a program writes: JSON lines, checked.

use std::collections::HashMap;

use cart_retrieval::{Error, Result};
use serde::Deserialize;

use super::config::CommandConfig;

/// Captions of each item of a batch, with their weights.
pub(super) type Batch = Vec<Vec<(String, f32)>>;

/// A line; other keys are ignored.
#[derive(Deserialize)]
struct Answer {
    id: String,
    caption: String,
    weight: Option<f32>,
}

/// The captions of a batch, by item; those of an item in the order of the output.
pub(super) fn parse(config: &CommandConfig, ids: &[&str], output: &[u8]) -> Result<Batch> {
    let places: HashMap<&str, usize> = ids.iter().enumerate().map(|(at, id)| (*id, at)).collect();
    let mut batch: Batch = vec![Vec::new(); ids.len()];
    for (number, line) in output.split(|byte| *byte == b'\n').enumerate() {
        let wrong = |expected: &str, found: String, remedy: &str| {
            let subject = format!("output of the {}, line {}", config.shown(), number + 1);
            Error::captions(subject).expected(expected).found(found).fix(remedy)
        };
        let text = std::str::from_utf8(line).map_err(|e| {
            let found = format!("another encoding at byte {} of the line", e.valid_up_to());
            wrong("UTF-8 text", found, "make the program write UTF-8 (PYTHONIOENCODING=utf-8)")
        })?;
        if text.trim().is_empty() {
            continue;
        }
        let Answer { id, caption, weight } = serde_json::from_str(text).map_err(|e| {
            let message = e.to_string();
            let message = message.split(" at line ").next().unwrap_or(&message);
            wrong(
                r#"one JSON object {"id": "...", "caption": "..."}"#,
                format!("{message} (column {}) in {:?}", e.column(), start(text)),
                "make the program write nothing else to its standard output; messages belong on \
                 standard error",
            )
        })?;
        let Some(&place) = places.get(id.as_str()) else {
            let found = format!("`{id}`, which was not");
            let remedy = "return ids unchanged; each start of the program gets its own ids";
            return Err(wrong("the id of a requested item", found, remedy));
        };
        if caption.trim().is_empty() {
            let found = format!("{caption:?} for `{id}`");
            let remedy = "write no line for an item that cannot be described";
            return Err(wrong("a caption with some text", found, remedy));
        }
        let weight = weight.unwrap_or(1.0);
        let total = config.weight * weight;
        if !(total.is_finite() && total > 0.0) {
            let found = format!("{weight} for `{id}`");
            let remedy = "leave the weight out, or write no line for that caption";
            return Err(wrong("a finite weight above 0", found, remedy));
        }
        if batch[place].len() == config.per_item {
            return Err(wrong(
                &format!("at most {} of `{id}`", counted(config.per_item)),
                "one more".into(),
                "raise `per_item`, or make the program write fewer",
            ));
        }
        batch[place].push((caption, weight));
    }
    Ok(batch)
}

fn counted(captions: usize) -> String {
    match captions {
        1 => "1 caption".into(),
        more => format!("{more} captions"),
    }
}

/// The start of a text, for messages.
fn start(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text.to_string(),
    }
}
