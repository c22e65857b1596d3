//! Settings held against the bytes of their weights, before anything of these sizes is made.

use serde::Serialize;
use serde_json::Value;

use crate::error::{Error, Result};

/// Refuses settings that describe more parameters than a file of weights has bytes for, or a size that no tensor of it can
/// have: a network of the sizes of a damaged file would fill the memory before its tensors are missed.
///
/// `parameters` counts those of the settings as a sum of products of at most four sizes; it is asked only once such sums
/// fit their type.
///
/// # Errors
/// [`Error::Model`] naming the settings.
pub(crate) fn ensure_held(
    subject: &str,
    settings: &impl Serialize,
    parameters: impl FnOnce() -> usize,
    bytes: usize,
) -> Result<()> {
    let problem = |found: String| {
        Err(Error::model(
            subject,
            format!("sizes of weights in {bytes} bytes"),
            found,
            "take settings and weights of one model; the file is damaged, or another one",
        ))
    };
    let mut sizes = Vec::new();
    match serde_json::to_value(settings) {
        Ok(settings) => gather(&settings, &mut sizes),
        Err(_) => sizes.push(u64::MAX),
    }
    sizes.sort_unstable_by(|a, b| b.cmp(a));
    sizes.truncate(4);
    if let Some(largest) = sizes.first().filter(|&&largest| largest > bytes as u64) {
        return problem(format!("a size of {largest}"));
    }
    let product = sizes.iter().try_fold(64u64, |product, &size| product.checked_mul(size.max(1)));
    if product.is_none() {
        return problem(format!("sizes of {sizes:?}"));
    }
    let parameters = parameters();
    // Two bytes are the least that a parameter takes.
    if parameters > bytes / 2 {
        return problem(format!("{parameters} parameters"));
    }
    Ok(())
}

/// The whole numbers among settings, seeds apart.
fn gather(settings: &Value, sizes: &mut Vec<u64>) {
    match settings {
        Value::Number(number) => sizes.extend(number.as_u64()),
        Value::Array(values) => values.iter().for_each(|value| gather(value, sizes)),
        Value::Object(entries) => {
            let entries = entries.iter().filter(|(name, _)| *name != "seed");
            entries.for_each(|(_, value)| gather(value, sizes));
        }
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{identifier::Vocabulary, model::CartConfig};

    #[test]
    fn sizes_that_the_file_cannot_hold_are_refused_before_they_are_multiplied() {
        let config = CartConfig::new(9, Vocabulary::new(vec![3, 2]).unwrap())
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
        let error = ensure_held("model", &round, never, 1 << 27).unwrap_err().to_string();
        assert!(error.contains("sizes of [67108864, 4096,"), "{error}");
    }
}
