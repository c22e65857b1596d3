use approx::assert_abs_diff_eq;
use burn::backend::{Autodiff, Flex};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::{
    decode::Scorer,
    features::Features,
    identifier::{Codes, LevelSizes},
    index::{LeaveOneOut, PrefixPrior, PrefixStats},
    model::Scope,
    nn::WeightInit,
    trie::Trie,
};

const DIM: usize = 6;
const ITEMS: usize = 40;
const INPUT: AlignmentInput = AlignmentInput { d_model: DIM, vocabulary: 9, levels: 3 };

struct Fixture {
    trie: Trie,
    codes: Codes,
    geometry: PrefixStats,
    queries: Vec<f32>,
}

fn fixture() -> Fixture {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let rows: Vec<[u16; 3]> =
        (0..ITEMS as u16).map(|i| [rng.random_range(0..3), rng.random_range(0..4), i]).collect();
    let codes = Codes::from_rows(3, &rows).unwrap();
    let trie = Trie::build(&codes, &LevelSizes::new(vec![4, 5, ITEMS]).unwrap()).unwrap();
    let mut unit = |count: usize| -> Vec<f32> {
        let mut rows: Vec<f32> = (0..count * DIM).map(|_| rng.random::<f32>() - 0.5).collect();
        rows.chunks_exact_mut(DIM).for_each(crate::kernels::normalise);
        rows
    };
    let vectors = Features::from_rows(unit(ITEMS), DIM).unwrap();
    let geometry = PrefixStats::new(vectors, &trie).unwrap();
    Fixture { trie, codes, geometry, queries: unit(8) }
}

fn source<'a>(
    identifiers: &'a Codes,
    trie: &'a Trie,
    geometry: &'a PrefixStats,
) -> GuideSource<'a> {
    GuideSource { identifiers, trie, geometry }
}

fn head(scale: f32) -> AlignmentHead<Flex> {
    let config = AlignmentConfig { scales: vec![scale], ..AlignmentConfig::new(DIM) };
    config.init(INPUT, &mut WeightInit::new(1), &Default::default())
}

fn rows(values: &[f32]) -> Tensor<Flex, 2> {
    let shape = [values.len() / DIM, DIM];
    Tensor::from_data(TensorData::new(values.to_vec(), shape), &Default::default())
}

/// Log-probabilities of targets from the tensors of the training are those of the search.
#[test]
fn training_and_search_see_the_same_geometry() {
    let Fixture { trie, codes, geometry, queries } = fixture();
    let head = head(7.0);
    let aligned = head.forward(rows(&queries).mul_scalar(3.0));
    let items = [0u32, 7, 39, 12, 7, 20, 3, 3];
    let device = Default::default();
    let batch = GuideBatch::new(&items, None, &source(&codes, &trie, &geometry), &device);
    let nothing = |batch: usize| -> Vec<Tensor<Flex, 2>> {
        [4, 5, ITEMS].iter().map(|&size| Tensor::zeros([batch, size], &device)).collect()
    };
    let whole = head.guide(&aligned, &batch, None, nothing(8));
    let host: Vec<f32> = aligned.to_data().to_vec().unwrap();
    let scales: Vec<f32> = head.scales().to_data().to_vec().unwrap();
    let guide = PrefixPrior::new(&geometry, host, scales).unwrap();
    let scorer = Scorer::new(&trie, Scope::Legal).with_prior(Some(&guide));
    let halves = [batch.rows(0..4), batch.rows(4..8)];
    let twice =
        head.guide(&Tensor::cat(vec![aligned.clone(); 2], 0), &batch.repeated(), None, nothing(16));
    let mut children = Vec::new();
    for (row, &item) in items.iter().enumerate() {
        let mut node = trie.root();
        for level in 0..3 {
            let values = |logits: &Tensor<Flex, 2>, row: usize| -> Vec<f32> {
                logits.clone().narrow(0, row, 1).into_data().to_vec().unwrap()
            };
            let part = aligned.clone().narrow(0, row / 4 * 4, 4);
            let half = head.guide(&part, &halves[row / 4], None, nothing(4));
            let logits = values(&whole[level], row);
            assert_eq!(logits, values(&half[level], row % 4));
            assert_eq!(logits, values(&twice[level], row + 8));
            let zeros = vec![0.0; logits.len()];
            scorer.children(row, node, &zeros, &mut children);
            let total: f32 = children.iter().map(|c| logits[usize::from(c.0)].exp()).sum();
            for &(token, log_p, _) in &children {
                let found = logits[usize::from(token)] - total.ln();
                let found = if children.len() == 1 { 0.0 } else { found };
                assert_abs_diff_eq!(found, log_p, epsilon = 2e-5);
            }
            node = trie.child(node, codes.row(item as usize)[level]).unwrap();
        }
    }
}

