//! What is known about one candidate.

use serde_json::{Map, Value};

/// Names and values of what is known about a candidate.
pub type Fields = Map<String, Value>;
