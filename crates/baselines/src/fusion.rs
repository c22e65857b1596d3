//! Several systems' scores added up.

use cart_retrieval::{Error, Result, eval::Ranking};
use rayon::prelude::*;
use serde::Serialize;

use crate::ranks::{best, mean_mrr};

/// Weights to try for each system.
const GRID: [f32; 8] = [0.0, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5];
/// Rounds over the systems, at most.
const ROUNDS: usize = 4;

/// A weighted sum of the scores of several systems, each scaled to mean 0 and deviation 1 over the
/// candidates of a query.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ScoreFusion {
    weights: Vec<f32>,
}

/// What [`ScoreFusion::tune`] found.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct FusionTuning {
    /// The best weights.
    pub fusion: ScoreFusion,
    /// Their MRR@10 on the validation queries.
    pub mrr_at_10: f64,
}

impl ScoreFusion {
    /// A fusion with weights, one a system.
    ///
    /// # Errors
    /// [`Error::Config`] without weights, or when one is negative or not finite, or all are 0.
    pub fn new(weights: Vec<f32>) -> Result<Self> {
        let usable = weights.iter().all(|w| *w >= 0.0 && w.is_finite());
        if !usable || weights.iter().sum::<f32>() == 0.0 {
            return Err(Error::config("weights of the fusion")
                .expected("numbers of at least 0, not all 0")
                .found(format!("{weights:?}"))
                .fix("give one weight per system"));
        }
        Ok(Self { weights })
    }

    /// The weights.
    pub fn weights(&self) -> &[f32] {
        &self.weights
    }

    /// Chooses weights on validation queries by MRR@10: from the best system alone, one system's
    /// weight after the other, as long as that helps.
    ///
    /// # Shapes
    /// - `systems`: per system a ranking of all candidates for every query
    ///
    /// # Errors
    /// [`Error::Query`] when systems answer other queries than are asked, or not with all
    /// candidates, or a relevant set is malformed.
    pub fn tune<R: AsRef<[u32]> + Sync>(
        systems: &[&[Ranking]],
        relevant: &[R],
        candidates: usize,
    ) -> Result<FusionTuning> {
        let scores = Scaled::new(systems, candidates)?;
        if relevant.len() != scores.queries {
            return Err(Error::query("relevant items")
                .expected(format!("one set for each of {} queries", scores.queries))
                .found(relevant.len().to_string())
                .fix("pass the queries that the systems answered"));
        }
        let measure = |weights: &[f32]| -> Result<f64> {
            let rank = |(): &mut (), query| scores.fuse(query, weights, 50);
            mean_mrr(relevant, candidates, || (), rank)
        };
        // From the best system alone.
        let mut weights = Vec::new();
        let mut most = f64::NEG_INFINITY;
        for system in 0..systems.len() {
            let alone: Vec<f32> =
                (0..systems.len()).map(|at| f32::from(u8::from(at == system))).collect();
            let found = measure(&alone)?;
            if found > most {
                (most, weights) = (found, alone);
            }
        }
        for _ in 0..ROUNDS {
            let before = most;
            for system in 0..systems.len() {
                for weight in GRID {
                    let mut tried = weights.clone();
                    tried[system] = weight;
                    if tried.iter().all(|w| *w == 0.0) {
                        continue;
                    }
                    let found = measure(&tried)?;
                    if found > most {
                        (most, weights) = (found, tried);
                    }
                }
            }
            if most == before {
                break;
            }
        }
        Ok(FusionTuning { fusion: Self::new(weights)?, mrr_at_10: most })
    }

    /// Fuses rankings of all candidates.
    ///
    /// # Errors
    /// As [`ScoreFusion::tune`].
    pub fn search_all(
        &self,
        systems: &[&[Ranking]],
        candidates: usize,
        k: usize,
    ) -> Result<Vec<Ranking>> {
        if systems.len() != self.weights.len() {
            return Err(Error::query("systems to fuse")
                .expected(format!("{}, one per weight", self.weights.len()))
                .found(systems.len().to_string())
                .fix("pass the systems that the weights were chosen for"));
        }
        let scores = Scaled::new(systems, candidates)?;
        let fuse = |query| scores.fuse(query, &self.weights, k);
        (0..scores.queries).into_par_iter().map(fuse).collect()
    }
}

/// Scores by system, query and candidate, scaled.
struct Scaled {
    queries: usize,
    candidates: usize,
    systems: Vec<Vec<f32>>,
}

