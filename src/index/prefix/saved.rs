//! The sums on disk, so that loading a large index need not recompute them.

use rayon::prelude::*;

use super::{
    level::{ITEM, Level},
    stats::{PrefixStats, one_each},
};
use crate::{
    error::{Error, Result},
    features::Features,
    storage::NamedTensors,
    trie::Trie,
};

/// Version of the file of sums.
const FORMAT: &str = "1";

impl PrefixStats {
    /// The sums as a safetensors file, without the vectors.
    ///
    /// # Errors
    /// As [`NamedTensors::to_bytes`].
    pub fn to_safetensors(&self) -> Result<Vec<u8>> {
        let (dim, mut tensors) = (self.dim(), NamedTensors::new());
        for (at, level) in self.levels.iter().enumerate() {
            let name = |what: &str| format!("{at}.{what}");
            tensors.insert_u32(&name("starts"), &level.starts);
            tensors.insert_u32(&name("slots"), &level.slots);
            tensors.insert_f32(&name("means"), &[level.means.len() / dim, dim], &level.means);
            tensors.insert_f32(&name("spread"), &[level.spread.len()], &level.spread);
            tensors.insert_f32(&name("covariance"), &[dim, dim], &level.covariance);
        }
        tensors.to_bytes(&[("geometry", FORMAT)])
    }

    /// Reads what [`PrefixStats::to_safetensors`] wrote for these vectors and this trie.
    ///
    /// # Errors
    /// [`Error::Index`] or [`Error::Model`] when it is not that: another format, nodes that are not the trie's,
    /// or sums of another width.
    pub fn from_safetensors(bytes: &[u8], vectors: Features, trie: &Trie) -> Result<Self> {
        one_each(&vectors, trie)?;
        let (mut tensors, metadata) = NamedTensors::from_bytes(bytes)?;
        let version = metadata.get("geometry").map_or("none", String::as_str);
        Error::index("sums of the candidates' vectors")
            .expected(format!("format {FORMAT}"))
            .found(version)
            .fix_if(version != FORMAT, "load it with the version of the library that wrote it")?;
        let (dim, n) = (vectors.dim(), trie.len());
        let mut levels = Vec::with_capacity(trie.levels());
        for (at, starts) in trie.node_starts().into_iter().enumerate() {
            let name = |what: &str| format!("{at}.{what}");
            let mut level = Level {
                starts: tensors.take_u32(&name("starts"))?,
                slots: tensors.take_u32(&name("slots"))?,
                means: tensors.take_f32(&name("means"))?.1,
                spread: tensors.take_f32(&name("spread"))?.1,
                covariance: tensors.take_f32(&name("covariance"))?.1,
                ..Level::default()
            };
            let means = level.means.len() / dim;
            let slot = |&slot: &u32| match slot & ITEM {
                0 => (slot as usize) < means,
                _ => ((slot & !ITEM) as usize) < n,
            };
            let whole = level.starts == starts
                && level.slots.len() == starts.len()
                && level.spread.len() == starts.len()
                && level.means.len() == means * dim
                && level.covariance.len() == dim * dim
                && level.slots.par_iter().all(slot);
            if !whole {
                return Err(Error::index(format!("sums of the candidates' vectors, level {at}"))
                    .expected(format!("those of {} nodes of width {dim}", starts.len()))
                    .found(format!("{} nodes, or others", level.starts.len()))
                    .fix("save the index again, or restore the file from a copy"));
            }
            let count = |node: usize| ((level.end(node, n) - starts[node] as usize) as f32).ln();
            level.log_count = (0..starts.len()).map(count).collect();
            levels.push(level);
        }
        tensors.ensure_empty("sums of the candidates' vectors")?;
        Ok(Self::linked(vectors, levels))
    }
}
