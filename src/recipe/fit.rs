//! From a recipe and a data folder to a searchable index.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use burn::{backend::Autodiff, module::AutodiffModule, tensor::backend::Backend};

use super::{choice::attempts, counts::Rows, early, event::FitEvent, settings::Recipe, task::Task};
use crate::{
    align::{
        EncoderTuning, FittedTextSpace, FittedTokenStates, IdfWeights, LateInteractionConfig,
        LateInteractionData, Ridge, TextEmbedder, TextVectors, TokenReducer, TunedEncoder,
        TuningData,
    },
    cancel::{Monitor, StopFlag},
    data::{DataFolder, ItemCaption, TextTokenizer},
    error::{Error, Problem, Result},
    features::Features,
    index::{TextTokens, TokenStates},
    model::Cart,
    nn::{TextEncoder, TextEncoderConfig, WeightInit},
    pretrained::PretrainedText,
    quantizer::{
        CandidateIndex, CoarseToFine, CoarseToFineConfig, FineConfig, FineQuantizer,
        HealthThresholds, KMeans, QuantizerEvent,
    },
    retrieve::{Retriever, RetrieverParts},
    train::{StopReason, TrainEvent, Trainer, TrainingCaptions, TrainingData, trainable},
};

/// The text side of an index: a tokenizer, and a text encoder if one is needed before the network.
#[derive(Debug, Clone)]
pub struct TextSide<B: Backend> {
    /// The tokenizer.
    pub tokenizer: TextTokenizer,
    /// The pretrained encoder, if the recipe names one.
    pub pretrained: Option<PretrainedText>,
    /// The pretrained encoder's weights; without one and with a space, an encoder from scratch,
    /// which
    /// [`Fit`] tunes first. `None` if the network trains its own encoder.
    pub encoder: Option<TextEncoder<B>>,
    /// The map from features to the encoder's space that was tuned with the encoder.
    map: Option<Ridge>,
}

impl<B: Backend> TextSide<B> {
    pub(super) fn new_here(
        recipe: &Recipe,
        train: &[ItemCaption],
        device: &B::Device,
        progress: &dyn Fn(FitEvent),
    ) -> Result<Self> {
        let Some(pretrained) = recipe.pretrained()? else {
            let tokenizer = recipe.train_tokenizer(train)?;
            let encoder = recipe.space.as_ref().map(|_| from_scratch(recipe, &tokenizer, device));
            return Ok(Self { tokenizer, pretrained: None, encoder, map: None });
        };
        let (encoder, tokenizer, report) = pretrained.load::<B>(device)?;
        progress(FitEvent::Note(format!("{} encoder, {report}", encoder.family())));
        let (pretrained, encoder) = (Some(pretrained), Some(encoder));
        Ok(Self { tokenizer, pretrained, encoder, map: None })
    }

    pub(super) fn embed_here(
        &self,
        captions: &[ItemCaption],
        words: Option<&IdfWeights>,
        device: &B::Device,
    ) -> Result<TextVectors> {
        let encoder = self.encoder("[space]")?;
        let lexical_head = words.map(|weights| weights.head(device));
        TextEmbedder { encoder, tokenizer: &self.tokenizer, lexical_head }.embed(captions, device)
    }

    pub(super) fn token_states_here(
        &self,
        config: &LateInteractionConfig,
        captions: (&[ItemCaption], usize),
        stop: &StopFlag,
        device: &B::Device,
    ) -> Result<Option<FittedTokenStates>> {
        let encoder = self.encoder("[late_interaction]")?;
        config.fit(encoder, &self.tokenizer, captions, stop, device)
    }

    pub(super) fn query_tokens_here(
        &self,
        states: &TokenStates,
        queries: &[&str],
        device: &B::Device,
    ) -> Result<Vec<TextTokens>> {
        let encoder = self.encoder("[late_interaction]")?;
        let (tokenizer, space) = (&self.tokenizer, states.space());
        TokenReducer { encoder, tokenizer, space }.texts(queries, device)
    }

