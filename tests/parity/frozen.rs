//! Networks of which a part is not trained: what is tracked for the backward pass is a part of the
//! graph only, where some backends have given NaN or zeros (burn#5162).

use std::sync::Arc;

use burn::{
    module::AutodiffModule,
    tensor::{
        Tensor,
        backend::{AutodiffBackend, Backend},
    },
};
use cart_retrieval::{
    align::{EncoderTuning, TextSpaceConfig},
    cancel::StopFlag,
    expert::{
        GuideBatch, GuideSource, LeaveOneOut, LexicalHead, PrefixStats, QueryBatch,
        ScratchEncoderConfig, Stepper, TargetBatch, TrainBatch, TuningData, WeightInit,
    },
    model::Cart,
    nn::{AlignmentConfig, TextEncoder},
    prelude::*,
    train::Freeze,
};

use crate::{
    cases::{candidates, encoder_config, network, noise, padding, plain_loss, setup, tokens},
    outcome::Outcome,
};

/// Every kind of frozen part, with and without guidance by the candidates' vectors.
const PARTS: [(Freeze, bool); 7] = [
    (Freeze::Nothing, true),
    (Freeze::TokenEmbeddings, false),
    (Freeze::TokenEmbeddings, true),
    (Freeze::Layers(2), false),
    (Freeze::Layers(2), true),
    (Freeze::Encoder, false),
    (Freeze::Encoder, true),
];

/// A training with a frozen part, and the batch of its steps.
fn stepper<B: AutodiffBackend>(
    freeze: Freeze,
    guided: bool,
    device: &B::Device,
) -> (Stepper<B>, TrainBatch<B>) {
    let (identifiers, trie) = candidates();
    let items = [4, 17, 2];
    let queries = QueryBatch { tokens: tokens(device, 50), padding: padding(device) };
    let targets = TargetBatch::new(&items, &identifiers, &trie, device);
    let mut batch = TrainBatch::new(queries, targets, 1);
    let mut config = network(trie.vocabulary(), FusionMode::Both);
    // Pooled queries of width 24, and their words.
    let width = 48;
    if guided {
        config = config.with_alignment(AlignmentConfig {
            words: Some(0.5),
            scales: vec![0.5],
            ..AlignmentConfig::new(width)
        });
        let vectors = Features::from_rows(noise(60 * width, 21), width).unwrap();
        let geometry = PrefixStats::new(vectors, &trie).unwrap();
        let held_out = LeaveOneOut::new(width, noise(3 * width, 22)).unwrap();
        let texts: &[u32] = &[0, 1, 2];
        let held_out = Some((texts, &held_out));
        let source = GuideSource { identifiers: &identifiers, trie: &trie, geometry: &geometry };
        let guide = GuideBatch::new(&items, held_out, &source, device);
        batch.guide = Some(guide);
    }
    let mut cart: Cart<B> = config.init(device).unwrap();
    if guided {
        let factors: Vec<f32> = noise(50, 23).iter().map(|value| value.abs()).collect();
        cart = cart.with_lexical_head(LexicalHead::new(&factors, 0.5, device)).unwrap();
    }
    let loss = LossConfig { alignment: if guided { 0.5 } else { 0.0 }, ..plain_loss() };
    let config = TrainConfig { freeze, loss, ..TrainConfig::default() };
    (Stepper::new(cart, Arc::new(trie), &config, 10).unwrap(), batch)
}

pub fn gradients_with_frozen_parts<B: AutodiffBackend>(device: &B::Device) -> Outcome {
    let mut out = Outcome::default();
    for (freeze, guided) in PARTS {
        let (stepper, batch) = stepper::<B>(freeze, guided, device);
        let output = stepper.gradients(batch);
        out.tensor("loss", output.item.loss());
        out.exactly("gradients", [output.grads.len() as i64]);
        out.grads(&stepper.learner(), &output.grads);
    }
    out
}

pub fn steps_with_frozen_parts<B: AutodiffBackend>(device: &B::Device) -> Outcome {
    let mut out = Outcome::default();
    for (freeze, guided) in PARTS {
        let (mut stepper, batch) = stepper::<B>(freeze, guided, device);
        for step in 0..4 {
            out.tensor(&format!("loss {step}"), stepper.step(batch.clone()).loss());
        }
        out.parameters(&stepper.learner().into_cart());
    }
    // As in `optimizer_steps`.
    out.with_tolerance(2e-3)
}

/// An encoder that is tuned for the candidates: its table of words is constant.
pub fn tuned_encoder<B: AutodiffBackend>(device: &B::Device) -> Outcome {
    let mut out = Outcome::default();
    let setup = setup();
    let vocabulary = setup.tokenizer.vocabulary();
    let config = ScratchEncoderConfig { vocabulary, max_tokens: 32, ..encoder_config() };
    let encoder = TextEncoder::Scratch(config.init::<B>(&mut WeightInit::new(4), device));
    let tuning = EncoderTuning {
        epochs: 2,
        batch_size: 24,
        learning_rate: 1e-3,
        validation_share: 0.0,
        ..EncoderTuning::default()
    };
    let space = TextSpaceConfig { penalties: vec![1.0], ..TextSpaceConfig::default() };
    let data = TuningData {
        tokenizer: &setup.tokenizer,
        captions: &setup.captions,
        items: &setup.items,
        space: &space,
        idf_weights: None,
    };
    let before = encoder.valid();
    let tuned = tuning.fit(encoder, &data, &StopFlag::new(), device).unwrap();
    out.numbers("moved", [moved(&before, &tuned.encoder, device)]);
    out.parameters(&tuned.encoder);
    // See `optimizer_steps`: ten steps of up to 1e-3 each.
    out.with_tolerance(1e-2)
}

/// How far an encoder's vectors of some texts went.
fn moved<B: Backend>(a: &TextEncoder<B>, b: &TextEncoder<B>, device: &B::Device) -> f64 {
    let pooled = |encoder: &TextEncoder<B>| -> Tensor<B, 2> {
        encoder.forward(tokens(device, 50), padding(device)).pooled()
    };
    let change = (pooled(a) - pooled(b)).abs().sum().into_data();
    change.iter::<f64>().next().unwrap()
}
