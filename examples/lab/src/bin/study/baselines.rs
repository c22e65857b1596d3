//! Baselines on the text of a task, each tuned on the recipe's tuning captions.

use std::time::Instant;

use anyhow::{Context, Result};
use burn::backend::Autodiff;
use cart_baselines::{
    Bm25, Bm25Config, Bm25Grid, DualTowerConfig, MaxSim, NearestText, ScoreFusion, TextPool,
    TfIdfRidge, TfIdfRidgeConfig, TowerData, TowerStart,
};
use cart_retrieval::{
    align::LateInteractionConfig,
    backend::LocalBackend,
    cancel::StopFlag,
    eval::Ranking,
    expert::{Asked, TextSide, TextVectors},
    pretrained::PretrainedText,
    recipe::{Fit, Judge, Recipe, Task},
};
use clap::ValueEnum;

/// What to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Row {
    /// The recipe's index.
    Cart,
    /// BM25 over the training texts of the candidates (not for unseen candidates).
    Bm25,
    /// The nearest of those texts, by the untouched sentence encoder (not for unseen candidates).
    NearestText,
    /// The mean of those texts (not for unseen candidates).
    MeanText,
    /// Ridge regression from tf-idf to the features.
    Ridge,
    /// A dual tower around the recipe's text encoder.
    DualTower,
    /// A flat search over the vectors of the recipe's space, by its text encoder, tuned as the
    /// recipe says.
    Flat,
    /// The other baselines of this list, fused.
    Fusion,
}

/// Rankings of all candidates by one system, for both parts.
pub struct System {
    pub name: String,
    pub test: Vec<Ranking>,
    pub tuning: Vec<Ranking>,
    pub seconds: f64,
}

pub struct Baselines<'a, B: LocalBackend> {
    pub recipe: &'a Recipe,
    pub text: &'a TextSide<B>,
    pub test: &'a Task,
    pub tuning: &'a Task,
    /// Passes of the dual tower to choose from, on the tuning part.
    pub epochs: Vec<usize>,
    /// Whether the tuning part of a dual tower is needed, by a fusion.
    pub fused: bool,
    pub device: &'a B::Device,
    pub stop: StopFlag,
}