    /// IDF weights of the token embeddings, if the recipe uses them.
    ///
    /// # Errors
    /// As [`IdfWeights::fit`].
    pub fn idf_weights(
        &self,
        recipe: &Recipe,
        train: &[ItemCaption],
    ) -> Result<Option<IdfWeights>> {
        let weight = recipe.alignment.as_ref().and_then(|alignment| alignment.words);
        let (Some(weight), Some(encoder)) = (weight, &self.encoder) else {
            return Ok(None);
        };
        Ok(Some(IdfWeights::fit(encoder, &self.tokenizer, train, weight)?))
    }

    fn encoder(&self, table: &str) -> Result<&TextEncoder<B>> {
        self.encoder.as_ref().ok_or_else(|| {
            Error::config(format!("{table} of the recipe"))
                .expected("a pretrained text encoder, or one from scratch for [space]")
                .found("none")
                .fix(format!(
                    "name the folder of one (`--encoder`, or pretrained in [text]), or remove \
                     {table}"
                ))
        })
    }
}

/// A fit of an index with options: checkpoints, resuming, stopping and progress.
///
/// # Example
/// ```no_run
/// use burn::backend::Flex;
/// use cart_retrieval::{data::DataFolder, recipe::{Fit, Part, Recipe, Task}};
/// let data = DataFolder::open("my-data")?;
/// let recipe = Recipe::for_data(&data)?;
/// let task = Task::new(&recipe, &data, Part::Test)?;
/// let fitted = Fit::new(&recipe, &task)
///     .with_folder("my-run")
///     .with_progress(|event| eprintln!("{event}"))
///     .run::<Flex>(&[Default::default()])?;
/// fitted.retriever.save("my-index")?;
/// # Ok::<(), cart_retrieval::Error>(())
/// ```
#[derive(Clone)]
pub struct Fit<'a> {
    recipe: &'a Recipe,
    task: &'a Task,
    ignore_health: bool,
    folder: Option<PathBuf>,
    resume: bool,
    dashboard: bool,
    stop: StopFlag,
    progress: Arc<dyn Fn(FitEvent) + Send + Sync>,
}

/// A trained index, with its recipe and times.
#[derive(Debug)]
#[non_exhaustive]
pub struct Fitted<B: Backend> {
    /// The index.
    pub retriever: Retriever<B>,
    /// The recipe, with the quantizer that was used if the first one was not healthy.
    pub recipe: Recipe,
    /// Seconds of training the network.
    pub seconds: f64,
    /// Seconds in all.
    pub total: f64,
}

impl<B: Backend> Fitted<B> {
    /// The index with the metadata of its candidates, if the data folder has any.
    ///
    /// # Errors
    /// As [`Retriever::with_metadata`].
    pub fn with_metadata_of(self, data: &DataFolder, task: &Task) -> Result<Retriever<B>> {
        let Some(metadata) = &data.metadata else {
            return Ok(self.retriever);
        };
        // Rows of the training, which may be a part of the data.
        let rows = task.items.ids().iter().filter_map(|id| data.items.index_of(id));
        self.retriever.with_metadata(metadata.select(&rows.collect::<Vec<_>>()))
    }
}

impl<'a> Fit<'a> {
    /// A fit of a recipe to a task.
    pub fn new(recipe: &'a Recipe, task: &'a Task) -> Self {
        Self {
            recipe,
            task,
            ignore_health: false,
            folder: None,
            resume: false,
            dashboard: false,
            stop: StopFlag::new(),
            progress: Arc::new(|_| {}),
        }
    }

    /// Trains even on identifiers that the health check refuses.
    pub fn with_ignore_health(self, ignore_health: bool) -> Self {
        Self { ignore_health, ..self }
    }

    /// Keeps checkpoints in a folder.
    pub fn with_folder(self, folder: impl AsRef<Path>) -> Self {
        Self { folder: Some(folder.as_ref().to_path_buf()), ..self }
    }

    /// Resumes the training of that folder.
    pub fn with_resume(self, resume: bool) -> Self {
        Self { resume, ..self }
    }

