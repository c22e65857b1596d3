//! The training loss: cross-entropy over the identifier plus the consistency of two dropouts.

use burn::tensor::{
    Bool, Int, Tensor,
    activation::{log_softmax, softmax},
    backend::Backend,
};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, ensure_in};

/// Logit of an illegal token: far below any other, and finite in half precision.
const ILLEGAL: f64 = -3e4;

/// Over which tokens probabilities are normalised, in the loss and in beam scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// Over all tokens of the level, legal or not (the paper).
    All,
    /// Over the children of the prefix in the trie only (ours): no capacity is spent on identifiers
    /// that do not exist, and a forced token costs nothing.
    #[default]
    Legal,
}

/// Settings of the loss.
///
/// `loss = cross-entropy + r_drop * KL`, with the KL taken symmetrically between two passes of
/// different dropout (R-Drop, Liang et al. 2021), both averaged over queries and levels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LossConfig {
    /// Tokens that probabilities are normalised over.
    pub scope: Scope,
    /// Weight omega of the consistency term; 0 saves the second pass.
    pub r_drop: f64,
    /// Share of the target spread evenly over the tokens in scope.
    pub label_smoothing: f64,
    /// Share of the target spread over neighbouring tokens: in proportion to the probabilities of a
    /// query that lies where the candidate does ([`AlignmentHead::neighbour_scores`]). It needs a
    /// network with an alignment (ours).
    ///
    /// [`AlignmentHead::neighbour_scores`]: crate::nn::AlignmentHead::neighbour_scores
    pub soft_targets: f64,
    /// Share of the rows, redrawn at every step, whose logits are not guided by the candidates'
    /// geometry. A decoder that is always guided learns little from captions that its encoder was
    /// tuned on. It needs a guided network (ours).
    pub guide_dropout: f64,
    /// What the geometry's scores are multiplied by while training. Where factors of the cosine are
    /// small, as suits a search, the geometry is less sure than it could be, and a decoder is paid
    /// for making it sure by whatever it can memorise; with the factor at which the geometry is
    /// right as often as it says, the decoder learns where it is wrong. Scores are then in
    /// proportion in a search whose [`BeamConfig::decoder_weight`] is one over this factor, as the
    /// validations of the training have it; a search takes the weight it is given. It needs a
    /// guided network (ours).
    ///
    /// [`BeamConfig::decoder_weight`]: crate::decode::BeamConfig::decoder_weight
    pub guide_factor: f64,
    /// Weight of the contrast (InfoNCE) between the queries of a batch and their candidates'
    /// vectors; it needs a network with an alignment (ours).
    pub alignment: f64,
    /// Weight of each level; empty means equal.
    pub level_weights: Vec<f64>,
}

impl Default for LossConfig {
    fn default() -> Self {
        Self {
            scope: Scope::Legal,
            r_drop: 1.0,
            label_smoothing: 0.1,
            soft_targets: 0.0,
            guide_dropout: 0.0,
            guide_factor: 1.0,
            alignment: 0.0,
            level_weights: vec![],
        }
    }
}

impl LossConfig {
    /// The decoder's weight in a search with what this loss trained: one over the guidance's
    /// factor.
    pub fn decoder_weight(&self) -> f32 {
        (1.0 / self.guide_factor) as f32
    }

    /// Checks ranges against the number of levels.
    ///
    /// # Errors
    /// [`Error::Config`] naming the setting that does not fit.
    pub fn validate(&self, levels: usize) -> Result<()> {
        ensure_in("r_drop", self.r_drop, "[0, inf)", "0 turns the consistency term off")?;
        ensure_in("alignment", self.alignment, "[0, inf)", "0 turns the contrast off")?;
        ensure_in("soft_targets", self.soft_targets, "[0, 1)", "0 turns soft targets off")?;
        ensure_in("label_smoothing", self.label_smoothing, "[0, 1)", "0.1 is usual")?;
        let both = self.soft_targets + self.label_smoothing;
        ensure_in("soft_targets and label_smoothing", both, "[0, 1)", "make one of them smaller")?;
        let remedy = "1 uses the geometry's scores as a search does";
        ensure_in("guide_factor", self.guide_factor, "[0.01, 100]", remedy)?;
        ensure_in("guide_dropout", self.guide_dropout, "[0, 1]", "0 guides every row")?;
        let weights = &self.level_weights;
        let usable = weights.iter().all(|w| *w >= 0.0 && w.is_finite());
        let positive = weights.is_empty() || weights.iter().sum::<f64>() > 0.0;
        let wrong = !(weights.is_empty() || weights.len() == levels) || !usable || !positive;
        Error::config("level_weights")
            .expected(format!("nothing, or {levels} weights of at least 0, not all 0"))
            .found(format!("{weights:?}"))
            .fix_if(wrong, "give one weight per level, the unique token's included")
    }
}

