//! From a recipe and a folder to a searchable index: what `train` and `study` share.

use std::{path::Path, time::Instant};

use anyhow::{Context, Result, bail};
use burn::{backend::Autodiff, module::AutodiffModule};
use cart_retrieval::{
    align::{FittedSpace, Ridge, SpaceTuning, TextVectors, TunedEncoder, WordWeights, embed_texts},
    backend::LocalBackend,
    data::{DataFolder, LeakAudit},
    decode::{Filter, Filters},
    eval::Ranking,
    model::Cart,
    nn::{AlignmentConfig, TextEncoder},
    prelude::*,
    pretrained::PretrainedText,
    train::{StopFlag, StopReason, TrainEvent},
};

use super::{
    progress,
    recipe::{AlignmentRecipe, Part, Recipe},
};

/// What to train on, what to find, and what to ask.
pub struct Task {
    /// Candidates of the training.
    pub items: Features,
    pub train: Vec<ItemCaption>,
    pub valid: Vec<ItemCaption>,
    /// Candidates to find.
    pub candidates: Features,
    pub queries: Vec<ItemCaption>,
    /// Where those candidates are in the training.
    pub asked: Asked,
    /// Queries among the training texts.
    pub leaks: LeakAudit,
}

/// The candidates to find, as the training knows them.
#[derive(Debug, Clone, PartialEq)]
pub enum Asked {
    /// All of the training's.
    All,
    /// Those rows of the training's: a split of which captioners know something.
    Part(Vec<usize>),
    /// None of them.
    Unseen,
}

impl Task {
    /// Reads `data`, which was opened from `folder`, as a recipe says.
    ///
    /// With splits, the train split is trained on with its captions, and queries are those of the asked split, whose items are
    /// the candidates. They belong to the training only where captioners have described items
    /// (`generated`); then with those captions alone.
    pub fn new(recipe: &Recipe, folder: &Path, data: &DataFolder, part: Part) -> Result<Self> {
        let (train, queries) = recipe.filters(part)?;
        let (train, queries) = (data.select(train)?, data.select(queries)?);
        let mut generated = Vec::new();
        for file in &recipe.generated {
            let captions = data.generated(folder.join(file)).with_context(|| {
                format!(
                    "captions of a captioner, which the recipe names: the example `caption` writes them, and \
                     without `generated` in the recipe there are none ({})",
                    file.display()
                )
            })?;
            generated.extend(captions);
        }
        let valid = match (&recipe.validation, part) {
            (Some(filter), Part::Test) => {
                data.select(filter).context("the recipe's [validation]")?
            }
            _ => Vec::new(),
        };
        let audit = |train: &[ItemCaption], queries: &[ItemCaption]| {
            recipe.audit.run(train, queries, data.items.ids())
        };
        let Some(splits) = &recipe.splits else {
            let items = data.items.clone();
            let train = [train, generated].concat();
            return Ok(Self {
                leaks: audit(&train, &queries)?,
                candidates: items.clone(),
                items,
                train,
                valid,
                queries,
                asked: Asked::All,
            });
        };
        let Some(of) = &data.splits else {
            bail!("the recipe names splits, and the data has no splits.json");
        };
        let rows = |name: &str| -> Result<Vec<usize>> {
            let rows = of.indices(name, |id| data.items.index_of(id))?;
            Ok(rows.into_iter().map(|row| row as usize).collect())
        };
        let mut known = rows(&splits.train)?;
        let asked = match part {
            Part::Test => &splits.test,
            Part::Tuning => {
                splits.tuning.as_ref().context("the recipe's [splits] name no tuning split")?
            }
        };
        let asked = rows(asked)?;
        // Texts of the other splits are nobody's business, those of captioners excepted.
        let mut train = of_rows(&train, &known, data.items.len());
        let queries = of_rows(&queries, &asked, data.items.len());
        let place = match generated.is_empty() {
            true => Asked::Unseen,
            false => {
                let first = known.len();
                known.extend(&asked);
                train.extend(of_rows(&generated, &known, data.items.len()));
                Asked::Part((first..known.len()).collect())
            }
        };
        Ok(Self {
            leaks: audit(&train, &queries)?,
            items: data.items.select(&known),
            train: within(&train, &known, data.items.len()),
            valid: within(&valid, &known, data.items.len()),
            candidates: data.items.select(&asked),
            queries: within(&queries, &asked, data.items.len()),
            asked: place,
        })
    }

