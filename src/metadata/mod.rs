//! Metadata of candidates, and conditions to filter by (ours; the paper has none).

mod check;
mod condition;
mod fields;
mod table;

pub use condition::Condition;
pub use fields::Fields;
pub use table::ItemMetadata;