/// Targets of a batch, for [`LossConfig::forward_smoothed`].
#[derive(Debug, Clone)]
pub struct LossTargets<'a, B: Backend> {
    /// The targets' tokens, `[passes * batch, levels]`.
    pub identifiers: Tensor<B, 2, Int>,
    /// True where the token is a child of the target's prefix, per level `[passes * batch, size]`;
    /// not read where the scope is all tokens.
    pub legal: &'a [Tensor<B, 2, Bool>],
    /// Scores of tokens by how near they are to the target, per level `[passes * batch, size]`
    /// ([`AlignmentHead::neighbour_scores`](crate::nn::AlignmentHead::neighbour_scores)); `None`
    /// where no target has a choice, and empty without soft targets.
    pub neighbours: &'a [Option<Tensor<B, 2>>],
}

/// The loss of a batch.
#[derive(Debug, Clone)]
pub struct IdentifierLoss<B: Backend> {
    /// What to minimise, `[1]`.
    pub total: Tensor<B, 1>,
    /// Cross-entropy alone, `[1]`.
    pub cross_entropy: Tensor<B, 1>,
    /// Symmetric KL between the two passes, `[1]`; zero where there is one.
    pub consistency: Tensor<B, 1>,
}

impl LossConfig {
    /// The loss of teacher-forced logits.
    ///
    /// With `passes` of 2 the batch holds every query twice, second halves behind first halves,
    /// encoded with different dropout.
    ///
    /// # Shapes
    /// - `logits`: per level `[passes * batch, size]`
    /// - `identifiers`: `[passes * batch, levels]`
    /// - `legal`, true where the token is a child of the target's prefix, per level
    ///   `[passes * batch, size]`; not read where the scope is all tokens
    ///
    /// # Panics
    /// When shapes disagree.
    pub fn forward<B: Backend>(
        &self,
        logits: Vec<Tensor<B, 2>>,
        identifiers: Tensor<B, 2, Int>,
        legal: &[Tensor<B, 2, Bool>],
        passes: usize,
    ) -> IdentifierLoss<B> {
        let targets = LossTargets { identifiers, legal, neighbours: &[] };
        self.forward_smoothed(logits, targets, passes)
    }

    /// The same with neighbour-smoothed targets, for `soft_targets`.
    ///
    /// # Panics
    /// When shapes disagree.
    pub fn forward_smoothed<B: Backend>(
        &self,
        logits: Vec<Tensor<B, 2>>,
        targets: LossTargets<'_, B>,
        passes: usize,
    ) -> IdentifierLoss<B> {
        let LossTargets { identifiers, legal, neighbours } = targets;
        let [rows, levels] = identifiers.dims();
        let device = identifiers.device();
        let batch = rows / passes;
        let weights = if self.level_weights.is_empty() {
            vec![1.0; levels]
        } else {
            self.level_weights.clone()
        };
        let total_weight: f64 = weights.iter().sum();
        let mut cross_entropy = Tensor::<B, 1>::zeros([1], &device);
        let mut consistency = Tensor::<B, 1>::zeros([1], &device);
        for (level, logits) in logits.into_iter().enumerate() {
            let weight = weights[level] / total_weight;
            if weight == 0.0 {
                continue;
            }
            let legal = (self.scope == Scope::Legal).then(|| legal[level].clone());
            let masked = match &legal {
                Some(legal) => logits.mask_fill(legal.clone().bool_not(), ILLEGAL),
                None => logits,
            };
            let log_p = log_softmax(masked, 1);
            let target = identifiers.clone().narrow(1, level, 1);
            let mut nll = log_p.clone().gather(1, target).neg().mean();
            let scores = neighbours.get(level).and_then(Option::as_ref);
            if let Some(scores) = scores.filter(|_| self.soft_targets > 0.0) {
                // Scores of tokens that are no children mean nothing.
                let scores = match &legal {
                    Some(legal) => scores.clone().mask_fill(legal.clone().bool_not(), ILLEGAL),
                    None => scores.clone(),
                };
                let soft = (log_p.clone() * softmax(scores, 1)).sum_dim(1).neg().mean();
                nll = nll.mul_scalar(1.0 - self.soft_targets) + soft.mul_scalar(self.soft_targets);
            }
            if self.label_smoothing > 0.0 {
                let spread = match legal {
                    Some(legal) => {
                        let share = legal.float();
                        let share = share.clone() / share.sum_dim(1);
                        (log_p.clone() * share).sum_dim(1).neg().mean()
                    }
                    None => log_p.clone().mean().neg(),
                };
                nll = nll.mul_scalar(1.0 - self.label_smoothing)
                    + spread.mul_scalar(self.label_smoothing);
            }
            cross_entropy = cross_entropy + nll.mul_scalar(weight);
            if passes == 2 {
                let first = log_p.clone().narrow(0, 0, batch);
                let second = log_p.narrow(0, batch, batch);
                let kl = (first.clone().exp() - second.clone().exp()) * (first - second);
                consistency = consistency + kl.sum().mul_scalar(0.5 * weight / batch as f64);
            }
        }
        let total = match passes {
            2 => cross_entropy.clone() + consistency.clone().mul_scalar(self.r_drop),
            _ => cross_entropy.clone(),
        };
        IdentifierLoss { total, cross_entropy, consistency }
    }
}