    /// Prints how many queries the training texts give away, and refuses what the recipe refuses.
    pub fn check_leaks(&self, recipe: &Recipe) -> Result<()> {
        println!("{}", self.leaks);
        let found = self.leaks.ensure(&recipe.audit).context("the recipe's [audit]")?;
        for warning in found {
            eprintln!("audit: {warning}");
        }
        Ok(())
    }

    /// Training texts of the candidates, by their places among them.
    pub fn texts(&self) -> Vec<ItemCaption> {
        match &self.asked {
            Asked::All => self.train.clone(),
            Asked::Part(rows) => within(&self.train, rows, self.items.len()),
            Asked::Unseen => Vec::new(),
        }
    }

    /// How the candidates are known, in a word.
    pub fn known(&self) -> &'static str {
        match self.asked {
            Asked::All => "seen",
            Asked::Part(_) => "described",
            Asked::Unseen => "unseen",
        }
    }

    /// The index of the training over the candidates, where they are none of the training's.
    pub fn over<B: LocalBackend>(&self, retriever: Retriever<B>) -> Result<Retriever<B>> {
        match self.asked {
            Asked::All | Asked::Part(_) => Ok(retriever),
            Asked::Unseen => over(retriever, &self.candidates),
        }
    }

    /// Candidates that answer some texts, among those of an index made by [`Task::over`].
    pub fn rankings<B: LocalBackend>(
        &self,
        retriever: &Retriever<B>,
        texts: &[impl AsRef<str>],
        top: usize,
    ) -> Result<Vec<Ranking>> {
        let search = retriever.search_all(texts).top(top.min(self.candidates.len()));
        let Asked::Part(rows) = &self.asked else {
            return Ok(search.rankings()?);
        };
        let mut place = vec![None; self.items.len()];
        for (at, &row) in rows.iter().enumerate() {
            place[row] = Some(at as u32);
        }
        let trie = retriever.index().trie();
        let filter = Filter::by_item(trie, |item| place[item as usize].is_some());
        let mut found = search.filters(Filters::Same(&filter)).rankings()?;
        for item in found.iter_mut().flat_map(|ranking| &mut ranking.items) {
            *item = place[*item as usize].context("an answer that the filter does not allow")?;
        }
        Ok(found)
    }

    /// The items of the index that are some of the candidates.
    pub fn of_index(&self, candidates: &[u32]) -> Vec<u32> {
        match &self.asked {
            Asked::Part(rows) => candidates.iter().map(|&at| rows[at as usize] as u32).collect(),
            Asked::All | Asked::Unseen => candidates.to_vec(),
        }
    }
}

/// The captions of some rows.
fn of_rows(captions: &[ItemCaption], rows: &[usize], of: usize) -> Vec<ItemCaption> {
    let mut wanted = vec![false; of];
    rows.iter().for_each(|&row| wanted[row] = true);
    captions.iter().filter(|caption| wanted[caption.item as usize]).cloned().collect()
}

/// The captions of some rows, with the places of those rows in the list.
fn within(captions: &[ItemCaption], rows: &[usize], of: usize) -> Vec<ItemCaption> {
    let mut place = vec![None; of];
    for (at, &row) in rows.iter().enumerate() {
        place[row] = Some(at as u32);
    }
    let renumbered = |caption: &ItemCaption| {
        place[caption.item as usize].map(|item| ItemCaption { item, ..caption.clone() })
    };
    captions.iter().filter_map(renumbered).collect()
}

/// The text side: a tokenizer, and an encoder with weights where there is a pretrained one.
pub struct Text<B: LocalBackend> {
    pub tokenizer: TextTokenizer,
    pub pretrained: Option<(PretrainedText, TextEncoder<B>)>,
    /// What maps features to the encoder's space, where it was tuned with the encoder.
    pub map: Option<Ridge>,
}

impl<B: LocalBackend> Text<B> {
    pub fn new(recipe: &Recipe, train: &[ItemCaption], device: &B::Device) -> Result<Self> {
        let Some(pretrained) = recipe.pretrained()? else {
            return Ok(Self { tokenizer: recipe.tokenizer(train)?, pretrained: None, map: None });
        };
        let (encoder, tokenizer, report) = pretrained.load::<B>(device)?;
        println!("{} encoder, {report}", encoder.family());
        Ok(Self { tokenizer, pretrained: Some((pretrained, encoder)), map: None })
    }

