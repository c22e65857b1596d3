//! Readers of published data sets' own annotation files: Flickr30K and MS-COCO (Karpathy's JSON),
//! MSR-VTT, MSVD, Clotho, AudioCaps.
//!
//! Each reads the files as they are published and gives a [`PublishedSet`], which
//! [writes](PublishedSet::write) the plain files that the rest of the library reads (`docs/data.md`).
//! `docs/datasets.md` says where the originals are to be had.

mod audio_caps;
mod clotho;
mod files;
mod karpathy;
mod msr_vtt;
mod msvd;
mod set;

pub use audio_caps::{ClipName, audio_caps};
pub use clotho::clotho;
pub use karpathy::karpathy;
pub use msr_vtt::{msr_vtt, msr_vtt_1k_a};
pub use msvd::msvd;
pub use set::PublishedSet;

#[cfg(test)]
mod tests;