#[cfg(test)]
mod tests {
    use approx::assert_abs_diff_eq;
    use burn::{backend::Flex, tensor::TensorData};

    use super::*;
    use crate::nn::WeightInit;

    type B = Flex;

    /// Logits per level, identifiers, legal tokens per level.
    type Fixture = (Vec<Tensor<B, 2>>, Vec<[u16; 2]>, Vec<Vec<bool>>);

    fn fixture() -> Fixture {
        let device = Default::default();
        let mut init = WeightInit::new(8);
        let logits = vec![
            init.normal::<B, 2>([4, 3], 1.0, &device).val(),
            init.normal::<B, 2>([4, 4], 1.0, &device).val(),
        ];
        let ids = vec![[0, 3], [2, 1], [0, 3], [2, 1]];
        let legal = vec![
            [true, false, true].repeat(4),
            [[true, false, false, true], [false, true, false, false]].concat().repeat(2),
        ];
        (logits, ids, legal)
    }

    fn tensors(
        ids: &[[u16; 2]],
        legal: &[Vec<bool>],
    ) -> (Tensor<B, 2, Int>, Vec<Tensor<B, 2, Bool>>) {
        let device = Default::default();
        let flat: Vec<i64> = ids.iter().flatten().map(|&t| i64::from(t)).collect();
        let masks = legal
            .iter()
            .map(|m| Tensor::from_data(TensorData::new(m.clone(), [4, m.len() / 4]), &device))
            .collect();
        (Tensor::from_data(TensorData::new(flat, [4, 2]), &device), masks)
    }

    /// Twin: the formula with loops, in f64.
    fn naive(
        config: &LossConfig,
        logits: &[Tensor<B, 2>],
        ids: &[[u16; 2]],
        legal: &[Vec<bool>],
    ) -> (f64, f64) {
        let (mut ce, mut kl) = (0.0, 0.0);
        for level in 0..2 {
            let weight = match config.level_weights.as_slice() {
                [] => 0.5,
                w => w[level] / w.iter().sum::<f64>(),
            };
            let values: Vec<f32> = logits[level].to_data().to_vec().unwrap();
            let size = values.len() / 4;
            let in_scope =
                |row: usize, t: usize| config.scope == Scope::All || legal[level][row * size + t];
            let log_p = |row: usize, t: usize| {
                let total: f64 = (0..size)
                    .filter(|&t| in_scope(row, t))
                    .map(|t| f64::from(values[row * size + t]).exp())
                    .sum();
                f64::from(values[row * size + t]) - total.ln()
            };
            for (row, id) in ids.iter().enumerate() {
                let scope: Vec<usize> = (0..size).filter(|&t| in_scope(row, t)).collect();
                let spread: f64 =
                    -scope.iter().map(|&t| log_p(row, t)).sum::<f64>() / scope.len() as f64;
                let nll = -log_p(row, usize::from(id[level]));
                let smoothing = config.label_smoothing;
                ce += weight / 4.0 * ((1.0 - smoothing) * nll + smoothing * spread);
                if row < 2 {
                    for &t in &scope {
                        let (a, b) = (log_p(row, t), log_p(row + 2, t));
                        kl += weight / 2.0 * 0.5 * (a.exp() * (a - b) + b.exp() * (b - a));
                    }
                }
            }
        }
        (ce, kl)
    }