    /// Vectors of captions by the encoder, and by their words where those count.
    pub fn embed(
        &self,
        captions: &[ItemCaption],
        words: Option<&WordWeights>,
        device: &B::Device,
    ) -> Result<TextVectors> {
        let Some((_, encoder)) = &self.pretrained else {
            bail!("the recipe's [space] needs a pretrained text encoder: give --encoder FOLDER");
        };
        Ok(embed_texts(encoder, words, &self.tokenizer, captions, device)?)
    }

    /// How much words count, where the recipe says that they do.
    pub fn words(&self, recipe: &Recipe, train: &[ItemCaption]) -> Result<Option<WordWeights>> {
        let weight = recipe.alignment.as_ref().and_then(|alignment| alignment.words);
        let (Some(weight), Some((_, encoder))) = (weight, &self.pretrained) else {
            return Ok(None);
        };
        Ok(Some(WordWeights::fit(encoder, &self.tokenizer, train, weight)?))
    }
}

/// The space of the candidates, where the recipe asks for one.
pub fn space<B: LocalBackend>(
    recipe: &Recipe,
    task: &Task,
    text: &Text<B>,
    words: Option<&WordWeights>,
    device: &B::Device,
) -> Result<Option<FittedSpace>> {
    let Some(config) = &recipe.space else {
        return Ok(None);
    };
    let texts = text.embed(&task.train, words, device)?;
    let started = Instant::now();
    let mut config = config.clone();
    config.seed = recipe.seed;
    let fitted = config.fit_beside(text.map.as_ref(), &task.items, &texts)?;
    println!(
        "space of width {} in {:.0} s, gamma {}, penalty {}, held-out MRR {:.3}",
        fitted.space.dim(),
        started.elapsed().as_secs_f64(),
        fitted.gamma,
        fitted.penalty,
        fitted.held_out_mrr
    );
    Ok(Some(fitted))
}

/// How an index is trained.
pub struct Run<'a, B: LocalBackend> {
    pub recipe: &'a Recipe,
    pub task: &'a Task,
    pub text: &'a Text<B>,
    /// Trains even on identifiers that the health check refuses.
    pub ignore_health: bool,
    /// Keeps checkpoints here.
    pub folder: Option<&'a Path>,
    pub resume: bool,
    pub dashboard: bool,
    pub devices: Vec<B::Device>,
    pub stop: StopFlag,
}

/// A trained index and what it took.
pub struct Done<B: LocalBackend> {
    pub retriever: Retriever<B>,
    /// Seconds of training the network.
    pub seconds: f64,
    /// Seconds in all.
    pub total: f64,
}

impl<B: LocalBackend> Run<'_, B> {
    pub fn run(self) -> Result<Done<B>> {
        let started = Instant::now();
        let (recipe, task, text) = (self.recipe, self.task, self.text);
        let device = &self.devices[0];
        let tuned = self.tuned()?;
        let text = tuned.as_ref().unwrap_or(text);
        let words = text.words(recipe, &task.train)?;
        let words = words.as_ref();
        let fitted = space(recipe, task, text, words, device)?;
        let rows = fitted.as_ref().map_or(&task.items, |fitted| &fitted.vectors);
        let quantizer = recipe.quantizer().fit_with_progress::<Autodiff<B>>(
            rows,
            device,
            &mut progress::quantizer(self.stop.clone()),
        )?;
        let mut index = quantizer.assign(rows)?.with_unique_capacity(recipe.unique_capacity)?;
        println!("{}", index.health());
        match index.ensure_healthy(&recipe.health) {
            Err(error) if self.ignore_health => eprintln!("going on all the same: {error}"),
            result => result?,
        }
        if recipe.alignment.is_some() {
            index = index.with_vectors(rows.clone())?;
        }
        let pretrained = text.pretrained.as_ref().map(|(pretrained, _)| pretrained);
        let mut config = recipe.model(&text.tokenizer, &index, pretrained);
        if let Some(alignment) = &recipe.alignment {
            let dim = rows.dim();
            let AlignmentRecipe { scales, guided, learn_scales, learn_map, words } =
                alignment.clone();
            config = config.with_alignment(AlignmentConfig {
                dim,
                scales,
                guided,
                learn_scales,
                learn_map,
                words,
            });
        }
        println!("{}", config.num_params());
        let mut pairs = TrainingData::new(&text.tokenizer, &task.train, &task.valid, &index)?;
        if let Some(fitted) = fitted.as_ref().filter(|_| recipe.alignment.is_some()) {
            pairs = pairs.with_held_out(fitted.held_out.clone())?;
        }
        let network = match &text.pretrained {
            Some((_, encoder)) => {
                config.init_around(TextEncoder::from_inner(encoder.clone()), device)?
            }
            None => config.init::<Autodiff<B>>(device)?,
        };
        let network = match words {
            Some(words) => network.with_words(words.view(device))?,
            None => network,
        };
        let (model, seconds) = match recipe.training().epochs {
            0 => (network.valid(), 0.0),
            _ => self.trained(network, &pairs)?,
        };
        let tokenizer = text.tokenizer.clone();
        let retriever = Retriever::new(model, config, tokenizer, quantizer, index, device.clone())?
            .with_beam(recipe.beam.clone());
        let retriever = match fitted {
            Some(fitted) => retriever.with_space(fitted.space),
            None => retriever,
        };
        let total = started.elapsed().as_secs_f64();
        Ok(Done { retriever, seconds, total })
    }
}

