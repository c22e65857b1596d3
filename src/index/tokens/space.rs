//! From token states of the text encoder to the rows that late interaction compares.

use nalgebra::{DMatrix, SymmetricEigen};

use super::{ItemTokens, merge::merged};
use crate::{
    error::{Error, Result},
    kernels::{Layout, dots, normalise},
};

/// Reduces token states of a text encoder: less their mean, onto their first principal components,
/// scaled to length 1. It also weighs tokens by IDF; those of weight 0 are left out.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenSpace {
    /// `[d_model]`
    pub(super) mean: Vec<f32>,
    /// `[dim, d_model]`
    pub(super) basis: Vec<f32>,
    /// `[vocabulary]`
    pub(super) weights: Vec<f32>,
}

/// The tokens of a text, reduced.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TextTokens {
    /// Rows of length 1, `[tokens, dim]`.
    pub rows: Vec<f32>,
    /// Their weights, which add up to 1, `[tokens]`.
    pub weights: Vec<f32>,
}

impl TokenSpace {
    /// Principal components of token states.
    ///
    /// # Shapes
    /// - `states`: `[tokens, d_model]`, of tokens with a weight
    /// - `dim`: numbers a token; at most `d_model` of them are kept
    /// - `weights`, of all tokens of the vocabulary, at least 0: `[vocabulary]`
    ///
    /// # Errors
    /// [`Error::Captions`] without states, or for some that are not finite.
    pub fn fit(states: &[f32], d_model: usize, dim: usize, weights: Vec<f32>) -> Result<Self> {
        let tokens = states.len().checked_div(d_model).unwrap_or(0);
        let finite = states.iter().all(|value| value.is_finite());
        Error::captions("token states of the texts")
            .expected(format!("rows of {d_model} finite numbers, at least one"))
            .found(format!(
                "{} numbers{}",
                states.len(),
                if finite { "" } else { ", not all finite" }
            ))
            .fix_if(
                tokens == 0 || !states.len().is_multiple_of(d_model) || !finite || dim == 0,
                "check the texts and the weights of the text encoder",
            )?;
        let mut mean = vec![0f64; d_model];
        for row in states.chunks_exact(d_model) {
            mean.iter_mut().zip(row).for_each(|(sum, &value)| *sum += f64::from(value));
        }
        let mean: Vec<f32> = mean.iter().map(|sum| (sum / tokens as f64) as f32).collect();
        let dim = dim.min(d_model);
        let basis = if dim == d_model {
            let one = |at: usize| if at / d_model == at % d_model { 1.0 } else { 0.0 };
            (0..d_model * d_model).map(one).collect()
        } else {
            components(states, &mean, dim)
        };
        Ok(Self { mean, basis, weights })
    }

    /// Numbers a token.
    pub fn dim(&self) -> usize {
        self.basis.len() / self.mean.len()
    }

    /// Width of the text encoder.
    pub fn d_model(&self) -> usize {
        self.mean.len()
    }

    /// The weight of a token; 0 for one outside the vocabulary.
    pub fn weight(&self, token: u32) -> f32 {
        self.weights.get(token as usize).copied().unwrap_or(0.0)
    }

    /// The tokens of a text.
    ///
    /// # Shapes
    /// - `states`: `[tokens, d_model]`
    ///
    /// # Panics
    /// When there is not one state a token.
    pub fn text(&self, tokens: &[u32], states: &[f32]) -> TextTokens {
        let (d_model, dim) = (self.d_model(), self.dim());
        assert_eq!(states.len(), tokens.len() * d_model, "a state for every token");
        let kept = tokens.iter().zip(states.chunks_exact(d_model));
        let kept: Vec<(f32, &[f32])> = kept
            .map(|(&token, state)| (self.weight(token), state))
            .filter(|(weight, state)| *weight > 0.0 && state.iter().all(|v| v.is_finite()))
            .collect();
        let less_mean = |state: &[f32]| -> Vec<f32> {
            state.iter().zip(&self.mean).map(|(value, mean)| value - mean).collect()
        };
        let left: Vec<f32> = kept.iter().flat_map(|(_, state)| less_mean(state)).collect();
        let mut rows = vec![0.0; kept.len() * dim];
        dots((kept.len(), dim, d_model), &left, &self.basis, Layout::Rows, &mut rows);
        rows.chunks_exact_mut(dim).for_each(normalise);
        let sum: f32 = kept.iter().map(|(weight, _)| weight).sum();
        TextTokens { rows, weights: kept.iter().map(|(weight, _)| weight / sum).collect() }
    }

