//! Queries through the text encoder and the constrained beam search.

use std::time::Instant;

use anyhow::{Result, ensure};
use burn::tensor::backend::Backend;
use cart_retrieval::{
    decode::{BeamConfig, SearchPrecision},
    expert::{Engine, SearchTimes},
};
use clap::Args;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use crate::{
    Common,
    inputs::token_rows,
    report::{median, repeat, times},
    train::NetworkArgs,
};

/// Queries.
#[derive(Args, Clone)]
pub struct QueriesArgs {
    #[command(flatten)]
    network: NetworkArgs,
    /// Beam width.
    #[arg(long, default_value_t = 20)]
    beam: usize,
    /// Precision of the decoder: f32, or bf16 on processors with bf16 products.
    #[arg(long, default_value_t = SearchPrecision::F32)]
    precision: SearchPrecision,
}

/// Times batches of queries from tokens to answers.
pub fn queries<B: Backend>(
    args: &QueriesArgs,
    common: &Common,
    device: &B::Device,
) -> Result<Value> {
    let network = &args.network;
    ensure!(network.batch > 0, "at least one query is needed");
    let started = Instant::now();
    let (candidates, config) = network.config(common.seed)?;
    let identifiers_seconds = started.elapsed().as_secs_f64();
    let engine = Engine::new(config.init::<B>(device)?);
    let engine = engine.with_precision(args.precision)?;
    let beam = BeamConfig { width: args.beam, ..BeamConfig::default() };
    let mut rng = ChaCha8Rng::seed_from_u64(common.seed);
    let shortest = network.shortest.unwrap_or(network.tokens);
    let (mut found, mut times_spent) = (0, Vec::new());
    let repetitions = common.warmup + common.steps;
    let texts: Vec<Vec<Vec<u32>>> = (0..repetitions)
        .map(|_| token_rows(network.batch, shortest, network.tokens, network.vocabulary, &mut rng))
        .collect();
    let seconds = repeat::<B>(common, device, |repetition| {
        let (answers, spent) =
            engine.search_timed(&texts[repetition], 0, &candidates.trie, &beam)?;
        times_spent.push(spent);
        found = answers.iter().map(Vec::len).sum();
        Ok(())
    })?;
    let mut line = times(&seconds, network.batch as f64);
    line.insert("measure".into(), json!("queries"));
    line.insert("answers".into(), json!(found));
    let middle = |of: fn(&SearchTimes) -> f64| {
        median(&times_spent.iter().skip(common.warmup).map(of).collect::<Vec<_>>())
    };
    line.insert("constraint_share".into(), json!(middle(SearchTimes::constraint_share)));
    line.insert("encoding_seconds".into(), json!(middle(|times| times.encoding.as_secs_f64())));
    line.insert("decoding_seconds".into(), json!(middle(|times| times.decoding.as_secs_f64())));
    line.insert("identifiers_seconds".into(), json!(identifiers_seconds));
    line.insert("trie_mib".into(), json!(candidates.trie.memory() as f64 / 1048576.0));
    line.insert(
        "settings".into(),
        json!({
            "candidates": network.candidates, "beam": args.beam, "batch": network.batch,
            "tokens": network.tokens, "width": network.width,
            "encoder_layers": network.encoder_layers, "decoder_layers": network.decoder_layers,
            "fusion": network.fusion, "precision": args.precision, "levels": candidates.unique.vocabulary.sizes(),
        }),
    );
    Ok(Value::Object(line))
}