    /// Shows burn-train's terminal dashboard ([`Trainer::with_dashboard`]).
    pub fn with_dashboard(self, dashboard: bool) -> Self {
        Self { dashboard, ..self }
    }

    /// Stops after the current step when the flag is raised.
    pub fn with_stop(self, stop: &StopFlag) -> Self {
        Self { stop: stop.clone(), ..self }
    }

    /// Reports events. The callback may be called from another thread.
    pub fn with_progress(self, progress: impl Fn(FitEvent) + Send + Sync + 'static) -> Self {
        Self { progress: Arc::new(progress), ..self }
    }

    pub(super) fn run_here<B: Backend>(
        &self,
        text: Option<&TextSide<B>>,
        devices: &[B::Device],
    ) -> Result<Fitted<B>> {
        let started = Instant::now();
        let device = devices.first().ok_or_else(|| {
            Error::config("devices")
                .expected("at least one")
                .found("none")
                .fix("pass a device of the backend")
        })?;
        self.check()?;
        let loaded;
        let text = match text {
            Some(text) => text,
            None => {
                let train = &self.task.train;
                loaded = TextSide::new_here(self.recipe, train, device, &*self.progress)?;
                &loaded
            }
        };
        let tuned = self.tuned_here(text, device)?;
        let text = tuned.as_ref().unwrap_or(text);
        let prepared = self.prepared(text, device)?;
        let (network, words) = (prepared.network(text, device)?, &prepared.words);
        let network = match words {
            Some(words) => network.with_lexical_head(words.head(device))?,
            None => network,
        };
        let pairs = self.pairs(text, &prepared)?;
        let (model, seconds) = if self.recipe.training.epochs == 0 {
            self.note("0 passes: the network keeps its initial weights");
            (network.valid(), 0.0)
        } else {
            self.trained(network, &pairs, devices)?
        };
        let late = self.late_interaction(&model, text, &prepared, device)?;
        let Prepared { recipe, fitted, quantizer, index, config, .. } = prepared;
        let tokenizer = text.tokenizer.clone();
        let parts = RetrieverParts { model, config, tokenizer, quantizer, index };
        let retriever = Retriever::new(parts)?.with_beam(recipe.beam.clone());
        let retriever = match late {
            Some((states, weight)) => retriever.with_token_states(states, weight)?,
            None => retriever,
        };
        let retriever = match fitted {
            Some((fitted, _)) => retriever.with_space(fitted.space),
            None => retriever,
        };
        let total = started.elapsed().as_secs_f64();
        Ok(Fitted { retriever, recipe, seconds, total })
    }

    fn note(&self, text: impl Into<String>) {
        (self.progress)(FitEvent::Note(text.into()));
    }

    /// Checks all settings before anything is computed.
    fn check(&self) -> Result<()> {
        self.recipe.check_space()?;
        if self.ignore_health {
            return Ok(());
        }
        early::check(self.recipe, self.task)
    }

    /// Everything before the network.
    fn prepared<B: Backend>(&self, text: &TextSide<B>, device: &B::Device) -> Result<Prepared<B>> {
        let recipe = self.recipe;
        let words = text.idf_weights(recipe, &self.task.train)?;
        let fitted = self.space_here(text, words.as_ref(), device)?;
        let rows = fitted.as_ref().map_or(&self.task.items, |(fitted, _)| &fitted.vectors);
        let (quantizer, index, recipe) = self.identifiers(rows, device)?;
        let mut index = index.with_unique_capacity(recipe.unique_capacity)?;
        if recipe.alignment.is_some() {
            index = index.with_vectors(rows.clone())?;
        }
        let mut config = recipe.model_config(&text.tokenizer, &index, text.pretrained.as_ref());
        if let Some(alignment) = &recipe.alignment {
            config = config.with_alignment(alignment.config(rows.dim()));
        }
        self.note(config.num_params().to_string());
        Ok(Prepared { recipe, words, fitted, quantizer, index, config })
    }

