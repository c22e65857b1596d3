use std::cell::Cell;

use burn::backend::Flex;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::{
    cancel::StopFlag,
    features::{Features, ItemIds, ShardedFeatures},
    identifier::Groups,
    index::{CandidateIndex, HealthReport},
    quantizer::{
        CoarseToFine, CoarseToFineConfig, FineConfig, HierarchicalConfig, IdentifierConfig,
        KMeansConfig, Quantizer, QuantizerEvent, RowSource, RqKMeansConfig, RqVaeConfig,
    },
};

const N: usize = 3 * BLOCK + 1234;

fn items() -> Features {
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    // Whole numbers, exact in every type, with many equal rows.
    let rows = (0..N * 3).map(|_| f32::from(rng.random_range(0..12_u8)));
    Features::from_rows(rows.collect(), 3).unwrap()
}

fn fitted(items: &Features, fine: FineConfig) -> CoarseToFine<Flex> {
    let mut config = CoarseToFineConfig::new(6, fine);
    config.coarse = KMeansConfig { restarts: 1, max_iterations: 3, ..config.coarse };
    config.fit_source(items, 2000, &Default::default()).unwrap()
}

fn rq() -> FineConfig {
    FineConfig::RqKmeans(RqKMeansConfig {
        restarts: 1,
        max_iterations: 3,
        ..RqKMeansConfig::new(vec![8, 8])
    })
}

/// Three files of different lengths.
fn shards(items: &Features, folder: &Path) -> ShardedFeatures {
    let cuts = [0, 10, BLOCK + 77, N];
    let paths: Vec<_> = cuts
        .windows(2)
        .enumerate()
        .map(|(shard, cut)| {
            let path = folder.join(format!("{shard}.npy"));
            let rows = items.rows(cut[0]..cut[1]).to_vec();
            Features::from_rows(rows, 3).unwrap().save_npy(&path).unwrap();
            path
        })
        .collect();
    ShardedFeatures::open(&paths).unwrap()
}

fn same(left: &CandidateIndex, right: &CandidateIndex) {
    assert_eq!(left.trie(), right.trie());
    assert_eq!(left.health(), right.health());
    assert_eq!(left.ids(), right.ids());
}

/// Counts the rows asked for at once.
struct Counted<'a> {
    source: &'a dyn RowSource,
    largest: Cell<usize>,
}

impl RowSource for Counted<'_> {
    fn len(&self) -> usize {
        self.source.len()
    }

    fn dim(&self) -> usize {
        self.source.dim()
    }

    fn read(&self, range: Range<usize>, into: &mut Vec<f32>) -> Result<()> {
        self.largest.set(self.largest.get().max(range.len()));
        self.source.read(range, into)
    }
}

#[test]
fn shards_and_parts_give_the_index_of_the_whole() {
    let folder = tempfile::tempdir().unwrap();
    let items = items();
    let sharded = shards(&items, folder.path());
    for fine in [
        rq(),
        FineConfig::Hierarchical(HierarchicalConfig::new(vec![4, 3])),
        FineConfig::RqVae(RqVaeConfig { latent: 4, epochs: 1, ..RqVaeConfig::new(vec![8, 4]) }),
    ] {
        let quantizer = fitted(&items, fine);
        let whole = quantizer.assign(&items).run().unwrap();
        let counted = Counted { source: &sharded, largest: Cell::new(0) };
        same(&quantizer.assign(&counted).ids(items.ids().clone()).run().unwrap(), &whole);
        assert_eq!(counted.largest.get(), BLOCK, "assignment holds one block");

        for parts in [1, 3, 7] {
            let mut made: Vec<CodesPart> = (0..parts)
                .map(|part| {
                    let path = folder.path().join("part.safetensors");
                    let made = quantizer.assign(&sharded).part(part, parts).unwrap();
                    made.save(&path).unwrap();
                    assert_eq!(CodesPart::load(&path).unwrap(), made);
                    made
                })
                .collect();
            assert_eq!(made.iter().map(|part| part.rows().len()).sum::<usize>(), N);
            made.reverse();
            same(&quantizer.assign_parts(made, items.ids().clone()).run().unwrap(), &whole);
        }
    }
}

#[test]
fn the_health_of_blocks_is_that_of_the_whole() {
    let items = items();
    let quantizer = fitted(&items, rq());
    let codes = quantizer.encode(items.as_slice()).unwrap();
    let whole = HealthReport::new(&quantizer, items.as_slice(), &codes).unwrap();
    assert_eq!(quantizer.assign(&items).run().unwrap().health(), &whole);
    // The plain way: one mean, one sum.
    let rows: Vec<&[f32]> = items.as_slice().chunks_exact(3).collect();
    let mean: Vec<f64> =
        (0..3).map(|c| rows.iter().map(|row| f64::from(row[c])).sum::<f64>() / N as f64).collect();
    let gap = |row: &[f32], other: &dyn Fn(usize) -> f64| -> f64 {
        (0..3).map(|c| (f64::from(row[c]) - other(c)).powi(2)).sum()
    };
    let variance: f64 = rows.iter().map(|row| gap(row, &|c| mean[c])).sum();
    for level in 0..3 {
        let decoded = quantizer.decode_prefix(&codes, level + 1).unwrap();
        let error: f64 = rows
            .iter()
            .zip(decoded.chunks_exact(3))
            .map(|(row, decoded)| gap(row, &|c| f64::from(decoded[c])))
            .sum();
        let found = whole.levels[level].residual_energy;
        approx::assert_relative_eq!(found, error / variance, max_relative = 1e-10);
    }
}

