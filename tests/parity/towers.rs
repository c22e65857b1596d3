//! The towers that media are embedded by, with weights from a seed.

use burn::tensor::backend::AutodiffBackend;
use cart_retrieval::expert::{Activation, WeightInit};
use cart_towers::{
    ClipVisionConfig, HtsatConfig, ImageBindAudioConfig, ImageBindConfig, ImageBindTextConfig,
    ImageBindVisionConfig,
};

use crate::{
    cases::{padding, random, tokens, weighed},
    outcome::Outcome,
};

/// Convolutions, shifted windows, an extra key: what no text encoder has.
pub fn media_towers<B: AutodiffBackend>(device: &B::Device) -> Outcome {
    let mut out = Outcome::default();
    let clip = ClipVisionConfig {
        image_size: 12,
        patch_size: 4,
        d_model: 16,
        d_ff: 24,
        n_heads: 2,
        n_layers: 2,
        activation: Activation::QuickGelu,
        norm_epsilon: 1e-5,
    }
    .init::<B>(&mut WeightInit::new(11), device);
    let pixels = || random::<B, 4>([2, 3, 12, 12], 30, device);
    out.tensor("clip", clip.forward(pixels()));
    out.gradients(&clip, weighed(clip.forward(pixels())));

    let htsat = HtsatConfig {
        mels: 8,
        side: 16,
        patch: 2,
        d_model: 8,
        depths: vec![2, 1],
        n_heads: vec![2, 4],
        window: 4,
        ff_ratio: 2,
        activation: Activation::Gelu,
        norm_epsilon: 1e-5,
    }
    .init::<B>(&mut WeightInit::new(12), device);
    // Fewer frames than it takes, so that they are stretched.
    let mel = || random::<B, 3>([2, 27, 8], 31, device);
    out.tensor("htsat", htsat.forward(mel()));
    out.gradients(&htsat, weighed(htsat.forward(mel())));

    let towers = ImageBindConfig {
        vision: ImageBindVisionConfig {
            image_size: 12,
            patch_size: 4,
            d_model: 16,
            n_heads: 2,
            n_layers: 2,
        },
        text: ImageBindTextConfig {
            vocabulary: 50,
            max_tokens: 8,
            d_model: 12,
            n_heads: 3,
            n_layers: 2,
        },
        audio: ImageBindAudioConfig {
            mels: 16,
            frames: 24,
            patch_size: 6,
            stride: 4,
            d_model: 8,
            n_heads: 2,
            n_layers: 2,
        },
        d_output: 10,
    }
    .init::<B>(&mut WeightInit::new(13), device);
    let frames = random::<B, 5>([2, 3, 2, 12, 12], 32, device);
    let embeddings = [
        ("pictures", towers.embed_pixels(pixels())),
        ("clips", towers.embed_frames(frames)),
        ("texts", towers.embed_tokens(tokens(device, 50), padding(device))),
        ("sounds", towers.embed_mel(random([2, 16, 24], 33, device))),
    ];
    for (name, embedding) in &embeddings {
        out.tensor(name, embedding.clone());
    }
    let losses = embeddings.into_iter().map(|(_, embedding)| weighed(embedding));
    out.gradients(&towers, losses.reduce(|a, b| a + b).unwrap());
    out
}
