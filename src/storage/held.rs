//! Settings held against the bytes of their weights, before anything of these sizes is made.

use serde::Serialize;
use serde_json::Value;

use crate::error::{Error, Result};

/// Refuses settings that describe more parameters than a file of weights has bytes for, or a size
/// that no tensor of it can have: a network of the sizes of a damaged file would fill the memory
/// before its tensors are missed.
///
/// `parameters` counts those of the settings, as with [`count`]; it is asked only once every size
/// is modest.
///
/// # Errors
/// [`Error::Model`] naming the settings.
pub fn ensure_held(
    subject: &str,
    settings: &impl Serialize,
    parameters: impl FnOnce() -> usize,
    bytes: usize,
) -> Result<()> {
    let problem = |found: String| {
        Err(Error::model(subject).expected(format!("sizes of weights in {bytes} bytes")).found(found).fix("use settings and weights of one model; the file may be damaged or belong to another \
             model"))
    };
    let settings = serde_json::to_value(settings);
    let largest = settings.map_or(u64::MAX, |settings| largest(&settings));
    if largest > bytes as u64 {
        return problem(format!("a size of {largest}"));
    }
    let parameters = parameters();
    // Two bytes are the least that a parameter takes.
    if parameters > bytes / 2 {
        return problem(format!("{parameters} parameters"));
    }
    Ok(())
}

/// The largest whole number among settings, seeds apart.
fn largest(settings: &Value) -> u64 {
    match settings {
        Value::Number(number) => number.as_u64().unwrap_or(0),
        Value::Array(values) => values.iter().map(largest).max().unwrap_or(0),
        Value::Object(entries) => {
            let sizes = entries.iter().filter(|(name, _)| *name != "seed");
            sizes.map(|(_, value)| largest(value)).max().unwrap_or(0)
        }
        Value::Null | Value::Bool(_) | Value::String(_) => 0,
    }
}

/// A sum of products, or the largest number where it is larger.
pub fn count(products: &[&[usize]]) -> usize {
    let product =
        |factors: &&[usize]| factors.iter().fold(1, |all: usize, &f| all.saturating_mul(f));
    products.iter().map(product).fold(0, usize::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{identifier::LevelSizes, model::CartConfig};

    #[test]
    fn sizes_that_the_file_cannot_hold_are_refused_before_they_are_multiplied() {
        let config = CartConfig::new(9, LevelSizes::new(vec![3, 2]).unwrap())
            .with_width(8, 8, 2)
            .with_seed(u64::MAX);
        let parameters = config.num_params().total();
        let held = |config: &CartConfig, bytes: usize| {
            ensure_held("model", config, || config.num_params().total(), bytes)
        };
        held(&config, 2 * parameters).unwrap();
        let error = held(&config, 2 * parameters - 2).unwrap_err().to_string();
        assert!(error.contains(&format!("found {parameters} parameters")), "{error}");
        let vast = CartConfig { d_ff: usize::MAX, ..config.clone() };
        let never = || unreachable!("such sizes overflow");
        let error = ensure_held("model", &vast, never, 1 << 20).unwrap_err().to_string();
        assert!(error.contains(&format!("a size of {}", usize::MAX)), "{error}");
        // 4 * 2^26 * 2^26 * 2^12 is 0 in 64 bits.
        let round = CartConfig { encoder_layers: 1 << 12, ..config.with_width(1 << 26, 8, 2) };
        let parameters = || round.num_params().total();
        let error = ensure_held("model", &round, parameters, 1 << 27).unwrap_err().to_string();
        assert!(error.contains(&format!("found {} parameters", usize::MAX)), "{error}");
    }

    /// A table of words for a hundred languages, and levels as wide as tokens can be.
    #[test]
    fn large_networks_are_held_by_their_files() {
        let vocabulary = LevelSizes::new(vec![1 << 15; 4]).unwrap();
        let config = CartConfig::new(250_002, vocabulary).with_width(768, 3072, 12);
        let parameters = config.num_params().total();
        ensure_held("model", &config, || parameters, 4 * parameters).unwrap();
        assert!((3e8..5e8).contains(&(parameters as f64)), "{parameters}");
    }
}