    pub(super) fn space_here<B: Backend>(
        &self,
        text: &TextSide<B>,
        words: Option<&IdfWeights>,
        device: &B::Device,
    ) -> Result<Option<(FittedTextSpace, TextVectors)>> {
        let Some(config) = &self.recipe.space else {
            return Ok(None);
        };
        let texts = text.embed_here(&self.task.train, words, device)?;
        let started = Instant::now();
        let mut config = config.clone();
        config.seed = self.recipe.seed;
        let fitted = config.fit_with_tuned_map(text.map.as_ref(), &self.task.items, &texts)?;
        self.note(format!(
            "space of width {} in {:.0} s, gamma {}, penalty {}, held-out MRR {:.3}",
            fitted.space.dim(),
            started.elapsed().as_secs_f64(),
            fitted.gamma,
            fitted.penalty,
            fitted.held_out_mrr
        ));
        Ok(Some((fitted, texts)))
    }

    /// Token states of the candidates, and the weight of late interaction in a search.
    fn late_interaction<B: Backend>(
        &self,
        model: &Cart<B>,
        text: &TextSide<B>,
        prepared: &Prepared<B>,
        device: &B::Device,
    ) -> Result<Option<(TokenStates, f32)>> {
        let (recipe, train) = (&prepared.recipe, &self.task.train);
        let (Some(config), Some((fitted, vectors)), Some(alignment)) =
            (&recipe.late_interaction, &prepared.fitted, &recipe.alignment)
        else {
            return Ok(None);
        };
        let started = Instant::now();
        let config = LateInteractionConfig { seed: recipe.seed, ..config.clone() };
        let texts = (train.as_slice(), self.task.items.len());
        let (encoder, tokenizer) = (model.encoder(), &text.tokenizer);
        let Some(states) = config.fit(encoder, tokenizer, texts, &self.stop, device)? else {
            self.note("no late interaction: no token tells the captions apart, or 0 bytes");
            return Ok(None);
        };
        let chosen = states.choose(&LateInteractionData {
            texts: vectors,
            vectors: &fitted.vectors,
            held_out: &fitted.held_out,
        });
        let states = states.states.with_absent(chosen.usual);
        let mrr: Vec<String> =
            chosen.mrr.iter().map(|(share, mrr)| format!("{share}: {mrr:.3}")).collect();
        let share = config.weight.unwrap_or(chosen.share);
        let factor = alignment.scales.first().copied().unwrap_or(0.0) + recipe.beam.rerank;
        self.note(format!(
            "late interaction in {:.0} s: {} tokens of {} candidates, weight {share} of the cosine's; \
             MRR on {} held-out captions by weight: {}",
            started.elapsed().as_secs_f64(),
            states.tokens(),
            states.described(),
            chosen.captions,
            mrr.join(", "),
        ));
        // States that no search reads would only take space.
        Ok((share > 0.0).then_some((states, share * factor)))
    }

    /// The training pairs.
    fn pairs<B: Backend>(
        &self,
        text: &TextSide<B>,
        prepared: &Prepared<B>,
    ) -> Result<TrainingData> {
        let (recipe, task) = (self.recipe, self.task);
        let mut pairs = TrainingData::new(
            &text.tokenizer,
            TrainingCaptions { train: &task.train, valid: &task.valid },
            &prepared.index,
        )?;
        if let Some((fitted, _)) = &prepared.fitted
            && recipe.alignment.is_some()
        {
            pairs = pairs.with_held_out(fitted.held_out.clone())?;
        }
        if recipe.identifiers.train_all {
            pairs = pairs.with_all_identifiers();
        }
        Ok(pairs)
    }

