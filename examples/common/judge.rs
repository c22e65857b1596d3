//! Figures of rankings, told and written down.

use anyhow::Result;
use cart_retrieval::{
    backend::LocalBackend,
    eval::{EvalRecord, Ranking},
    recipe::{Judge, Recipe},
};

/// The figures of some rankings as a record with the hardware and the command; they are printed
/// too.
pub fn record<B: LocalBackend>(
    judge: &Judge,
    recipe: &Recipe,
    method: &str,
    rankings: &[Ranking],
    device: &B::Device,
) -> Result<EvalRecord> {
    let (metrics, intervals) = judge.figures(rankings)?;
    println!("seed {}, {method}: {metrics}", recipe.seed);
    Ok(EvalRecord::new(&recipe.dataset, &recipe.protocol, method, &metrics)
        .with_intervals(&intervals)
        .with_seed(recipe.seed)
        .with_hardware(crate::hardware::<B>(device))
        .with_command(crate::command()))
}

/// Percentage of the queries of which a right candidate is anywhere in the beam.
pub fn in_beam(judge: &Judge, rankings: &[Ranking]) -> f64 {
    100.0 * judge.share_found(rankings)
}
