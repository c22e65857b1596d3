//! From scores to rankings, and the measure that baselines are tuned by.

use cart_retrieval::{
    Result,
    eval::{Ranking, TruncatedTies},
    expert::{QueryTruth, mrr_at_k},
    members::name_query,
};
use rayon::prelude::*;

/// The `k` highest scores, ties by item.
pub fn best(scores: &[f32], k: usize) -> Result<Ranking> {
    let mut order: Vec<u32> = (0..scores.len() as u32).collect();
    let by = |&a: &u32, &b: &u32| scores[b as usize].total_cmp(&scores[a as usize]).then(a.cmp(&b));
    let k = k.min(order.len());
    if k > 0 && k < order.len() {
        order.select_nth_unstable_by(k - 1, by);
    }
    order.truncate(k);
    order.sort_unstable_by(by);
    let values = order.iter().map(|&item| scores[item as usize]).collect();
    Ranking::new(order, values)
}

/// Mean MRR@10 of the rankings that `rank` gives for each query, with the buffers of its thread.
pub fn mean_mrr<R, S>(
    relevant: &[R],
    candidates: usize,
    scratch: impl Fn() -> S + Send + Sync,
    rank: impl Fn(&mut S, usize) -> Result<Ranking> + Send + Sync,
) -> Result<f64>
where
    R: AsRef<[u32]> + Sync,
{
    let values: Vec<Result<f64>> = relevant
        .par_iter()
        .enumerate()
        .map_init(scratch, |scratch, (query, relevant)| {
            let ranking = rank(scratch, query)?;
            let (relevant, ties) = (relevant.as_ref(), TruncatedTies::Listed);
            mrr_at_k(&ranking, 10, &QueryTruth { relevant, candidates, ties })
                .map_err(|error| name_query(error, query))
        })
        .collect();
    // Summed in order, so that threads do not change the last digit.
    let values: Vec<f64> = values.into_iter().collect::<Result<_>>()?;
    Ok(values.iter().sum::<f64>() / values.len().max(1) as f64)
}
