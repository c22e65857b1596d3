//! Twins of the steps on the CPU.

use burn::{
    backend::Flex,
    nn::Linear,
    tensor::{Int, Tensor},
};

use super::*;
use crate::{
    identifier::LevelSizes,
    nn::{DecoderConfig, EncoderOutput, FusionMode, WeightInit},
};

type B = Flex;

fn decoder(fusion: FusionMode, query_start: bool) -> Decoder<B> {
    let config = DecoderConfig {
        vocabulary: LevelSizes::new(vec![4, 5, 3]).unwrap(),
        d_model: 40,
        d_context: 24,
        d_ff: 50,
        n_heads: 2,
        n_layers: 2,
        experts: 3,
        fusion,
        dropout: 0.1,
        query_start,
    };
    let mut made: Decoder<B> = config.init(&mut WeightInit::new(1), &Default::default());
    // Not zeros: as after some training.
    let weight = WeightInit::new(9).normal([24, 40], 0.5, &Default::default());
    made.query_start = made.query_start.map(|map| Linear { weight, ..map });
    made
}

/// Three queries, the second padded.
fn encoded() -> EncoderOutput<B> {
    let device = Default::default();
    let mut hidden = vec![0.0f32; 3 * 18];
    hidden[18 + 5..18 + 18].fill(-3e4);
    EncoderOutput {
        layers: (0..3)
            .map(|layer| WeightInit::new(layer).normal([3, 18, 24], 1.0, &device).val())
            .collect(),
        bias: Tensor::<B, 1>::from_floats(hidden.as_slice(), &device).reshape([3, 1, 1, 18]),
        pooling: Default::default(),
    }
}

/// Twin: the decoder itself, with beams of equal number and caches that are copied.
#[test]
fn steps_give_what_the_steps_of_the_decoder_give() {
    let device = Default::default();
    let modes = [FusionMode::None, FusionMode::Coarse, FusionMode::Fine, FusionMode::Both];
    for (fusion, query_start) in modes.into_iter().flat_map(|mode| [(mode, false), (mode, true)]) {
        let (decoder, encoded) = (decoder(fusion, query_start), encoded());
        let memory = decoder.memory(&encoded);
        let cpu = CpuDecoder::new(&decoder, false);
        let memories = cpu.memories(&encoded);
        let (mut state, mut own) = (decoder.start(), cpu.start());
        let near = |found: Vec<f32>, expected: Tensor<B, 2>| {
            let expected = values(expected);
            assert_eq!(found.len(), expected.len());
            for (found, expected) in found.iter().zip(&expected) {
                approx::assert_abs_diff_eq!(found, expected, epsilon = 2e-5);
            }
        };
        let found = cpu.step(&[1, 1, 1], &[], &[], &memories, &mut own, false);
        near(found, decoder.step(3, None, &memory, &mut state));
        for (tokens, parents) in [
            ([1u16, 0, 2, 2, 3, 1], [0u32, 0, 1, 1, 2, 2]),
            ([4, 4, 0, 1, 2, 3], [1, 0, 2, 2, 5, 4]),
        ] {
            let found = cpu.step(&[2, 2, 2], &tokens, &parents, &memories, &mut own, false);
            state.reorder(&Tensor::from_ints(parents.map(i64::from), &device));
            let tokens = Tensor::<B, 1, Int>::from_ints(tokens.map(i64::from), &device);
            near(found, decoder.step(3, Some(tokens), &memory, &mut state));
        }
    }
}

/// Beams of a query get the same bits whatever else is decoded with them.
#[test]
fn a_query_is_the_same_to_the_last_bit_in_any_company() {
    let (decoder, encoded) = (decoder(FusionMode::Both, true), encoded());
    let cpu = CpuDecoder::new(&decoder, false);
    let memories = cpu.memories(&encoded);
    let mut together = cpu.start();
    let first = cpu.step(&[1, 1, 1], &[], &[], &memories, &mut together, true);
    let second = cpu.step(&[0, 3, 1], &[1, 0, 2, 2], &[1, 1, 1, 2], &memories, &mut together, true);
    let mut alone = cpu.start();
    let own = std::slice::from_ref(&memories[1]);
    assert_eq!(first[4..8], cpu.step(&[1], &[], &[], own, &mut alone, false));
    assert_eq!(second[..15], cpu.step(&[3], &[1, 0, 2], &[0; 3], own, &mut alone, false));
}