    /// Quantizer and identifiers of the candidates, and the recipe that has this quantizer. A
    /// quantizer that was chosen and does not suit the candidates is replaced by the next choice.
    fn identifiers<B: Backend>(
        &self,
        rows: &Features,
        device: &B::Device,
    ) -> Result<(CoarseToFine<B>, CandidateIndex, Recipe)> {
        let recipe = self.recipe;
        if !recipe.repairs_quantizer() {
            let (quantizer, index) = self
                .made(recipe.quantizer_config(), &recipe.health, rows, device)
                .map_err(early::of_recipe)?;
            return Ok((quantizer, index, recipe.clone()));
        }
        let mut all = attempts(&Rows::of(rows.as_slice(), rows.dim(), None)).into_iter().peekable();
        while let Some(attempt) = all.next() {
            let config = attempt.quantizer.clone().with_seed(recipe.seed);
            match (self.made(config, &attempt.health, rows, device), all.peek()) {
                (Err(Error::Quantizer(problem) | Error::Collapsed(problem)), Some(next)) => {
                    let Problem { subject, expected, found, .. } = problem;
                    let next = &next.why;
                    self.note(format!(
                        "{subject}: expected {expected}, found {found}; trying {next}"
                    ));
                }
                (made, _) => {
                    let (quantizer, index) = made?;
                    let (chosen, health) = (attempt.quantizer, attempt.health);
                    let recipe = Recipe { quantizer: chosen, health, ..recipe.clone() };
                    return Ok((quantizer, index, recipe));
                }
            }
        }
        Err(Error::quantizer("choices of a quantizer")
            .expected("at least one")
            .found("none")
            .fix("report this"))
    }

    /// Quantizer and identifiers by some settings.
    fn made<B: Backend>(
        &self,
        config: CoarseToFineConfig,
        health: &HealthThresholds,
        rows: &Features,
        device: &B::Device,
    ) -> Result<(CoarseToFine<B>, CandidateIndex)> {
        let quantizer = self.quantizer(config, rows, device)?;
        let index = quantizer.assign(rows).several(self.recipe.identifiers.config()).run()?;
        let measured = index.health().clone().with_neighbours(&quantizer, rows)?;
        let index = index.with_health(measured);
        self.note(index.health().to_string());
        match index.ensure_healthy(health) {
            Err(error) if self.ignore_health => {
                (self.progress)(FitEvent::Warning(format!("health check: {error}")));
            }
            result => result?,
        }
        Ok((quantizer, index))
    }

    /// A quantizer, fitted.
    fn quantizer<B: Backend>(
        &self,
        config: CoarseToFineConfig,
        rows: &Features,
        device: &B::Device,
    ) -> Result<CoarseToFine<B>> {
        let monitor = Monitor::new()
            .with_stop(&self.stop)
            .with_progress(|event| (self.progress)(FitEvent::Quantizer(event)));
        if !self.recipe.without_coarse {
            return config.fit_with_progress(rows, device, &monitor);
        }
        let FineConfig::RqVae(mut fine) = config.fine else {
            return Err(Error::config("without_coarse")
                .expected("an RQ-VAE, which replaces the coarse K-Means")
                .found("another fine quantizer")
                .fix("set quantizer.fine.method to \"rq-vae\", or remove without_coarse"));
        };
        fine.sizes.insert(0, config.coarse.k);
        // Two centres, both at the mean: every row gets the first.
        let dim = rows.dim();
        let mean = mean(rows);
        let less_mean = rows.as_slice().iter().zip(mean.iter().cycle()).map(|(x, m)| x - m);
        let less_mean: Vec<f32> = less_mean.collect();
        let monitor = monitor.part(QuantizerEvent::RqVae);
        let fine = fine.fit_with_progress(&less_mean, dim, device, &monitor)?;
        let coarse = KMeans::from_parts([mean.clone(), mean].concat(), dim, 0.0, 0)?;
        CoarseToFine::from_parts(coarse, FineQuantizer::RqVae(fine))
    }

