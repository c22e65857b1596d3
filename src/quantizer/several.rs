//! Several identifiers for a candidate.

use burn::tensor::backend::Backend;
use serde::{Deserialize, Serialize};

use super::{
    CoarseToFine, Quantizer, QuantizerEvent, RowSource,
    measure::BLOCK,
    rows::{check_stop, read_block},
};
use crate::{
    cancel::Monitor,
    error::{Result, ensure_in, named},
    identifier::Codes,
    index::IdentifierMap,
    kernels::squared_distance,
};

/// How many identifiers a candidate gets.
///
/// A candidate between two clusters is found through one of them only, and is lost when a query
/// takes the other. With several identifiers it has more than one path: in each of its nearest
/// `clusters`, the `codes` best sequences of fine tokens. Ours: in the paper a candidate has one
/// identifier.
///
/// # Example
/// ```
/// use cart_retrieval::quantizer::IdentifierConfig;
/// let config = IdentifierConfig { clusters: 2, ..Default::default() };
/// assert_eq!(config.per_candidate(), 2);
/// config.validate()?;
/// # Ok::<(), cart_retrieval::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IdentifierConfig {
    /// Nearest coarse clusters that a candidate has identifiers in.
    pub clusters: usize,
    /// Sequences of fine tokens in each of them, those of minimum error; the first is that of
    /// [`Quantizer::encode`]. More than 1 needs an RQ-VAE or RQ-KMeans.
    pub codes: usize,
}

impl Default for IdentifierConfig {
    fn default() -> Self {
        Self { clusters: 1, codes: 1 }
    }
}

impl IdentifierConfig {
    /// Identifiers of each candidate.
    pub fn per_candidate(&self) -> usize {
        self.clusters * self.codes
    }

    /// Checks ranges.
    ///
    /// # Errors
    /// [`Error::Config`](crate::error::Error::Config) naming the setting that is out of range.
    pub fn validate(&self) -> Result<()> {
        named!(self, clusters, codes).into_iter().try_for_each(|(name, count)| {
            let name = format!("identifiers of a candidate, {name}");
            ensure_in(&name, count as f64, "[1, inf)", "1 gives one identifier, as in the paper")
        })
    }
}

/// Identifiers beyond the first ones: codes, distances to what they stand for, and whose they are.
pub(super) struct Aliases {
    pub codes: Codes,
    pub distance: Vec<f32>,
    pub owners: IdentifierMap,
}

impl<B: Backend> CoarseToFine<B> {
    /// All identifiers but the first ones, candidate by candidate.
    pub(super) fn aliases(
        &self,
        source: &dyn RowSource,
        config: &IdentifierConfig,
        monitor: &Monitor<'_, QuantizerEvent>,
    ) -> Result<Aliases> {
        let (n, dim, each) = (source.len(), self.dim(), config.per_candidate());
        let mut codes = Codes::new(self.level_sizes().len());
        let mut distance = Vec::with_capacity(n * (each - 1));
        let mut buffer = Vec::new();
        for start in (0..n).step_by(BLOCK) {
            let rows = read_block(source, start..n.min(start + BLOCK), &mut buffer)?;
            let coarse = self.coarse().encode_best(rows, config.clusters)?;
            let centres = self.coarse().decode(&coarse)?;
            let repeated = rows.chunks_exact(dim).flat_map(|row| row.repeat(config.clusters));
            let rest: Vec<f32> = repeated.zip(&centres).map(|(value, c)| value - c).collect();
            let fine = self.fine().as_quantizer().encode_best(&rest, config.codes)?;
            let mut block = Codes::new(codes.levels());
            for (number, fine) in fine.rows().enumerate().filter(|(number, _)| number % each > 0) {
                block.push(&[coarse.row(number / config.codes), fine].concat());
            }
            let decoded = self.decode(&block)?;
            distance.extend(decoded.chunks_exact(dim).enumerate().map(|(number, decoded)| {
                let row = number / (each - 1);
                squared_distance(&rows[row * dim..(row + 1) * dim], decoded)
            }));
            block.rows().for_each(|row| codes.push(row));
            check_stop(monitor)?;
        }
        let owners = (0..n as u32).flat_map(|item| vec![item; each - 1]).collect();
        Ok(Aliases { codes, distance, owners: IdentifierMap::new(n, owners)? })
    }
}

#[cfg(test)]
mod tests {
    use burn::backend::Flex;

    use super::*;
    use crate::{
        features::Features,
        identifier::Groups,
        quantizer::{
            CoarseToFineConfig, FineConfig, HierarchicalConfig, RqKMeansConfig, RqVaeConfig,
        },
    };

    fn items() -> Features {
        let rows = (0..300 * 6).map(|i| ((i * i % 977) as f32 * 0.71).sin()).collect();
        Features::from_rows(rows, 6).unwrap()
    }

    fn fitted(fine: FineConfig) -> CoarseToFine<Flex> {
        let config = CoarseToFineConfig::new(5, fine);
        config.fit(&items(), &Default::default()).unwrap()
    }

    fn residual() -> FineConfig {
        FineConfig::RqKmeans(RqKMeansConfig::new(vec![4, 3]))
    }

