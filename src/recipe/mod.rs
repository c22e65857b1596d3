//! From a data folder to a searchable index: every setting in one place, chosen from the data.
//!
//! [`Recipe::for_data`] chooses all settings and says why. [`Recipe::fit`] trains the index and
//! [`Recipe::evaluate`] measures it on captions that were held out. A recipe file holds the
//! settings that should differ from this choice ([`Settings`]).
//!
//! # Example
//! ```no_run
//! use burn::backend::Flex;
//! use cart_retrieval::{data::DataFolder, recipe::Recipe};
//!
//! # fn main() -> cart_retrieval::Result<()> {
//! let device = Default::default();
//! let data = DataFolder::open("my-data")?;
//! let recipe = Recipe::for_data(&data)?.with_encoder("all-MiniLM-L6-v2")?;
//! let retriever = recipe.fit::<Flex>(&data, &device)?;
//! retriever.save("my-index")?;
//! for hit in retriever.query("two dogs play in the snow").top(10).run()? {
//!     println!("{}  {:.3}", hit.id, hit.score);
//! }
//! # Ok(())
//! # }
//! ```

mod choice;
pub(crate) mod counts;
mod early;
mod evaluate;
mod event;
pub(crate) mod fit;
mod overlay;
mod settings;
pub(crate) mod task;
#[cfg(test)]
mod tests;
mod trainable;
mod written;

pub use evaluate::{Evaluation, Judge};
pub use event::FitEvent;
pub use fit::{Fit, Fitted};
pub use settings::{
    AlignmentSettings, IdentifierSettings, ModelSettings, Recipe, SplitSettings, TextSettings,
    TuningSettings,
};
pub use task::{Part, Task};
pub use trainable::Trainable;
pub use written::Settings;