    #[test]
    fn equals_the_formula_in_every_scope_with_smoothing_and_level_weights() {
        let (logits, ids, legal) = fixture();
        let (targets, masks) = tensors(&ids, &legal);
        for scope in [Scope::All, Scope::Legal] {
            for (label_smoothing, level_weights) in
                [(0.0, vec![]), (0.2, vec![]), (0.1, vec![3.0, 1.0]), (0.0, vec![0.0, 2.0])]
            {
                let config = LossConfig {
                    scope,
                    r_drop: 0.7,
                    label_smoothing,
                    level_weights,
                    soft_targets: 0.0,
                    guide_dropout: 0.0,
                    guide_factor: 1.0,
                    alignment: 0.0,
                };
                let loss = config.forward(logits.clone(), targets.clone(), &masks, 2);
                let (ce, kl) = naive(&config, &logits, &ids, &legal);
                let got = |t: Tensor<B, 1>| f64::from(t.into_scalar());
                assert_abs_diff_eq!(got(loss.cross_entropy), ce, epsilon = 1e-5);
                assert_abs_diff_eq!(got(loss.consistency), kl, epsilon = 1e-5);
                assert_abs_diff_eq!(got(loss.total), ce + 0.7 * kl, epsilon = 1e-5);
            }
        }
    }

    /// Half of the target goes to the neighbouring tokens.
    #[test]
    fn soft_targets_are_a_mean_of_two_cross_entropies() {
        let (logits, ids, legal) = fixture();
        let (targets, _) = tensors(&ids, &legal);
        let hard = LossConfig { r_drop: 0.0, label_smoothing: 0.0, ..LossConfig::default() };
        let soft = LossConfig { soft_targets: 0.5, ..hard.clone() };
        // Scores that leave one token, the other target's, all the mass.
        let others = [ids[1], ids[0], ids[1], ids[0]];
        let all = vec![vec![true; 12], vec![true; 16]];
        let (other_targets, open) = tensors(&others, &all);
        let neighbours: Vec<Option<Tensor<B, 2>>> = (0..2)
            .map(|level| {
                let size = logits[level].dims()[1];
                let values: Vec<f32> = others
                    .iter()
                    .flat_map(|id| {
                        (0..size).map(move |t| f32::from(u8::from(t == usize::from(id[level]))))
                    })
                    .map(|hit| hit * 1e3)
                    .collect();
                Some(Tensor::from_data(TensorData::new(values, [4, size]), &Default::default()))
            })
            .collect();
        let loss = |config: &LossConfig, targets: &Tensor<B, 2, Int>| {
            let loss = config.forward(logits.clone(), targets.clone(), &open, 1);
            loss.total.into_scalar()
        };
        let mean = (loss(&hard, &targets) + loss(&hard, &other_targets)) / 2.0;
        let identifiers = targets.clone();
        let smoothed = LossTargets { identifiers, legal: &open, neighbours: &neighbours };
        let got = soft.forward_smoothed(logits.clone(), smoothed, 1).total;
        assert_abs_diff_eq!(got.into_scalar(), mean, epsilon = 1e-5);
        // Without scores, or without a share, nothing changes.
        assert_eq!(loss(&soft, &targets), loss(&hard, &targets));
    }

    #[test]
    fn a_forced_token_costs_nothing_in_the_legal_scope() {
        let (logits, ids, _) = fixture();
        let only_targets: Vec<Vec<bool>> = (0..2)
            .map(|level| {
                let size = logits[level].dims()[1];
                ids.iter()
                    .flat_map(|id| (0..size).map(move |t| t == usize::from(id[level])))
                    .collect()
            })
            .collect();
        let (targets, masks) = tensors(&ids, &only_targets);
        let loss = LossConfig::default().forward(logits, targets, &masks, 1);
        assert_abs_diff_eq!(loss.total.into_scalar(), 0.0, epsilon = 1e-6);
    }

    #[test]
    fn settings_out_of_range_are_refused() {
        let good = LossConfig::default();
        assert!(good.validate(3).is_ok());
        for bad in [
            LossConfig { r_drop: -1.0, ..good.clone() },
            LossConfig { r_drop: f64::NAN, ..good.clone() },
            LossConfig { label_smoothing: 1.0, ..good.clone() },
            LossConfig { soft_targets: -0.1, ..good.clone() },
            LossConfig { soft_targets: 0.95, ..good.clone() },
            LossConfig { guide_dropout: 1.1, ..good.clone() },
            LossConfig { guide_dropout: f64::NAN, ..good.clone() },
            LossConfig { guide_factor: 0.0, ..good.clone() },
            LossConfig { guide_factor: f64::INFINITY, ..good.clone() },
            LossConfig { alignment: -1.0, ..good.clone() },
            LossConfig { level_weights: vec![1.0], ..good.clone() },
            LossConfig { level_weights: vec![0.0; 3], ..good.clone() },
            LossConfig { level_weights: vec![1.0, -1.0, 1.0], ..good },
        ] {
            assert!(bad.validate(3).is_err(), "{bad:?}");
        }
    }
}