    /// The network after its training, and the seconds of it.
    fn trained<B: Backend>(
        &self,
        network: Cart<Autodiff<B>>,
        pairs: &TrainingData,
        devices: &[B::Device],
    ) -> Result<(Cart<B>, f64)> {
        let progress = self.progress.clone();
        let mut trainer = Trainer::new(self.recipe.train_config())
            .with_resume(self.resume)
            .with_stop(&self.stop)
            .with_dashboard(self.dashboard)
            .with_progress(move |event: TrainEvent| progress(FitEvent::Training(event)));
        if let Some(folder) = &self.folder {
            trainer = trainer.with_folder(folder);
        }
        let trained = trainer.fit_devices(network, pairs, devices)?;
        if trained.reason == StopReason::Interrupted {
            return Err(match &self.folder {
                Some(folder) => Error::interrupted("training")
                    .expected("no stop")
                    .found(format!("one; the checkpoint is in {}", folder.display()))
                    .fix("run again with `--resume` (Fit::with_resume)"),
                None => Error::interrupted("training")
                    .expected("no stop")
                    .found("one")
                    .fix("run it again"),
            });
        }
        Ok((trained.model, trained.seconds))
    }

    pub(super) fn tuned_here<B: Backend>(
        &self,
        text: &TextSide<B>,
        device: &B::Device,
    ) -> Result<Option<TextSide<B>>> {
        let (Some(tuning), Some(space)) = (&self.recipe.space_tuning, &self.recipe.space) else {
            return Ok(None);
        };
        let started = Instant::now();
        let words = text.idf_weights(self.recipe, &self.task.train)?;
        let (encoder, tokenizer) = match &text.pretrained {
            Some(pretrained) => {
                let (encoder, tokenizer, _) = pretrained.load::<Autodiff<B>>(device)?;
                (encoder, tokenizer)
            }
            None => {
                let tokenizer = text.tokenizer.clone();
                (from_scratch(self.recipe, &tokenizer, device), tokenizer)
            }
        };
        let tuning = EncoderTuning { seed: self.recipe.seed, ..tuning.clone() };
        let data = TuningData {
            tokenizer: &tokenizer,
            captions: &self.task.train,
            items: &self.task.items,
            space,
            idf_weights: words.as_ref(),
        };
        let tuned = tuning.fit(encoder, &data, &self.stop, device)?;
        let mrr: Vec<String> = tuned.validation_mrr.iter().map(|v| format!("{v:.3}")).collect();
        self.note(format!(
            "text encoder tuned in {:.0} s, share {}; MRR on held-out captions: {}",
            started.elapsed().as_secs_f64(),
            tuned.share,
            mrr.join(" ")
        ));
        let TunedEncoder { encoder, map, .. } = tuned;
        let (pretrained, encoder) = (text.pretrained.clone(), Some(encoder));
        Ok(Some(TextSide { tokenizer, pretrained, encoder, map }))
    }
}

/// A text encoder of the recipe's sizes with random weights.
fn from_scratch<B: Backend>(
    recipe: &Recipe,
    tokenizer: &TextTokenizer,
    device: &B::Device,
) -> TextEncoder<B> {
    let config = TextEncoderConfig::from(recipe.scratch_encoder(tokenizer));
    config.init(&mut WeightInit::new(recipe.seed), device)
}

/// What there is before the network.
struct Prepared<B: Backend> {
    recipe: Recipe,
    words: Option<IdfWeights>,
    /// The space, and the captions' vectors in it.
    fitted: Option<(FittedTextSpace, TextVectors)>,
    quantizer: CoarseToFine<B>,
    index: CandidateIndex,
    config: crate::model::CartConfig,
}

impl<B: Backend> Prepared<B> {
    /// The network before its training.
    fn network(&self, text: &TextSide<B>, device: &B::Device) -> Result<Cart<Autodiff<B>>> {
        match &text.encoder {
            Some(encoder) => self
                .config
                .init_around(trainable::<Autodiff<B>, TextEncoder<_>>(encoder.clone()), device),
            None => self.config.init::<Autodiff<B>>(device),
        }
    }
}

/// The mean of all rows.
fn mean(rows: &Features) -> Vec<f32> {
    let (dim, n) = (rows.dim(), rows.len() as f64);
    let mut mean = vec![0.0f64; dim];
    for row in rows.as_slice().chunks_exact(dim) {
        mean.iter_mut().zip(row).for_each(|(sum, &value)| *sum += f64::from(value) / n);
    }
    mean.into_iter().map(|value| value as f32).collect()
}
