//! Resident memory over a long training.

use std::sync::{Arc, Mutex};

use anyhow::{Result, ensure};
use burn::{module::Module, tensor::backend::AutodiffBackend};
use cart_retrieval::{
    data::{ItemCaption, TextTokenizer, TokenizerConfig},
    features::Features,
    model::{CartConfig, LossConfig},
    quantizer::{CoarseToFineConfig, RqKMeansConfig},
    train::{TrainConfig, TrainEvent, Trainer, TrainingCaptions, TrainingData},
};
use clap::Args;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use crate::{Common, inputs::rows, report::resident};

/// A long training.
#[derive(Args, Clone)]
pub struct MemoryArgs {
    /// Steps of the training.
    #[arg(long, default_value_t = 10_000)]
    train_steps: usize,
    /// Steps between two measurements of memory.
    #[arg(long, default_value_t = 250)]
    every: usize,
    /// Number of captions.
    #[arg(long, default_value_t = 512)]
    captions: usize,
    /// Captions in a batch.
    #[arg(long, default_value_t = 16)]
    batch: usize,
    /// Width of the layers.
    #[arg(long, default_value_t = 32)]
    width: usize,
    /// Weight of the R-Drop term.
    #[arg(long, default_value_t = 1.0)]
    r_drop: f64,
}

/// Trains a small network with the trainer, validation included, and looks at the memory.
///
/// Growth is the least memory of the last quarter over the least of the second: the first holds
/// what is allocated once, and a single look can hit a validation.
pub fn memory<B: AutodiffBackend>(
    args: &MemoryArgs,
    common: &Common,
    device: &B::Device,
) -> Result<Value> {
    ensure!(args.every > 0 && args.batch > 0, "--every and --batch must be at least 1");
    let mut rng = ChaCha8Rng::seed_from_u64(common.seed);
    let items: Features = rows(None, 256, 16, 16, common.seed)?;
    let quantizer = CoarseToFineConfig::new(8, RqKMeansConfig::new(vec![8, 8]))
        .fit::<B::InnerBackend>(&items, device)?;
    let index = quantizer.assign(&items).run()?;
    let captions: Vec<ItemCaption> = (0..args.captions)
        .map(|row| {
            let words = rng.random_range(3..12);
            let text: Vec<String> =
                (0..words).map(|_| format!("w{}", rng.random_range(0..200))).collect();
            ItemCaption { item: (row % items.len()) as u32, text: text.join(" "), weight: 1.0 }
        })
        .collect();
    let texts = captions.iter().map(|caption| caption.text.as_str());
    let tokenizer = TextTokenizer::train(texts, &TokenizerConfig::default(), 32)?;
    let config = CartConfig::new(tokenizer.vocabulary(), index.vocabulary().clone())
        .with_width(args.width, 2 * args.width, 2)
        .with_max_tokens(tokenizer.max_tokens());
    let cart = config.init::<B>(device)?;
    let parameters = cart.num_params();
    let data = TrainingData::new(
        &tokenizer,
        TrainingCaptions { train: &captions, valid: &captions[..captions.len().min(32)] },
        &index,
    )?;
    let train = TrainConfig {
        epochs: args.train_steps.div_ceil((args.captions / args.batch).max(1)),
        batch_size: args.batch,
        learning_rate: 1e-4,
        loss: LossConfig { r_drop: args.r_drop, ..LossConfig::default() },
        seed: common.seed,
        ..TrainConfig::default()
    };
    let samples: Arc<Mutex<Vec<(usize, f64)>>> = Arc::default();
    let (seen, every) = (samples.clone(), args.every);
    let trained = Trainer::new(train)
        .with_progress(move |event| {
            if let TrainEvent::Step { step, .. } = event
                && step % every == 0
                && let Some(mib) = resident()
            {
                seen.lock().unwrap_or_else(|e| e.into_inner()).push((step, mib));
            }
        })
        .fit(cart, &data, device)?;
    let samples = samples.lock().unwrap_or_else(|e| e.into_inner()).clone();
    let least = |part: &[(usize, f64)]| part.iter().map(|s| s.1).fold(f64::INFINITY, f64::min);
    let quarter = samples.len() / 4;
    let growth = (quarter > 0).then(|| {
        least(&samples[samples.len() - quarter..]) - least(&samples[quarter..2 * quarter])
    });
    Ok(json!({
        "measure": "memory",
        "parameters": parameters,
        "train_steps": samples.last().map(|sample| sample.0),
        "seconds": trained.seconds,
        "growth_mib": growth,
        "samples": samples,
        "settings": {
            "batch": args.batch, "width": args.width, "captions": args.captions,
            "r_drop": args.r_drop,
        },
    }))
}