#[test]
fn parts_that_do_not_go_together_are_refused() {
    let items = items();
    let quantizer = fitted(&items, rq());
    let part = |part, of| quantizer.assign(&items).part(part, of).unwrap();
    let message = |parts: Vec<CodesPart>| {
        let error = quantizer.assign_parts(parts, items.ids().clone()).run().unwrap_err();
        assert!(matches!(error, Error::Quantizer(_)), "{error}");
        error.to_string()
    };
    assert!(message(vec![]).contains("no part with rows 0..0"));
    assert!(message(vec![part(1, 2)]).contains(&format!("no part with rows 0..{}", 2 * BLOCK)));
    assert!(message(vec![part(0, 2)]).contains(&format!("no part with rows {}..{N}", 2 * BLOCK)));
    let text = message(vec![part(0, 3), part(2, 3)]);
    assert!(text.contains(&format!("{BLOCK}..{}", 2 * BLOCK)), "{text}");
    let text = message(vec![part(0, 2), part(1, 2), part(1, 2)]);
    assert!(text.contains("rows of another part"), "{text}");
    assert!(message(vec![part(0, 1), part(1, 3)]).contains("another part"));

    let other = fitted(
        &items,
        FineConfig::RqKmeans(RqKMeansConfig { seed: 9, ..RqKMeansConfig::new(vec![8, 8]) }),
    );
    let text = message(vec![part(0, 2), other.assign(&items).part(1, 2).unwrap()]);
    assert!(text.contains("codes of the quantizer"), "{text}");
    let fewer = items.select(&(0..N - 1).collect::<Vec<_>>());
    let text = message(vec![part(0, 2), quantizer.assign(&fewer).part(1, 2).unwrap()]);
    assert!(text.contains(&format!("one of {}", N - 1)), "{text}");
    let error = quantizer.assign_parts(vec![part(0, 1)], ItemIds::numbered(3)).run().unwrap_err();
    assert!(matches!(error, Error::Ids(_)));
    assert!(quantizer.assign(&items).ids(ItemIds::numbered(3)).run().is_err());
    assert!(matches!(quantizer.assign(&items).part(2, 2), Err(Error::Config(_))));
    let narrow = Features::from_rows(vec![1.0; 4], 2).unwrap();
    assert!(quantizer.assign(&narrow).run().unwrap_err().to_string().contains("rows of 3 numbers"));
    let mut rows = items.as_slice().to_vec();
    rows[(BLOCK + 5) * 3] = f32::NAN;
    let bad = Features::from_rows(rows, 3).unwrap();
    let text = quantizer.assign(&bad).run().unwrap_err().to_string();
    assert!(text.contains(&format!("row {}", BLOCK + 5)), "{text}");
}

#[test]
fn damaged_files_of_parts_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("part.safetensors");
    let items = items();
    let quantizer = fitted(&items, rq());
    quantizer.assign(&items).part(3, 4).unwrap().save(&path).unwrap();
    let whole = std::fs::read(&path).unwrap();
    let refused = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        let error = CodesPart::load(&path).unwrap_err();
        assert!(matches!(error, Error::Index(_)), "{error}");
        assert!(error.to_string().contains("part.safetensors"), "{error}");
    };
    for end in [0, 7, 100, whole.len() / 2, whole.len() - 1] {
        refused(&whole[..end]);
    }
    for place in (0..whole.len()).step_by(97) {
        let mut bytes = whole.clone();
        bytes[place] ^= 0x01;
        refused(&bytes);
    }
    refused(&quantizer.to_safetensors().unwrap());
    assert!(matches!(CodesPart::load(folder.path().join("no")), Err(Error::Io { .. })));
}

#[test]
fn events_are_reported_and_a_stop_interrupts() {
    let items = items();
    let quantizer = fitted(&items, rq());
    let stop = StopFlag::new();
    let mut seen = Vec::new();
    let result = quantizer
        .assign(&items)
        .stop(&stop)
        .progress(|event| {
            if let QuantizerEvent::Encoded { rows, of } = event {
                seen.push((rows, of));
            }
            if seen.len() == 2 {
                stop.raise();
            }
        })
        .run();
    assert!(matches!(result, Err(Error::Interrupted(_))));
    assert_eq!(seen, [(BLOCK, N), (2 * BLOCK, N)]);
}

#[test]
fn groups_go_with_parts_and_several_identifiers_need_rows() {
    let items = items();
    let quantizer = fitted(&items, rq());
    let labels = (0..N).map(|item| if item % 3 == 0 { "a" } else { "b" });
    let groups = Groups::from_labels(labels).unwrap();
    let part = |part| quantizer.assign(&items).part(part, 2).unwrap();
    let merge = || quantizer.assign_parts(vec![part(1), part(0)], items.ids().clone());
    let whole = quantizer.assign(&items).groups(&groups).run().unwrap();
    same(&merge().groups(&groups).run().unwrap(), &whole);
    let several = IdentifierConfig { clusters: 2, codes: 1 };
    assert!(matches!(merge().several(several).run(), Err(Error::Config(_))));
    assert!(matches!(merge().part(0, 1), Err(Error::Config(_))));
    assert!(matches!(quantizer.assign(&items).several(several).part(0, 1), Err(Error::Config(_))));
}

/// Further identifiers from rows that are read block by block.
#[test]
fn several_identifiers_of_shards_are_those_of_rows_in_memory() {
    let folder = tempfile::tempdir().unwrap();
    let items = items();
    let sharded = shards(&items, folder.path());
    let quantizer = fitted(&items, rq());
    let several = IdentifierConfig { clusters: 2, codes: 1 };
    let whole = quantizer.assign(&items).several(several).run().unwrap();
    let read = quantizer.assign(&sharded).several(several).run().unwrap();
    same(&read, &whole);
    assert_eq!(read.identifier_map(), whole.identifier_map());
}
