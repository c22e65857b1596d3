//! What is known about candidates beside their vectors, and conditions on it (ours; the paper has
//! none).

mod check;
mod condition;
mod fields;
mod table;

pub use condition::Condition;
pub use fields::Fields;
pub use table::ItemMetadata;