    /// Twin: for every candidate all clusters by distance, and the code of what each leaves.
    #[test]
    fn further_identifiers_lie_in_the_next_clusters() {
        let hierarchical = FineConfig::Hierarchical(HierarchicalConfig::new(vec![3, 2]));
        for fine in [residual(), hierarchical] {
            let (quantizer, items) = (fitted(fine), items());
            let config = IdentifierConfig { clusters: 3, codes: 1 };
            let index = quantizer.assign(&items).several(config).run().unwrap();
            let plain = quantizer.assign(&items).run().unwrap();
            assert_eq!((index.ids().len(), index.trie().len()), (300, 900));
            assert_eq!(index.health(), plain.health());
            let identifiers = index.trie().identifiers();
            for item in 0..300u32 {
                let row = items.row(item as usize);
                let mut clusters: Vec<(f32, usize)> = (0..5)
                    .map(|c| {
                        (squared_distance(row, &quantizer.coarse().centres()[c * 6..][..6]), c)
                    })
                    .collect();
                clusters.sort_by(|a, b| a.0.total_cmp(&b.0));
                let entries = index.identifier_map().rows_of(&[item]);
                assert_eq!(entries.len(), 3);
                for (entry, &(_, cluster)) in entries.iter().zip(&clusters) {
                    let centre = &quantizer.coarse().centres()[cluster * 6..][..6];
                    let rest: Vec<f32> = row.iter().zip(centre).map(|(v, c)| v - c).collect();
                    let fine = quantizer.fine().as_quantizer().encode(&rest).unwrap();
                    let found = &identifiers.row(*entry as usize)[..3];
                    assert_eq!(found, [&[cluster as u16], fine.row(0)].concat());
                    assert_eq!(index.identifier_map().of(*entry), item);
                    let id = index.id(identifiers.row(*entry as usize)).unwrap();
                    assert_eq!(id, index.ids().get(item as usize));
                }
                assert_eq!(
                    identifiers.row(item as usize)[..3],
                    plain.trie().identifiers().row(item as usize)[..3]
                );
            }
        }
    }

    #[test]
    fn further_sequences_share_the_cluster() {
        let vae =
            RqVaeConfig { latent: 4, hidden: vec![8], epochs: 3, ..RqVaeConfig::new(vec![4, 3]) };
        for fine in [residual(), FineConfig::RqVae(vae)] {
            let (quantizer, items) = (fitted(fine), items());
            let config = IdentifierConfig { clusters: 2, codes: 3 };
            let index = quantizer.assign(&items).several(config).run().unwrap();
            assert_eq!(index.trie().len(), 6 * 300);
            let identifiers = index.trie().identifiers();
            let codes = quantizer.encode(items.as_slice()).unwrap();
            for item in 0..300u32 {
                let entries = index.identifier_map().rows_of(&[item]);
                let of: Vec<&[u16]> =
                    entries.iter().map(|&e| &identifiers.row(e as usize)[..3]).collect();
                assert_eq!(of[0], codes.row(item as usize));
                let clusters: Vec<bool> = of.iter().map(|code| code[0] == of[0][0]).collect();
                assert_eq!(clusters, [true, true, true, false, false, false]);
                let distinct: std::collections::HashSet<_> = of.iter().collect();
                assert_eq!(distinct.len(), 6);
            }
        }
    }

    #[test]
    fn groups_and_vectors_are_those_of_the_candidate() {
        let (quantizer, items) = (fitted(residual()), items());
        let labels = (0..300).map(|item| if item % 3 == 0 { "a" } else { "b" });
        let groups = Groups::from_labels(labels).unwrap();
        let config = IdentifierConfig { clusters: 2, codes: 1 };
        let index = quantizer.assign(&items).groups(&groups).several(config).run().unwrap();
        let filter = index.group_filter("a").unwrap();
        assert_eq!(filter.count(), 200);
        assert_eq!(filter, index.filter(|item| item % 3 == 0));
        let index = index.with_vectors(items.clone()).unwrap();
        let vectors = index.prefix_stats().unwrap().vectors();
        for entry in 0..600 {
            let owner = index.identifier_map().of(entry) as usize;
            assert_eq!(vectors.row(entry as usize), items.row(owner));
        }
        let few = Features::from_rows(vec![1.0; 12], 6).unwrap();
        let index = quantizer.assign(&items).several(config).run().unwrap();
        assert!(index.with_vectors(few).is_err());
    }

    #[test]
    fn one_identifier_is_the_plain_index_and_impossible_numbers_are_refused() {
        let (quantizer, items) = (fitted(residual()), items());
        let run = |clusters, codes| {
            quantizer.assign(&items).several(IdentifierConfig { clusters, codes }).run()
        };
        let plain = quantizer.assign(&items).run().unwrap();
        assert_eq!(run(1, 1).unwrap().trie(), plain.trie());
        for (clusters, codes, what) in
            [(0, 1, "clusters"), (1, 0, "codes"), (6, 1, "1 to 5"), (1, 13, "1 to 12")]
        {
            let error = run(clusters, codes).unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
        }
        let tree = fitted(FineConfig::Hierarchical(HierarchicalConfig::new(vec![3, 2])));
        let config = IdentifierConfig { clusters: 1, codes: 2 };
        let error = tree.assign(&items).several(config).run().unwrap_err().to_string();
        assert!(error.contains("RQ-KMeans"), "{error}");
    }
}