impl<B: LocalBackend> Baselines<'_, B> {
    /// Both parts of a row; nothing for a row that reads texts that unseen candidates do not have.
    pub fn system(&self, row: Row) -> Result<Option<System>> {
        let started = Instant::now();
        let needs_texts = matches!(row, Row::Bm25 | Row::NearestText | Row::MeanText);
        if needs_texts && self.test.asked == Asked::Unseen {
            return Ok(None);
        }
        let (name, tuning, test) = match row {
            Row::Bm25 => self.bm25()?,
            Row::NearestText => self.nearest("nearest text", TextPool::Nearest)?,
            Row::MeanText => self.nearest("mean text", TextPool::Mean)?,
            Row::Ridge => self.ridge()?,
            Row::DualTower => self.tower()?,
            Row::Flat => self.flat()?,
            Row::Cart | Row::Fusion => return Ok(None),
        };
        let seconds = started.elapsed().as_secs_f64();
        Ok(Some(System { name, test, tuning, seconds }))
    }

    /// A system with MaxSim of token states added, the weight chosen on the tuning part.
    pub fn with_max_sim(&self, system: &System) -> Result<Option<System>> {
        let started = Instant::now();
        let mut parts = Vec::new();
        for task in [self.tuning, self.test] {
            let config = LateInteractionConfig::default();
            let texts = task.texts();
            let captions = (texts.as_slice(), task.candidates.len());
            let fitted = self.text.token_states(&config, captions, &self.stop, self.device)?;
            let Some(fitted) = fitted else { return Ok(None) };
            let queries = Judge::new(task).texts;
            let queries: Vec<&str> = queries.iter().map(String::as_str).collect();
            let tokens = self.text.query_tokens(&fitted.states, &queries, self.device)?;
            parts.push((MaxSim::new(fitted.states), tokens));
        }
        let (test, test_tokens) = parts.pop().context("two parts")?;
        let (tuning, tuning_tokens) = parts.pop().context("two parts")?;
        let judge = Judge::new(self.tuning);
        let tuned = tuning.tune(&system.tuning, &tuning_tokens, &judge.relevant)?;
        let weight = tuned.weight();
        Ok(Some(System {
            name: format!("{} + MaxSim ({weight})", system.name),
            test: test.with_weight(weight).rerank(&system.test, &test_tokens)?,
            tuning: tuned.rerank(&system.tuning, &tuning_tokens)?,
            seconds: system.seconds + started.elapsed().as_secs_f64(),
        }))
    }

    /// The vectors of the recipe's space, searched one by one.
    fn flat(&self) -> Result<(String, Vec<Ranking>, Vec<Ranking>)> {
        let answer = |task: &Task| -> Result<Vec<Ranking>> {
            let fit = Fit::new(self.recipe, task).with_stop(&self.stop);
            let tuned = fit.tuned(self.text, self.device)?;
            let text = tuned.as_ref().unwrap_or(self.text);
            let words = text.idf_weights(self.recipe, &task.train)?;
            let fitted = fit.space(text, words.as_ref(), self.device)?;
            let space = fitted.context("a flat search needs a [space] in the recipe")?;
            let vectors = match &task.asked {
                Asked::All => space.vectors,
                Asked::Part(rows) => space.vectors.select(rows),
                Asked::Unseen => space.space.embed(&task.candidates, None)?,
            };
            let (n, dim) = (task.candidates.len(), vectors.dim());
            let items = (0..n as u32).collect();
            let vectors = TextVectors::new(dim, vectors.as_slice().to_vec(), items)?;
            let queries = text.embed(&task.queries, words.as_ref(), self.device)?;
            Ok(NearestText::new(&vectors, n, TextPool::Nearest)?.search_all(&queries, n)?)
        };
        Ok(("flat search".into(), answer(self.tuning)?, answer(self.test)?))
    }

    /// The given systems, weighted on the tuning part.
    pub fn fusion(&self, systems: &[System]) -> Result<System> {
        let started = Instant::now();
        let judge = Judge::new(self.tuning);
        let tuning: Vec<&[Ranking]> = systems.iter().map(|s| s.tuning.as_slice()).collect();
        let test: Vec<&[Ranking]> = systems.iter().map(|s| s.test.as_slice()).collect();
        let n = self.tuning.candidates.len();
        let tuned = ScoreFusion::tune(&tuning, &judge.relevant, n)?;
        let weights: Vec<String> = systems
            .iter()
            .zip(tuned.fusion.weights())
            .map(|(system, weight)| format!("{} {weight}", system.name))
            .collect();
        println!("fusion: {}; tuning MRR@10 {:.3}", weights.join(", "), tuned.mrr_at_10);
        let n = self.test.candidates.len();
        Ok(System {
            name: "score fusion".into(),
            test: tuned.fusion.search_all(&test, n, n)?,
            tuning: vec![],
            seconds: started.elapsed().as_secs_f64(),
        })
    }

    fn bm25(&self) -> Result<(String, Vec<Ranking>, Vec<Ranking>)> {
        let fit = |task: &Task, config: &Bm25Config| -> Result<Bm25> {
            let texts = task.texts();
            let documents: Vec<(u32, &str)> =
                texts.iter().map(|caption| (caption.item, caption.text.as_str())).collect();
            Ok(Bm25::fit(&documents, task.candidates.len(), config)?)
        };
        let judge = Judge::new(self.tuning);
        let bm25 = fit(self.tuning, &Bm25Config::default())?;
        let tuned = bm25.tune(&judge.texts, &judge.relevant, &Bm25Grid::default())?;
        let answer = |task: &Task| -> Result<Vec<Ranking>> {
            let texts = Judge::new(task).texts;
            Ok(fit(task, &tuned.config)?.search_all(&texts, task.candidates.len()))
        };
        let name = format!("BM25 (k1 {}, b {})", tuned.config.k1, tuned.config.b);
        Ok((name, answer(self.tuning)?, answer(self.test)?))
    }

    fn nearest(&self, name: &str, pool: TextPool) -> Result<(String, Vec<Ranking>, Vec<Ranking>)> {
        let answer = |task: &Task| -> Result<Vec<Ranking>> {
            let texts = self.text.embed(&task.texts(), None, self.device)?;
            let queries = self.text.embed(&task.queries, None, self.device)?;
            let search = NearestText::new(&texts, task.candidates.len(), pool)?;
            Ok(search.search_all(&queries, task.candidates.len())?)
        };
        Ok((name.into(), answer(self.tuning)?, answer(self.test)?))
    }

    fn ridge(&self) -> Result<(String, Vec<Ranking>, Vec<Ranking>)> {
        let fit = |task: &Task, penalty: f64| -> Result<TfIdfRidge> {
            let config = TfIdfRidgeConfig { penalty, ..Default::default() };
            Ok(config.fit(&task.train, &task.items)?.over(&task.candidates))
        };
        let answer = |task: &Task, penalty: f64| -> Result<Vec<Ranking>> {
            let texts = Judge::new(task).texts;
            Ok(fit(task, penalty)?.search_all(&texts, task.candidates.len())?)
        };
        let judge = Judge::new(self.tuning);
        let mut best: Option<(f64, f64, Vec<Ranking>)> = None;
        for penalty in [0.1, 0.3, 1.0, 3.0] {
            let rankings = answer(self.tuning, penalty)?;
            let mrr = mrr(&judge, &rankings)?;
            if best.as_ref().is_none_or(|(most, ..)| mrr > *most) {
                best = Some((mrr, penalty, rankings));
            }
        }
        let (_, penalty, tuning) = best.context("there are penalties to try")?;
        let name = format!("tf-idf ridge (penalty {penalty})");
        Ok((name, tuning, answer(self.test, penalty)?))
    }

    fn tower(&self) -> Result<(String, Vec<Ranking>, Vec<Ranking>)> {
        let training = &self.recipe.training;
        let pretrained = self
            .text
            .pretrained
            .as_ref()
            .context("the dual tower of a study needs a pretrained text encoder")?;
        let answer = |task: &Task, epochs: usize| -> Result<Vec<Ranking>> {
            let (encoder, tokenizer, _) =
                PretrainedText::load::<Autodiff<B>>(pretrained, self.device)?;
            let config = DualTowerConfig {
                epochs,
                projection: encoder.d_model(),
                batch_size: training.batch_size,
                learning_rate: 1e-3,
                encoder_lr: 0.05,
                weight_decay: training.weight_decay,
                seed: self.recipe.seed,
                ..DualTowerConfig::new(pretrained.config().clone())
            };
            let start = TowerStart::encoder::<B>(encoder.freeze_token_embeddings());
            let data =
                TowerData { tokenizer: &tokenizer, captions: &task.train, items: &task.items };
            let tower = config.fit(start, &data, &self.stop)?;
            let texts = Judge::new(task).texts;
            Ok(tower.over(&task.candidates)?.search_all(&texts, task.candidates.len())?)
        };
        let (mut best, mut most, mut tuning) = (self.epochs[0], -1.0, Vec::new());
        if self.fused || self.epochs.len() > 1 {
            let judge = Judge::new(self.tuning);
            for &epochs in &self.epochs {
                let rankings = answer(self.tuning, epochs)?;
                let mrr = mrr(&judge, &rankings)?;
                println!("dual tower, {epochs} passes: tuning MRR@10 {mrr:.4}");
                if mrr > most {
                    (best, most, tuning) = (epochs, mrr, rankings);
                }
            }
        }
        Ok((format!("dual tower ({best} passes)"), tuning, answer(self.test, best)?))
    }
}

/// MRR@10.
fn mrr(judge: &Judge, rankings: &[Ranking]) -> Result<f64> {
    Ok(judge.figures(rankings)?.0.mrr_at_10)
}
