//! A training step.

use anyhow::{Result, ensure};
use burn::{module::Module, tensor::backend::AutodiffBackend};
use cart_retrieval::{
    expert::Stepper,
    model::{CartConfig, LossConfig, Scope},
    nn::FusionMode,
    train::{Freeze, Precision, TrainConfig},
};
use clap::Args;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use crate::{
    Common,
    inputs::{Candidates, candidates, token_rows, train_batch},
    report::{repeat, times},
};

/// Sizes of the network and its batches: by default a MiniLM-sized encoder with 4 decoder layers.
#[derive(Args, Clone)]
pub struct NetworkArgs {
    /// Queries in a batch.
    #[arg(long, default_value_t = 64)]
    pub batch: usize,
    /// Tokens of the longest query.
    #[arg(long, default_value_t = 32)]
    pub tokens: usize,
    /// Tokens of the shortest query; by default all queries have the same length.
    #[arg(long)]
    pub shortest: Option<usize>,
    /// Number of text tokens.
    #[arg(long, default_value_t = 30_522)]
    pub vocabulary: usize,
    /// Sizes of the identifier's levels, without the unique token's.
    #[arg(long, value_delimiter = ',', default_value = "32,64,64,64")]
    pub levels: Vec<usize>,
    /// Number of candidates.
    #[arg(long, default_value_t = 10_000)]
    pub candidates: usize,
    /// Width of the layers.
    #[arg(long, default_value_t = 384)]
    pub width: usize,
    /// Inner width of the feed-forward blocks; by default 4 times the width.
    #[arg(long)]
    pub inner: Option<usize>,
    /// Attention heads.
    #[arg(long, default_value_t = 6)]
    pub heads: usize,
    /// Encoder layers.
    #[arg(long, default_value_t = 6)]
    pub encoder_layers: usize,
    /// Decoder layers.
    #[arg(long, default_value_t = 4)]
    pub decoder_layers: usize,
    /// Which fusions are on: none, coarse, fine or both.
    #[arg(long, default_value = "both", value_parser = fusion_mode)]
    pub fusion: FusionMode,
    /// Dropout everywhere.
    #[arg(long, default_value_t = 0.1)]
    pub dropout: f64,
}

/// The network and how it is trained.
#[derive(Args, Clone)]
pub struct TrainStepArgs {
    #[command(flatten)]
    pub network: NetworkArgs,
    /// Weight of the R-Drop term; 0 skips the second forward pass.
    #[arg(long, default_value_t = 0.0)]
    pub r_drop: f64,
    /// Share of the target spread over the tokens in scope.
    #[arg(long, default_value_t = 0.1)]
    pub label_smoothing: f64,
    /// Normalise over all tokens of a level instead of the legal ones.
    #[arg(long)]
    pub all_tokens: bool,
    /// Size of a micro-batch; 0 means the whole batch.
    #[arg(long, default_value_t = 0)]
    pub micro_batch: usize,
    /// Frozen part of the encoder: nothing, words, encoder, or a number of layers.
    #[arg(long, default_value = "nothing", value_parser = freeze)]
    pub freeze: Freeze,
    /// Precision of matrix products: f32, bf16 or f16.
    #[arg(long, default_value = "f32", value_parser = precision)]
    pub precision: Precision,
    /// Recompute activations in the backward pass to save memory.
    #[arg(long)]
    pub checkpointing: bool,
    /// Learning rate, constant.
    #[arg(long, default_value_t = 1e-3)]
    pub rate: f64,
    /// Number of different batches, used in turn.
    #[arg(long, default_value_t = 4)]
    pub batches: usize,
}

fn fusion_mode(name: &str) -> Result<FusionMode, String> {
    serde_json::from_value(Value::from(name)).map_err(|e| e.to_string())
}

fn precision(name: &str) -> Result<Precision, String> {
    serde_json::from_value(Value::from(name)).map_err(|e| e.to_string())
}