impl<B: LocalBackend> Run<'_, B> {
    /// The network after its training, and the seconds of it.
    fn trained(&self, network: Cart<Autodiff<B>>, pairs: &TrainingData) -> Result<(Cart<B>, f64)> {
        let (listener, _) = progress::training();
        let mut trainer = Trainer::new(self.recipe.training())
            .with_resume(self.resume)
            .with_stop(self.stop.clone())
            .with_dashboard(self.dashboard)
            .with_listener(move |event: TrainEvent| listener(event));
        if let Some(folder) = self.folder {
            trainer = trainer.with_folder(folder);
        }
        let trained = trainer.fit_devices(network, pairs, &self.devices)?;
        if trained.reason == StopReason::Interrupted {
            match self.folder {
                Some(folder) => bail!(
                    "stopped; the checkpoint is in {}: add --resume to go on",
                    folder.display()
                ),
                None => bail!("stopped"),
            }
        }
        Ok((trained.model, trained.seconds))
    }

    /// The text side with its encoder tuned in the space of the candidates, if the recipe says so.
    pub fn tuned(&self) -> Result<Option<Text<B>>> {
        let (Some(tuning), Some(space)) = (&self.recipe.space_tuning, &self.recipe.space) else {
            return Ok(None);
        };
        let (pretrained, _) =
            self.text.pretrained.as_ref().context("[space_tuning] needs [text]")?;
        let (started, device) = (Instant::now(), &self.devices[0]);
        let words = self.text.words(self.recipe, &self.task.train)?;
        let words = words.as_ref();
        let (encoder, tokenizer, _) = pretrained.load::<Autodiff<B>>(device)?;
        let tuning = SpaceTuning { seed: self.recipe.seed, ..tuning.clone() };
        let (train, items) = (&self.task.train, &self.task.items);
        let tuned = tuning.fit::<Autodiff<B>>(
            encoder, words, &tokenizer, train, items, space, &self.stop, device,
        )?;
        let mrr: Vec<String> = tuned.validation_mrr.iter().map(|v| format!("{v:.3}")).collect();
        println!(
            "text encoder tuned in {:.0} s, share {}; MRR of captions kept out: {}",
            started.elapsed().as_secs_f64(),
            tuned.share,
            mrr.join(" ")
        );
        let TunedEncoder { encoder, map, .. } = tuned;
        Ok(Some(Text { tokenizer, pretrained: Some((pretrained.clone(), encoder)), map }))
    }
}

/// The index over other candidates, by their features alone.
pub fn over<B: LocalBackend>(retriever: Retriever<B>, items: &Features) -> Result<Retriever<B>> {
    let vectors = match retriever.space() {
        Some(space) => space.embed(items, None)?,
        None => items.clone(),
    };
    let index = retriever.quantizer().assign(&vectors)?;
    let index = match retriever.index().geometry() {
        Some(_) => index.with_vectors(vectors)?,
        None => index,
    };
    Ok(retriever.with_candidates(index)?)
}