/// A held-out vector changes the target's nodes as if the item itself had moved.
#[test]
fn held_out_vectors_move_the_means_above_them() {
    let Fixture { trie, codes, geometry, queries } = fixture();
    let item = 7u32;
    let moved: Vec<f32> = queries[..DIM].to_vec();
    let held_out = LeaveOneOut::new(DIM, moved.clone()).unwrap();
    let device = Default::default();
    let batch = GuideBatch::<Flex>::new(
        &[item],
        Some((&[0], &held_out)),
        &source(&codes, &trie, &geometry),
        &device,
    );
    let mut values = geometry.vectors().as_slice().to_vec();
    values[item as usize * DIM..(item as usize + 1) * DIM].copy_from_slice(&moved);
    let there = PrefixStats::new(Features::from_rows(values, DIM).unwrap(), &trie).unwrap();
    let expected = GuideBatch::<Flex>::new(&[item], None, &source(&codes, &trie, &there), &device);
    // With a small scale, spreads, which stay what they are, count for nothing.
    let head = head(1e-3);
    let aligned = head.forward(rows(&queries[DIM..2 * DIM]));
    let zeros = || [4, 5, ITEMS].map(|size| Tensor::zeros([1, size], &device)).to_vec();
    let logits = |batch: &GuideBatch<Flex>, level: usize, token: u16| -> f32 {
        let logits = head.guide(&aligned, batch, None, zeros());
        let values: Vec<f32> = logits[level].to_data().to_vec().unwrap();
        values[usize::from(token)]
    };
    for (level, &token) in codes.row(item as usize).iter().enumerate() {
        let change = logits(&expected, level, token) - logits(&batch, level, token);
        assert_abs_diff_eq!(change, 0.0, epsilon = 2e-6);
    }
    let own: Vec<f32> = batch.own.to_data().to_vec().unwrap();
    assert_eq!(own, moved);
}

#[test]
fn the_contrast_knows_which_candidate_is_meant() {
    let Fixture { trie, codes, geometry, .. } = fixture();
    let items = [1u32, 2, 3, 1];
    let device = Default::default();
    let batch = GuideBatch::<Flex>::new(&items, None, &source(&codes, &trie, &geometry), &device);
    let head = head(20.0);
    let loss = |turn: usize| -> f32 {
        let of = |at: usize| geometry.vectors().row(items[(at + turn) % 4] as usize);
        let values: Vec<f32> = (0..4).flat_map(|at| of(at).to_vec()).collect();
        head.contrast(&head.forward(rows(&values)), &batch).into_scalar()
    };
    assert!(loss(0) < 0.1 && loss(0) < loss(1) && loss(0) < loss(2), "{}", loss(0));
}

#[test]
fn starts_as_the_identity_and_learns() {
    type A = Autodiff<Flex>;
    let Fixture { trie, codes, geometry, queries } = fixture();
    let device = Default::default();
    let config =
        AlignmentConfig { learn_scales: true, learn_map: true, ..AlignmentConfig::new(DIM) };
    let head: AlignmentHead<A> = config.init(INPUT, &mut WeightInit::new(1), &device);
    let x = Tensor::<A, 2>::from_data(TensorData::new(queries.clone(), [8, DIM]), &device);
    let aligned = head.forward(x);
    let found: Vec<f32> = aligned.clone().into_data().to_vec().unwrap();
    for (a, b) in found.iter().zip(&queries) {
        assert_abs_diff_eq!(a, b, epsilon = 1e-5);
    }
    let items = [0u32, 1, 2, 3, 4, 5, 6, 7];
    let batch = GuideBatch::<A>::new(&items, None, &source(&codes, &trie, &geometry), &device);
    let zeros = [4, 5, ITEMS].map(|size| Tensor::<A, 2>::zeros([8, size], &device));
    let logits = head.guide(&aligned, &batch, None, zeros.to_vec());
    let grads = logits[0].clone().powi_scalar(2).sum().backward();
    let weight = head.projection.weight.val().grad(&grads).unwrap();
    let scale = head.log_scales.val().grad(&grads).unwrap();
    assert!(weight.abs().sum().into_scalar() > 1e-3);
    let scale: Vec<f32> = scale.into_data().to_vec().unwrap();
    assert!(scale[0].abs() > 1e-3 && scale[1] == 0.0, "{scale:?}");
    assert_eq!(head.num_params(), config.num_params(INPUT));
}