    /// The tokens of a candidate from those of its texts, at most `most`.
    pub fn item<'a>(
        &self,
        texts: impl IntoIterator<Item = &'a TextTokens>,
        most: usize,
    ) -> ItemTokens {
        let rows: Vec<f32> = texts.into_iter().flat_map(|text| &text.rows).copied().collect();
        ItemTokens::new(&merged(&rows, self.dim(), most), self.dim())
    }
}

/// The first principal components, `[dim, d_model]`, the largest first.
fn components(states: &[f32], mean: &[f32], dim: usize) -> Vec<f32> {
    let d_model = mean.len();
    let mut covariance = vec![0f32; d_model * d_model];
    let columns: Vec<f32> = (0..d_model)
        .flat_map(|at| states.iter().skip(at).step_by(d_model).map(move |v| v - mean[at]))
        .collect();
    let tokens = states.len() / d_model;
    dots((d_model, d_model, tokens), &columns, &columns, Layout::Rows, &mut covariance);
    let covariance = covariance.iter().map(|&value| f64::from(value));
    let eigen = SymmetricEigen::new(DMatrix::from_iterator(d_model, d_model, covariance));
    let mut order: Vec<usize> = (0..d_model).collect();
    order.sort_by(|&a, &b| eigen.eigenvalues[b].total_cmp(&eigen.eigenvalues[a]).then(a.cmp(&b)));
    let component = |at: usize| {
        let vector = eigen.eigenvectors.column(at);
        // The sign of an eigenvector is arbitrary: the largest number is positive.
        let largest = vector.iter().fold(0f64, |top, &v| if v.abs() > top.abs() { v } else { top });
        let sign = if largest < 0.0 { -1.0 } else { 1.0 };
        vector.iter().map(|v| (sign * v) as f32).collect::<Vec<f32>>()
    };
    order[..dim].iter().flat_map(|&at| component(at)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directions_of_most_variance_are_kept() {
        let states: Vec<f32> = (0..200usize)
            .flat_map(|i| {
                let wave = |step: f32| (i as f32 * step).sin();
                [5.0 + 9.0 * wave(0.7), 1.0 + 3.0 * wave(1.3), 2.0 + 0.1 * wave(2.1)]
            })
            .collect();
        let space = TokenSpace::fit(&states, 3, 2, vec![1.0; 4]).unwrap();
        assert_eq!((space.dim(), space.d_model()), (2, 3));
        assert!(space.basis[0] > 0.99 && space.basis[4].abs() > 0.99, "{:?}", space.basis);
        // All of them: only the mean goes.
        let whole = TokenSpace::fit(&states, 3, 8, vec![1.0; 4]).unwrap();
        assert_eq!(whole.dim(), 3);
        let text = whole.text(&[1], &[whole.mean[0] + 2.0, whole.mean[1], whole.mean[2]]);
        assert_eq!(text.rows, [1.0, 0.0, 0.0]);
    }

    #[test]
    fn tokens_without_weight_are_left_out_and_weights_add_up_to_one() {
        let states = [1.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0, 0.0];
        let space = TokenSpace::fit(&states, 2, 2, vec![0.0, 3.0, 1.0]).unwrap();
        let text = space.text(&[0, 1, 2, 9], &states);
        assert_eq!(text.weights, [0.75, 0.25]);
        assert_eq!(text.rows.len(), 4);
        assert_eq!(space.text(&[0, 9], &states[..4]), TextTokens::default());
        assert!(space.item([&TextTokens::default()], 4).is_empty());
        for bad in
            [TokenSpace::fit(&[], 2, 2, vec![]), TokenSpace::fit(&[f32::NAN; 2], 2, 2, vec![])]
        {
            assert!(bad.unwrap_err().to_string().contains("finite"));
        }
    }
}