impl Scaled {
    fn new(systems: &[&[Ranking]], candidates: usize) -> Result<Self> {
        let queries = systems.first().map_or(0, |system| system.len());
        let whole = |ranking: &Ranking| {
            ranking.len() == candidates && ranking.items.iter().all(|&i| (i as usize) < candidates)
        };
        let odd = systems.iter().position(|s| s.len() != queries || !s.iter().all(whole));
        if systems.is_empty() || odd.is_some() {
            return Err(Error::query("systems to fuse")
                .expected(format!("rankings of all {candidates} candidates for the same queries"))
                .found(odd.map_or("no system".into(), |at| {
                    format!("other candidates or queries from system {at}")
                }))
                .fix("request all candidates from every system"));
        }
        let scaled = |system: &&[Ranking]| {
            let mut values = vec![0f32; queries * candidates];
            values.par_chunks_mut(candidates).zip(*system).for_each(|(values, ranking)| {
                let n = candidates as f64;
                let mean = ranking.scores.iter().map(|v| f64::from(*v)).sum::<f64>() / n;
                let square = |v: &f32| (f64::from(*v) - mean).powi(2);
                let deviation = (ranking.scores.iter().map(square).sum::<f64>() / n).sqrt();
                for (&item, &score) in ranking.items.iter().zip(&ranking.scores) {
                    let value = (f64::from(score) - mean) / deviation.max(1e-12);
                    values[item as usize] = value as f32;
                }
            });
            values
        };
        Ok(Self { queries, candidates, systems: systems.iter().map(scaled).collect() })
    }

    fn fuse(&self, query: usize, weights: &[f32], k: usize) -> Result<Ranking> {
        let mut sum = vec![0f32; self.candidates];
        for (system, &weight) in self.systems.iter().zip(weights) {
            let row = &system[query * self.candidates..(query + 1) * self.candidates];
            sum.iter_mut().zip(row).for_each(|(sum, v)| *sum += weight * v);
        }
        best(&sum, k)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranking(scores: &[f32]) -> Ranking {
        best(scores, scores.len()).unwrap()
    }

    /// One system knows the even queries, the other the odd ones, a third nothing.
    #[test]
    fn tuning_finds_who_knows_and_the_sum_is_better_than_each() {
        let n = 12;
        let noise = |q: usize, i: usize| ((q * 7 + i * 13) % 11) as f32 / 11.0;
        let system = |knows: &dyn Fn(usize) -> bool| -> Vec<Ranking> {
            let one = |q: usize| {
                let score = |i| if knows(q) && i == q { 5.0 } else { noise(q, i) };
                ranking(&(0..n).map(score).collect::<Vec<_>>())
            };
            (0..n).map(one).collect()
        };
        let (even, odd) = (system(&|q| q % 2 == 0), system(&|q| q % 2 == 1));
        let wrong: Vec<Ranking> = (0..n)
            .map(|q| {
                ranking(
                    &(0..n).map(|i| if i == (q + 1) % n { 9.0 } else { 0.0 }).collect::<Vec<_>>(),
                )
            })
            .collect();
        let systems = [even.as_slice(), odd.as_slice(), wrong.as_slice()];
        let relevant: Vec<Vec<u32>> = (0..n as u32).map(|q| vec![q]).collect();
        let tuned = ScoreFusion::tune(&systems, &relevant, n).unwrap();
        assert!(tuned.mrr_at_10 > 0.99, "{tuned:?}");
        assert_eq!(tuned.fusion.weights()[2], 0.0);
        let fused = tuned.fusion.search_all(&systems, n, 1).unwrap();
        assert!(fused.iter().enumerate().all(|(q, ranking)| ranking.items == [q as u32]));
    }

    #[test]
    fn systems_that_do_not_fit_are_refused() {
        let two = [ranking(&[1.0, 2.0])];
        let fusion = ScoreFusion::new(vec![1.0]).unwrap();
        assert!(fusion.search_all(&[&two], 3, 1).is_err());
        assert!(fusion.search_all(&[&two, &two], 2, 1).is_err());
        assert!(fusion.search_all(&[&two], 2, 1).is_ok());
        assert!(ScoreFusion::tune::<Vec<u32>>(&[&two], &[], 2).is_err());
        assert!(ScoreFusion::new(vec![]).is_err());
        assert!(ScoreFusion::new(vec![0.0, 0.0]).is_err());
        assert!(ScoreFusion::new(vec![f32::NAN]).is_err());
    }
}
