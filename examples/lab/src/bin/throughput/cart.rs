//! CART's rows.

use std::time::Instant;

use anyhow::Result;
use burn::tensor::backend::Backend;
use cart_retrieval::{decode::BeamConfig, expert::Trie, identifier::LevelSizes, model::Scope};

use crate::{Row, Setting, inputs, percentile, repeat};

/// Unique tokens that the network has.
pub const UNIQUE: usize = 16;

/// A trie of `n` random identifiers.
fn trie<B: Backend>(setting: &Setting<'_, B>, n: usize, vocabulary: &LevelSizes) -> Result<Trie> {
    let cli = setting.cli;
    let codes = inputs::codes(n, &cli.levels, cli.seed)?;
    let started = Instant::now();
    let trie = Trie::build(&codes.identifiers, &codes.vocabulary)?.within(vocabulary)?;
    eprintln!(
        "trie of {n} identifiers: built in {:.3} s, {:.1} bytes a candidate",
        started.elapsed().as_secs_f64(),
        trie.memory() as f64 / n as f64
    );
    Ok(trie)
}

/// Rows of every beam and batch.
pub fn rows<B: Backend>(
    setting: &Setting<'_, B>,
    n: usize,
    vocabulary: &LevelSizes,
) -> Result<Vec<Row>> {
    let Setting { cli, engine, texts } = setting;
    let trie = trie(setting, n, vocabulary)?;
    let mut rows = Vec::new();
    let scopes = [(Scope::Legal, "CART"), (Scope::All, "CART, every level decoded")];
    for (scope, name) in scopes.into_iter().take(if cli.all_levels { 2 } else { 1 }) {
        for &width in &cli.beams {
            let beam = BeamConfig { width, scope, ..BeamConfig::default() };
            for &batch in &cli.batches {
                let mut shares = Vec::new();
                let times = repeat(cli.seconds, |number| {
                    let batch = texts.batch(number, batch);
                    let (_, spent) = engine.search_timed(&batch, 0, &trie, &beam)?;
                    let encoding = spent.encoding.as_secs_f64();
                    let all = encoding + (spent.decoding + spent.constraint).as_secs_f64();
                    shares.push(encoding / all);
                    Ok(())
                })?;
                let method = format!("{name}, beam {width}");
                let row = Row::new(&method, n, batch, trie.memory(), &times);
                rows.push(Row { encoder_share: percentile(&shares, 0.5), ..row });
            }
        }
    }
    Ok(rows)
}