fn freeze(name: &str) -> Result<Freeze, String> {
    match name.parse() {
        Ok(layers) => Ok(Freeze::Layers(layers)),
        Err(_) => serde_json::from_value(Value::from(name)).map_err(|e| e.to_string()),
    }
}

impl NetworkArgs {
    /// Identifiers, and the network over them.
    pub fn config(&self, seed: u64) -> Result<(Candidates, CartConfig)> {
        let candidates = candidates(self.candidates, &self.levels, seed)?;
        let inner = self.inner.unwrap_or(4 * self.width);
        let config = CartConfig::new(self.vocabulary, candidates.unique.vocabulary.clone())
            .with_width(self.width, inner, self.heads)
            .with_layers(self.encoder_layers, self.decoder_layers)
            .with_fusion(self.fusion)
            .with_dropout(self.dropout)
            .with_max_tokens(self.tokens)
            .with_seed(seed);
        Ok((candidates, config))
    }

    /// Random queries.
    pub fn rows(&self, rng: &mut ChaCha8Rng) -> Vec<Vec<u32>> {
        let shortest = self.shortest.unwrap_or(self.tokens);
        token_rows(self.batch, shortest, self.tokens, self.vocabulary, rng)
    }
}

impl TrainStepArgs {
    /// Settings of the training.
    pub fn train_config(&self) -> TrainConfig {
        TrainConfig {
            batch_size: self.network.batch,
            micro_batch: self.micro_batch,
            freeze: self.freeze,
            precision: self.precision,
            learning_rate: self.rate,
            warmup: 0.0,
            final_rate: 1.0,
            loss: LossConfig {
                scope: if self.all_tokens { Scope::All } else { Scope::Legal },
                r_drop: self.r_drop,
                label_smoothing: self.label_smoothing,
                ..LossConfig::default()
            },
            ..TrainConfig::default()
        }
    }
}

/// Times a step through burn-train's learner, with the trainer's optimizer.
pub fn train_step<B: AutodiffBackend>(
    args: &TrainStepArgs,
    common: &Common,
    device: &B::Device,
) -> Result<Value> {
    let network = &args.network;
    ensure!(args.batches > 0, "at least one batch is needed");
    let (candidates, config) = network.config(common.seed)?;
    let cart = config.init::<B>(device)?;
    let parameters = cart.num_params();
    let mut rng = ChaCha8Rng::seed_from_u64(common.seed);
    let batches = (0..args.batches)
        .map(|_| train_batch::<B>(&network.rows(&mut rng), &candidates, &mut rng, device))
        .collect::<Result<Vec<_>>>()?;
    let config = args.train_config();
    let steps = common.warmup + common.steps;
    let mut stepper = Stepper::new(cart, candidates.trie.clone(), &config, steps)?;
    let mut last = None;
    let seconds = repeat::<B>(common, device, |step| {
        let mut batch = batches[step % batches.len()].clone();
        batch.seed = batch.seed.wrapping_add(step as u64);
        B::seed(device, batch.seed);
        last = Some(stepper.step(batch));
        Ok(())
    })?;
    let loss = last.and_then(|output| output.loss().into_data().iter::<f64>().next());
    let mut line = times(&seconds, network.batch as f64);
    line.insert("measure".into(), json!("train-step"));
    line.insert("parameters".into(), json!(parameters));
    line.insert("loss".into(), json!(loss));
    line.insert(
        "settings".into(),
        json!({
            "batch": network.batch, "tokens": network.tokens, "r_drop": args.r_drop,
            "width": network.width, "encoder_layers": network.encoder_layers,
            "decoder_layers": network.decoder_layers, "heads": network.heads,
            "fusion": network.fusion, "dropout": network.dropout,
            "vocabulary": network.vocabulary, "micro_batch": args.micro_batch,
            "freeze": args.freeze, "precision": args.precision,
            "checkpointing": args.checkpointing,
            "levels": candidates.unique.vocabulary.sizes(),
        }),
    );
    Ok(Value::Object(line))
}
