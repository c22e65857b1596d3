//! What is known about candidates beside their vectors, and conditions on it (ours; the paper has
//! none).

mod check;
mod condition;
mod table;

pub use condition::Condition;
pub use table::{Fields, ItemMetadata};
