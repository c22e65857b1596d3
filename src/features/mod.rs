//! Candidate embeddings: one row of `f32` per item, with the items' ids.
//!
//! [`Features`] opens `.npy`, `.npz` and `.safetensors` files and memory-maps them if no conversion
//! is needed. [`Features::check`] finds values that spoil training: NaN, infinities and all-zero
//! rows. [`ShardedFeatures`] reads a collection larger than memory from several files. [`ItemIds`]
//! names the rows.
//!
//! # Example
//! ```
//! use cart_retrieval::features::Features;
//!
//! let items = Features::from_rows(vec![3.0, 4.0, 0.0, 2.0], 2)?
//!     .with_id_list(vec!["dog.jpg".into(), "cat.jpg".into()])?;
//! assert_eq!((items.len(), items.dim()), (2, 2));
//! assert_eq!(items.index_of("cat.jpg"), Some(1));
//! assert_eq!(items.check()?.norm_max, 5.0);
//! # Ok::<(), cart_retrieval::Error>(())
//! ```

mod check;
mod element;
pub(crate) mod ids;
mod layout;
mod matrix;
pub(crate) mod near;
mod npy;
mod npz;
mod open;
mod placed;
mod safetensors;
pub(crate) mod shard_names;
mod shards;
#[cfg(test)]
mod tests;

pub use check::FeatureSummary;
pub use ids::ItemIds;
pub use matrix::Features;
pub(crate) use near::{advice, advice_by, shown};
pub use shards::ShardedFeatures;
