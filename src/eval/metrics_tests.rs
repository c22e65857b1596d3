//! Tests of the metrics against enumeration of every order of the ties.

use super::*;
use approx::assert_relative_eq;
use proptest::prelude::*;

/// All orders of `items` in which scores never rise: the slow, obvious meaning of ties.
fn orders(items: &[(u32, f32)]) -> Vec<Vec<u32>> {
    let Some(best) = items.iter().map(|(_, score)| *score).reduce(f32::max) else {
        return vec![vec![]];
    };
    let mut all = Vec::new();
    for (position, (item, _)) in items.iter().enumerate().filter(|(_, (_, s))| *s == best) {
        let mut rest = items.to_vec();
        rest.remove(position);
        for mut order in orders(&rest) {
            order.insert(0, *item);
            all.push(order);
        }
    }
    all
}

/// Recall@K, fraction and MRR@K averaged over the orders.
fn slow(items: &[(u32, f32)], relevant: &[u32], k: usize) -> [f64; 3] {
    let orders = orders(items);
    let mut sums = [0.0; 3];
    for order in &orders {
        let found = order.iter().take(k).filter(|item| relevant.contains(item)).count();
        sums[0] += f64::from(found > 0);
        sums[1] += found as f64 / relevant.len() as f64;
        let first = order.iter().take(k).position(|item| relevant.contains(item));
        sums[2] += first.map_or(0.0, |place| 1.0 / (place + 1) as f64);
    }
    sums.map(|sum| sum / orders.len() as f64)
}

fn fast(ranking: &Ranking, relevant: &[u32], k: usize, n: usize, ties: TruncatedTies) -> [f64; 3] {
    let query = QueryTruth { relevant, candidates: n, ties };
    [
        recall_at_k(ranking, k, &query).unwrap(),
        recall_fraction_at_k(ranking, k, &query).unwrap(),
        mrr_at_k(ranking, k, &query).unwrap(),
    ]
}

#[test]
fn known_values() {
    let ranking = Ranking::new(vec![7, 3, 5, 1], vec![4.0, 3.0, 2.0, 1.0]).unwrap();
    assert_eq!(fast(&ranking, &[5, 3], 1, 8, TruncatedTies::Listed), [0.0, 0.0, 0.0]);
    assert_eq!(fast(&ranking, &[5, 3], 2, 8, TruncatedTies::Listed), [1.0, 0.5, 0.5]);
    assert_eq!(fast(&ranking, &[5, 0], 9, 8, TruncatedTies::Listed), [1.0, 0.5, 1.0 / 3.0]);
    // All scores equal: chance level, wherever the relevant item happens to be listed.
    let flat = Ranking::new((0..4).collect(), vec![0.0; 4]).unwrap();
    for item in 0..4 {
        let ties = TruncatedTies::Listed;
        let query = QueryTruth { relevant: &[item], candidates: 4, ties };
        assert_relative_eq!(recall_at_k(&flat, 1, &query).unwrap(), 0.25);
    }
    for item in 0..100 {
        let ties = TruncatedTies::AllUnlisted;
        let query = QueryTruth { relevant: &[item], candidates: 100, ties };
        let chance = recall_at_k(&flat, 1, &query).unwrap();
        assert_relative_eq!(chance, 0.01, epsilon = 1e-12);
    }
    let empty = Ranking::default();
    assert_eq!(fast(&empty, &[1], 5, 8, TruncatedTies::Listed), [0.0; 3]);
}

#[test]
fn mismatched_queries_are_refused() {
    let good = Ranking::new(vec![1, 2], vec![1.0, 0.5]).unwrap();
    let check = |relevant: &[&[u32]], candidates| {
        let rankings = vec![good.clone(); 2];
        evaluate(&rankings, relevant, candidates, TruncatedTies::Listed).unwrap_err().to_string()
    };
    assert!(check(&[&[1]], 3).contains("2 rankings and 1"));
    assert!(check(&[&[1], &[]], 3).contains("of query 1: expected at least one"));
    assert!(check(&[&[1, 1], &[2]], 3).contains("of query 0"));
    assert!(check(&[&[1], &[3]], 3).contains("item 3"));
    assert!(check(&[&[1], &[1]], 2).contains("ranking of query 0"));
    let ties = TruncatedTies::Listed;
    assert!(recall_at_k(&good, 0, &QueryTruth { relevant: &[1], candidates: 3, ties }).is_err());
    assert!(evaluate::<[u32; 1]>(&[], &[], 3, TruncatedTies::Listed).is_err());
}

#[test]
fn metrics_show_and_round_trip() {
    let ranking = Ranking::new(vec![1, 2], vec![1.0, 0.5]).unwrap();
    let scores =
        evaluate(&[ranking.clone(), ranking], &[[1], [2]], 60, TruncatedTies::Listed).unwrap();
    assert!(scores.values(Metric::RecallAt50).is_none());
    let metrics = scores.metrics();
    assert_eq!(
        metrics.to_string(),
        "R@1 50.0%  R@5 100.0%  R@10 100.0%  MRR@10 75.0%  (2 queries, 60 candidates)"
    );
    let text = serde_json::to_string(&metrics).unwrap();
    assert_eq!(serde_json::from_str::<Metrics>(&text).unwrap(), metrics);
    assert_eq!(serde_json::to_string(&Metric::ALL[3]).unwrap(), "\"recall@50\"");
}

proptest! {
    #[test]
    fn agrees_with_enumeration(
        levels in prop::collection::vec(0u8..4, 1..7),
        flags in prop::collection::vec(any::<bool>(), 7),
        k in 1usize..9,
        cut in 0usize..7,
    ) {
        let mut items: Vec<(u32, f32)> =
            (0u32..).zip(levels.iter().map(|level| f32::from(*level))).collect();
        items.sort_by(|a, b| b.1.total_cmp(&a.1));
        let relevant: Vec<u32> = (0..levels.len() as u32).filter(|i| flags[*i as usize]).collect();
        prop_assume!(!relevant.is_empty());
        let n = items.len();
        // The listed part alone.
        let cut = cut.min(n);
        let listed = &items[..cut];
        let (ids, scores) = listed.iter().copied().unzip();
        let ranking = Ranking::new(ids, scores).unwrap();
        let expected = slow(listed, &relevant, k);
        let found = fast(&ranking, &relevant, k, n, TruncatedTies::Listed);
        // The rest tied with the last listed score.
        let last = listed.last().map_or(0.0, |(_, score)| *score);
        let tied: Vec<(u32, f32)> = items.iter().enumerate()
            .map(|(place, (item, score))| (*item, if place < cut { *score } else { last }))
            .collect();
        let expected_all = slow(&tied, &relevant, k);
        let found_all = fast(&ranking, &relevant, k, n, TruncatedTies::AllUnlisted);
        for (e, f) in expected.iter().chain(&expected_all).zip(found.iter().chain(&found_all)) {
            prop_assert!((e - f).abs() < 1e-9, "{e} {f}");
        }
    }
}
