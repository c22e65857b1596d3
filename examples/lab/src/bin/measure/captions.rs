//! The audit of near duplicates, and captions of neighbours.

use std::time::Instant;

use anyhow::Result;
use cart_media::captioner::{CaptionJob, Captioner, RetrievalConfig};
use cart_retrieval::{
    cancel::Monitor,
    data::{ItemCaption, LeakAuditConfig},
    features::ItemIds,
};
use clap::Args;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use crate::{Common, inputs};

/// Texts whose words are as unequally frequent as those of captions: the word of rank r in
/// proportion to 1/r.
#[derive(Args, Clone)]
pub struct AuditArgs {
    /// Training texts.
    #[arg(long, default_value_t = 600_000)]
    texts: usize,
    /// Queries.
    #[arg(long, default_value_t = 5_000)]
    queries: usize,
    /// Size of the vocabulary to draw from.
    #[arg(long, default_value_t = 20_000)]
    words: usize,
    /// Minimum similarity of near duplicates.
    #[arg(long, default_value_t = 0.8)]
    threshold: f64,
}

/// Items to describe by their neighbours.
#[derive(Args, Clone)]
pub struct NeighboursArgs {
    /// Described items.
    #[arg(long, default_value_t = 30_000)]
    known: usize,
    /// Items to describe.
    #[arg(long, default_value_t = 5_000)]
    items: usize,
    /// Width of the features.
    #[arg(long, default_value_t = 1024)]
    width: usize,
    /// Neighbours.
    #[arg(long, default_value_t = 5)]
    k: usize,
}

/// Times one audit.
pub fn audit(args: &AuditArgs, common: &Common) -> Result<Value> {
    let mut rng = ChaCha8Rng::seed_from_u64(common.seed);
    let items = args.texts / 5 + 1;
    let mut text = |item: usize| {
        let length = rng.random_range(6..15);
        // The inverse of the distribution function of 1/r.
        let word = |u: f64| (args.words as f64).powf(u) as usize;
        let words: Vec<String> =
            (0..length).map(|_| format!("w{}", word(rng.random::<f64>()))).collect();
        ItemCaption { item: item as u32, text: words.join(" "), weight: 1.0 }
    };
    let train: Vec<ItemCaption> = (0..args.texts).map(|at| text(at / 5)).collect();
    let mut queries: Vec<ItemCaption> = (0..args.queries).map(|at| text(at % items)).collect();
    // Every tenth is a training text and a word.
    for (at, query) in queries.iter_mut().enumerate().step_by(10) {
        query.text = format!("{} w0", train[at * 97 % train.len()].text);
    }
    let ids = ItemIds::numbered(items);
    let config = LeakAuditConfig { threshold: args.threshold, ..Default::default() };
    let started = Instant::now();
    let found = config.run(&train, &queries, &ids)?;
    Ok(json!({
        "measure": "audit", "seconds": started.elapsed().as_secs_f64(), "near": found.near,
        "settings": { "texts": args.texts, "queries": args.queries, "words": args.words, "threshold": args.threshold },
    }))
}

/// Times the captions of neighbours.
pub fn neighbours(args: &NeighboursArgs, common: &Common) -> Result<Value> {
    let rows = args.known + args.items;
    let features = inputs::rows(None, rows, args.width, 256, common.seed)?;
    let training: Vec<ItemCaption> = (0..args.known as u32)
        .map(|item| ItemCaption { item, text: format!("text {item}"), weight: 1.0 })
        .collect();
    let ids: Vec<String> = (args.known..rows).map(|row| row.to_string()).collect();
    let job = CaptionJob::new(&ids)?.with_features(&features)?;
    let captioner =
        RetrievalConfig { k: args.k, ..Default::default() }.fit(&features, &training)?;
    let started = Instant::now();
    let made = captioner.caption(&job, &Monitor::new())?;
    let seconds = started.elapsed().as_secs_f64();
    Ok(json!({
        "measure": "neighbours", "seconds": seconds, "items_per_second": args.items as f64 / seconds,
        "captions": made.captions.len(),
        "settings": { "known": args.known, "items": args.items, "width": args.width, "k": args.k },
    }))
}
