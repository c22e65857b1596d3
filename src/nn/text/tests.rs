//! What holds for the encoders of all families.

use burn::{
    backend::Flex,
    tensor::{TensorData, Tolerance},
};

use super::*;
use crate::nn::{Activation, WeightInit};

fn scratch() -> ScratchEncoderConfig {
    ScratchEncoderConfig {
        vocabulary: 20,
        max_tokens: 8,
        d_model: 12,
        d_ff: 16,
        n_heads: 3,
        n_layers: 3,
        dropout: 0.1,
    }
}

fn bert() -> BertConfig {
    BertConfig {
        vocabulary: 20,
        positions: 8,
        first_position: 0,
        token_types: 2,
        d_model: 12,
        d_ff: 16,
        n_heads: 3,
        n_layers: 3,
        activation: Activation::Gelu,
        norm_epsilon: 1e-12,
        dropout: 0.1,
        attention_dropout: 0.1,
        pooling: Pooling::Mean,
    }
}

fn t5() -> T5Config {
    T5Config {
        vocabulary: 20,
        max_tokens: 8,
        d_model: 12,
        d_kv: 5,
        d_ff: 16,
        n_heads: 3,
        n_layers: 3,
        buckets: 8,
        max_distance: 4,
        activation: Activation::GeluTanh,
        gated: true,
        norm_epsilon: 1e-6,
        dropout: 0.1,
        pooling: Pooling::Mean,
    }
}

fn clip() -> ClipTextConfig {
    ClipTextConfig {
        vocabulary: 20,
        max_tokens: 8,
        d_model: 12,
        d_ff: 16,
        n_heads: 3,
        n_layers: 3,
        activation: Activation::QuickGelu,
        norm_epsilon: 1e-5,
        dropout: 0.0,
        attention_dropout: 0.0,
        pooling: Pooling::Last,
    }
}

/// One configuration of every family.
pub(crate) fn families() -> Vec<TextEncoderConfig> {
    vec![
        scratch().into(),
        bert().into(),
        BertConfig {
            positions: 10,
            first_position: 2,
            token_types: 0,
            pooling: Pooling::First,
            ..bert()
        }
        .into(),
        t5().into(),
        T5Config { gated: false, activation: Activation::Relu, ..t5() }.into(),
        clip().into(),
    ]
}

fn batch(rows: &[(&[i64], usize)]) -> (Tensor<Flex, 2, Int>, Tensor<Flex, 2, Bool>) {
    let width = rows.iter().map(|(row, pad)| row.len() + pad).max().unwrap();
    let mut tokens = Vec::new();
    let mut padding = Vec::new();
    for (row, _) in rows {
        for at in 0..width {
            tokens.push(row.get(at).copied().unwrap_or(0));
            padding.push(at >= row.len());
        }
    }
    let (shape, device) = ([rows.len(), width], Default::default());
    (
        Tensor::from_data(TensorData::new(tokens, shape), &device),
        Tensor::from_data(TensorData::new(padding, shape), &device),
    )
}

fn init(config: &TextEncoderConfig) -> TextEncoder<Flex> {
    config.init(&mut WeightInit::new(5), &Default::default())
}

#[test]
fn padding_changes_nothing_in_any_layer() {
    for config in families() {
        let encoder = init(&config);
        let (tokens, padding) = batch(&[(&[1, 2, 3], 0)]);
        let alone = encoder.forward(tokens, padding);
        let (tokens, padding) = batch(&[(&[1, 2, 3], 3), (&[4, 5, 6, 7, 8, 9], 0)]);
        let padded = encoder.forward(tokens, padding);
        assert_eq!(alone.layers.len(), 3);
        let tolerance = Tolerance::absolute(1e-5);
        for (a, b) in alone.layers.iter().zip(&padded.layers) {
            let found = b.clone().slice([0..1, 0..3]).into_data();
            found.assert_approx_eq::<f32>(&a.to_data(), tolerance);
        }
        let found = padded.pooled().narrow(0, 0, 1).into_data();
        found.assert_approx_eq::<f32>(&alone.pooled().into_data(), tolerance);
    }
}

#[test]
fn a_prefix_and_the_rest_give_the_whole() {
    for config in families() {
        let encoder = init(&config);
        let (tokens, padding) = batch(&[(&[1, 2, 3], 2), (&[4, 5, 6, 7, 8], 0)]);
        let whole = encoder.forward(tokens.clone(), padding.clone());
        for layers in 0..=3 {
            let prefix = encoder.prefix(layers, tokens.clone(), padding.clone());
            assert_eq!(prefix.layers.len(), layers);
            let joined = encoder.finish(prefix, padding.clone());
            for (a, b) in whole.layers.iter().zip(&joined.layers) {
                assert_eq!(a.to_data(), b.to_data());
            }
        }
    }
}

#[test]
fn configurations_count_parameters_and_survive_being_written_down() {
    for config in families() {
        let encoder = init(&config);
        assert_eq!(encoder.num_params(), config.num_params());
        assert_eq!(
            (encoder.vocabulary(), encoder.d_model(), encoder.n_layers(), encoder.n_heads()),
            (config.vocabulary(), config.d_model(), config.n_layers(), config.n_heads())
        );
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<TextEncoderConfig>(&text).unwrap(), config);
        assert!(config.clone().with_dropout(0.0).validate().is_ok());
        for bad in [1.0, f64::NAN] {
            assert!(config.clone().with_dropout(bad).validate().is_err());
        }
    }
    let untagged = serde_json::to_string(&scratch()).unwrap();
    assert_eq!(serde_json::from_str::<TextEncoderConfig>(&untagged).unwrap(), scratch().into());
    let unknown = untagged.replacen('{', "{\"family\": \"rnn\",", 1);
    let error = serde_json::from_str::<TextEncoderConfig>(&unknown).unwrap_err();
    assert!(error.to_string().contains("rnn"), "{error}");
}

#[test]
fn impossible_shapes_are_refused() {
    for bad in [
        TextEncoderConfig::from(ScratchEncoderConfig { n_heads: 5, ..scratch() }),
        ScratchEncoderConfig { n_layers: 0, ..scratch() }.into(),
        BertConfig { n_heads: 5, ..bert() }.into(),
        BertConfig { first_position: 8, ..bert() }.into(),
        BertConfig { vocabulary: 0, ..bert() }.into(),
        T5Config { buckets: 3, ..t5() }.into(),
        T5Config { max_distance: 2, ..t5() }.into(),
        T5Config { norm_epsilon: 0.0, ..t5() }.into(),
        ClipTextConfig { n_heads: 5, ..clip() }.into(),
    ] {
        assert!(bad.validate().is_err(), "{bad:?}");
    }
}
