use proptest::prelude::*;

use super::*;
use crate::kernels::squared_distance;

fn some_rows(n: usize, dim: usize) -> Vec<f32> {
    (0..n * dim).map(|i| ((i * 7919 + i / dim * 31) % 1013) as f32 * 0.01).collect()
}

/// The slow twin: walks the tree with one row at a time.
fn plain_encode(tree: &Hierarchical, rows: &[f32]) -> Vec<u16> {
    let mut tokens = Vec::new();
    for row in rows.chunks_exact(tree.dim) {
        let mut node = 0;
        for level in 0..tree.sizes.len() {
            let (from, to) = tree.children(level, node);
            let mut best = (from, f32::INFINITY);
            for child in from..to {
                let centre = &tree.centres[level][child * tree.dim..][..tree.dim];
                let distance = squared_distance(row, centre);
                if distance < best.1 {
                    best = (child, distance);
                }
            }
            node = best.0;
            tokens.push((node - from) as u16);
        }
    }
    tokens
}

#[test]
fn walks_the_tree_like_the_plain_loop_and_gets_closer_at_each_level() {
    let rows = some_rows(900, 5);
    let tree = HierarchicalConfig::new(vec![6, 5, 4]).fit(&rows, 5).unwrap();
    let codes = tree.encode(&rows).unwrap();
    assert_eq!(codes.as_flat(), plain_encode(&tree, &rows));
    let errors: Vec<f32> = (1..=3)
        .map(|level| squared_distance(&rows, &tree.decode_prefix(&codes, level).unwrap()))
        .collect();
    assert!(errors.windows(2).all(|pair| pair[1] < pair[0]), "{errors:?}");
    assert_eq!(tree.decode_prefix(&codes, 0).unwrap(), vec![0.0; 4500]);
    assert!(tree.encode(&[]).unwrap().is_empty());
}

#[test]
fn small_nodes_get_a_child_for_each_distinct_row() {
    let rows = [0.0, 0.0, 0.5, 100.0, 100.0, 100.0];
    let tree = HierarchicalConfig::new(vec![2, 8, 8]).fit(&rows, 1).unwrap();
    let nodes: Vec<usize> = tree.centres().iter().map(Vec::len).collect();
    assert_eq!(nodes, [2, 3, 3]);
    assert_eq!(tree.decode(&tree.encode(&rows).unwrap()).unwrap(), rows);
    // One row alone is a path.
    let path = HierarchicalConfig::new(vec![2, 2]).fit(&[3.0], 1).unwrap();
    assert_eq!(path.encode(&[9.0]).unwrap().as_flat(), [0, 0]);
}

#[test]
fn does_not_depend_on_the_number_of_threads() {
    let rows = some_rows(2000, 4);
    let fit = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            HierarchicalConfig { seed: 3, ..HierarchicalConfig::new(vec![8, 8]) }
                .fit(&rows, 4)
                .unwrap()
        })
    };
    assert_eq!(fit(1), fit(2));
}

#[test]
fn bad_settings_rows_and_tokens_are_refused() {
    let message = |sizes: &[usize], rows: &[f32]| {
        HierarchicalConfig::new(sizes.to_vec()).fit(rows, 1).unwrap_err().to_string()
    };
    assert!(message(&[], &[1.0]).contains("at least one level"));
    assert!(message(&[2, 1], &[1.0]).contains("vocabulary of size 1"));
    assert!(message(&[2], &[]).contains("at least one row"));
    assert!(message(&[2], &[1.0, f32::NAN]).contains("row 1"));

    let tree = HierarchicalConfig::new(vec![2, 4]).fit(&[0.0, 9.0, 10.0], 1).unwrap();
    let lonely = tree.encode(&[0.0]).unwrap().row(0)[0];
    let codes = Codes::from_flat(2, vec![lonely, 1]).unwrap();
    let text = tree.decode(&codes).unwrap_err().to_string();
    assert!(text.contains("its node's children"), "{text}");
    assert!(tree.decode(&Codes::from_flat(2, vec![2, 0]).unwrap()).is_err());
}

#[test]
fn broken_parts_are_refused() {
    let make = |sizes: &[usize], centres: &[&[f32]], first_children: &[&[u32]]| {
        Hierarchical::from_parts(
            sizes.to_vec(),
            centres.iter().map(|part| part.to_vec()).collect(),
            first_children.iter().map(|part| part.to_vec()).collect(),
            1,
        )
    };
    make(&[2, 2], &[&[0.0, 1.0], &[0.0, 1.0, 2.0]], &[&[0, 2], &[0, 1, 3]]).unwrap();
    for first_children in [&[0, 3, 3][..], &[0, 3], &[1, 2, 3], &[0, 0, 3], &[0, 4, 3], &[]] {
        assert!(
            make(&[2, 2], &[&[0.0, 1.0], &[0.0, 1.0, 2.0]], &[&[0, 2], first_children]).is_err()
        );
    }
    assert!(make(&[2], &[&[0.0, 1.0], &[0.0]], &[&[0, 2]]).is_err());
    assert!(make(&[2], &[&[0.0, f32::NAN]], &[&[0, 2]]).is_err());
    assert!(make(&[], &[], &[]).is_err());
}

proptest! {
    #[test]
    fn encoding_agrees_with_the_plain_loop_and_children_hold_their_rows(
        values in prop::collection::vec(-5_i8..=5, 1..120),
        dim in 1_usize..4,
        seed in 0_u64..20,
    ) {
        let n = values.len() / dim;
        prop_assume!(n > 0);
        let rows: Vec<f32> = values[..n * dim].iter().map(|&v| f32::from(v) * 0.7).collect();
        let config = HierarchicalConfig { seed, restarts: 1, ..HierarchicalConfig::new(vec![3, 4]) };
        let tree = config.fit(&rows, dim).unwrap();
        let codes = tree.encode(&rows).unwrap();
        prop_assert_eq!(codes.as_flat(), plain_encode(&tree, &rows));
        prop_assert_eq!(tree.decode(&codes).unwrap().len(), rows.len());
    }
}
