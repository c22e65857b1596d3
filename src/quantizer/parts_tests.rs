use std::cell::Cell;

use burn::backend::{Autodiff, Flex};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::{
    features::ShardedFeatures,
    quantizer::{CoarseToFineConfig, FineConfig, HierarchicalConfig, RqKMeansConfig, RqVaeConfig},
};

const N: usize = 3 * BLOCK + 1234;

fn items() -> Features {
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    // Whole numbers, exact in every type, with many equal rows.
    let rows = (0..N * 3).map(|_| f32::from(rng.random_range(0..12_u8)));
    Features::from_rows(rows.collect(), 3).unwrap()
}

fn fitted(items: &Features, fine: FineConfig) -> CoarseToFine<Flex> {
    let mut config = CoarseToFineConfig::new(6, vec![]).with_fine(fine);
    config.coarse = config.coarse.with_restarts(1).with_max_iterations(3);
    config.fit_source::<Autodiff<Flex>>(items, 2000, &Default::default()).unwrap()
}

fn rq() -> FineConfig {
    FineConfig::RqKmeans(RqKMeansConfig::new(vec![8, 8]).with_restarts(1).with_max_iterations(3))
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
        FineConfig::RqVae(RqVaeConfig::new(vec![8, 4]).with_latent(4).with_epochs(1)),
    ] {
        let quantizer = fitted(&items, fine);
        let whole = quantizer.assign(&items).unwrap();
        let counted = Counted { source: &sharded, largest: Cell::new(0) };
        same(&quantizer.assign_source(&counted, items.ids().clone()).unwrap(), &whole);
        assert_eq!(counted.largest.get(), BLOCK, "assignment holds one block");

        for parts in [1, 3, 7] {
            let mut made: Vec<CodesPart> = (0..parts)
                .map(|part| {
                    let path = folder.path().join("part.safetensors");
                    let made = quantizer.encode_part(&sharded, part, parts).unwrap();
                    made.save(&path).unwrap();
                    assert_eq!(CodesPart::load(&path).unwrap(), made);
                    made
                })
                .collect();
            assert_eq!(made.iter().map(|part| part.rows().len()).sum::<usize>(), N);
            made.reverse();
            same(&quantizer.merge(made, items.ids().clone()).unwrap(), &whole);
        }
    }
}

#[test]
fn the_health_of_blocks_is_that_of_the_whole() {
    let items = items();
    let quantizer = fitted(&items, rq());
    let codes = quantizer.encode(items.as_slice()).unwrap();
    let whole = HealthReport::new(&quantizer, items.as_slice(), &codes).unwrap();
    assert_eq!(quantizer.assign(&items).unwrap().health(), &whole);
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
    let part = |part, of| quantizer.encode_part(&items, part, of).unwrap();
    let message = |parts: Vec<CodesPart>| {
        let error = quantizer.merge(parts, items.ids().clone()).unwrap_err();
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

    let other = fitted(&items, FineConfig::RqKmeans(RqKMeansConfig::new(vec![8, 8]).with_seed(9)));
    let text = message(vec![part(0, 2), other.encode_part(&items, 1, 2).unwrap()]);
    assert!(text.contains("codes of the quantizer"), "{text}");
    let fewer = items.select(&(0..N - 1).collect::<Vec<_>>());
    let text = message(vec![part(0, 2), quantizer.encode_part(&fewer, 1, 2).unwrap()]);
    assert!(text.contains(&format!("one of {}", N - 1)), "{text}");
    let error = quantizer.merge(vec![part(0, 1)], ItemIds::numbered(3)).unwrap_err();
    assert!(matches!(error, Error::Ids(_)));
    assert!(quantizer.assign_source(&items, ItemIds::numbered(3)).is_err());
    assert!(matches!(quantizer.encode_part(&items, 2, 2), Err(Error::Config(_))));
    let narrow = Features::from_rows(vec![1.0; 4], 2).unwrap();
    assert!(quantizer.assign(&narrow).unwrap_err().to_string().contains("rows of 3 numbers"));
    let mut rows = items.as_slice().to_vec();
    rows[(BLOCK + 5) * 3] = f32::NAN;
    let bad = Features::from_rows(rows, 3).unwrap();
    let text = quantizer.assign(&bad).unwrap_err().to_string();
    assert!(text.contains(&format!("row {}", BLOCK + 5)), "{text}");
}

#[test]
fn damaged_files_of_parts_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("part.safetensors");
    let items = items();
    let quantizer = fitted(&items, rq());
    quantizer.encode_part(&items, 3, 4).unwrap().save(&path).unwrap();
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
fn progress_is_told_and_a_break_interrupts() {
    let items = items();
    let quantizer = fitted(&items, rq());
    let mut seen = Vec::new();
    let result = quantizer.assign_source_with_progress(&items, items.ids().clone(), &mut |event| {
        if let QuantizerEvent::Encoded { rows, of } = event {
            seen.push((rows, of));
        }
        if seen.len() == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert!(matches!(result, Err(Error::Interrupted(_))));
    assert_eq!(seen, [(BLOCK, N), (2 * BLOCK, N)]);
}
