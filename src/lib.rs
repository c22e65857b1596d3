//! Generative cross-modal retrieval with coarse-to-fine semantic identifiers (CART, Fang et al.,
//! arXiv 2406.17507, ACL 2025), on [burn].
//!
//! A text query comes in; an image, a sound or a video comes out. Every candidate gets an
//! *identifier*, a short sequence of tokens: a coarse token (K-Means over a frozen encoder's
//! embedding), fine tokens (RQ-VAE over the residual) and a unique token. A text encoder whose layers
//! are all fused into an autoregressive decoder *generates* the identifier, constrained by a trie of
//! the identifiers that exist.
//!
//! | module | what is in it |
//! |---|---|
//! | [`features`] | candidate embeddings: `.npy`, `.npz`, `.safetensors`, memory-mapped and checked |
//! | [`quantizer`] | K-Means, RQ-VAE, RQ-KMeans, hierarchical K-Means, coarse-to-fine, health report |
//! | [`identifier`] | identifiers, level sizes, groups |
//! | [`index`] | the candidates with their identifiers, vectors, metadata and health |
//! | [`align`] | candidates as vectors in the space of the text encoder |
//! | [`data`] | captions, splits, tokenizers, batches |
//! | [`nn`], [`model`] | attention, encoder, fusion, decoder; the network and its loss |
//! | [`pretrained`] | text encoders from their published weights |
//! | [`train`] | training on burn-train's learner, checkpoints, resumption |
//! | [`decode`] | beam search over the trie, exhaustive scoring |
//! | [`recipe`] | all settings of an index, chosen from the data; from a data folder to an index |
//! | [`retrieve`] | [`Retriever`](retrieve::Retriever), the main entry point; the index folder |
//! | [`metadata`] | metadata of candidates, and conditions to filter by |
//! | [`eval`] | Recall@K, MRR, confidence intervals |
//! | [`backend`] | choosing a backend and a device at run time |
//! | [`expert`] | the parts that the rest is made of: layers, losses, engines, tries |
//! | [`cancel`] | following long work, and stopping it from another thread |
//!
//! Neural modules are generic over a burn `Backend`. Choose one or more by a cargo feature (`flex`,
//! `ndarray`, `tch`, `wgpu`, `vulkan`, `metal`, `cuda`).
//!
//! Three more crates of this workspace are for programs that bring no embeddings: `cart-media`
//! reads pictures, sounds and videos and makes embeddings and captions of them, `cart-towers`
//! embeds them by CLIP, CLAP or ImageBind, `cart-procedural` draws benchmarks. A fourth,
//! `cart-baselines`, holds what to compare an index with: word search, a dual tower and others.
//!
//! # Example
//! From a folder with `features.npy`, `ids.txt` and `captions.jsonl` to answers:
//! ```no_run
//! use burn::backend::Flex;
//! use cart_retrieval::prelude::*;
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
//!
//! Without [`with_encoder`](recipe::Recipe::with_encoder) a text encoder is trained from scratch.
//! [`recipe`] chooses all settings from the data. Its parts can be put together by hand, too:
//! [`quantizer`], [`model`], [`train`] and [`Retriever::new`](retrieve::Retriever::new).

#![warn(missing_docs)]
// Allowed again, file by file, where docs/design.md says why.
#![deny(unsafe_code)]

/// Files of the integration tests that unit tests share name the library so.
#[cfg(test)]
extern crate self as cart_retrieval;

pub mod align;
pub mod backend;
pub mod cancel;
pub mod data;
pub mod decode;
mod error;
pub mod eval;
pub mod expert;
pub mod features;
#[cfg(test)]
mod floors_test;
pub mod identifier;
pub mod index;
mod kernels;
#[doc(hidden)]
pub mod members;
pub mod metadata;
pub mod model;
pub mod nn;
mod optim;
pub mod prelude;
pub mod pretrained;
pub mod quantizer;
pub mod recipe;
pub mod retrieve;
mod storage;
#[cfg(test)]
mod surface_test;
pub mod train;
mod trie;

pub use error::{Error, Problem, Result};

/// The programs of the README and of the cookbook, compiled with the other examples of the
/// documentation.
#[cfg(doctest)]
mod pages {
    #[doc = include_str!("../README.md")]
    struct Readme;

    #[doc = include_str!("../docs/cookbook.md")]
    struct Cookbook;
}
