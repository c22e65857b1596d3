//! From a recipe and a folder to a searchable index: what `train` and `study` share.

use std::{path::Path, time::Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use burn::{backend::Autodiff, module::AutodiffModule};
use cart_retrieval::{
    align::{FittedSpace, Ridge, SpaceTuning, TextVectors, TunedEncoder, WordWeights, embed_texts},
    backend::LocalBackend,
    data::mixed_captions,
    error::Problem,
    model::Cart,
    nn::{AlignmentConfig, TextEncoder},
    prelude::*,
    pretrained::PretrainedText,
    quantizer::{FineQuantizer, HealthThresholds, KMeans, QuantizerEvent},
    train::{StopFlag, StopReason, TrainEvent, trainable},
};

use super::{
    automatic::{Rows, attempts},
    early, progress,
    recipe::{AlignmentRecipe, Recipe},
    task::Task,
};

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
        if !self.ignore_health {
            early::check(recipe, task)?;
        }
        let tuned = self.tuned()?;
        let text = tuned.as_ref().unwrap_or(text);
        let words = text.words(recipe, &task.train)?;
        let words = words.as_ref();
        let fitted = space(recipe, task, text, words, device)?;
        let rows = fitted.as_ref().map_or(&task.items, |fitted| &fitted.vectors);
        let (quantizer, index) = self.identifiers(rows)?;
        let mut index = index.with_unique_capacity(recipe.unique_capacity)?;
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
        let guided = recipe.alignment.as_ref().is_some_and(|alignment| alignment.guided);
        let mixed = mixed_captions(&task.train, recipe.mixed, recipe.seed);
        ensure!(
            mixed.is_empty() || !guided,
            "the recipe's `mixed`: no texts of two captions for a guided network, which needs the candidate's \
             vector without either; set alignment.guided to false, or mixed to 0"
        );
        let texts = [task.train.as_slice(), &mixed].concat();
        let mut pairs = TrainingData::new(&text.tokenizer, &texts, &task.valid, &index)?;
        if let Some(fitted) =
            fitted.as_ref().filter(|_| recipe.alignment.is_some() && mixed.is_empty())
        {
            pairs = pairs.with_held_out(fitted.held_out.clone())?;
        }
        if recipe.identifiers.train_all {
            pairs = pairs.with_all_identifiers();
        }
        let network = match &text.pretrained {
            Some((_, encoder)) => config
                .init_around(trainable::<Autodiff<B>, TextEncoder<_>>(encoder.clone()), device)?,
            None => config.init::<Autodiff<B>>(device)?,
        };
        let network = match words {
            Some(words) => network.with_words(words.view(device))?,
            None => network,
        };
        let (model, seconds) = match recipe.training().epochs {
            0 => {
                println!(
                    "0 epochs: the network keeps its first weights, and --resume has nothing to resume"
                );
                (network.valid(), 0.0)
            }
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
    /// Quantizer and identifiers of the candidates, healthy ones unless [`Run::ignore_health`]
    /// says otherwise. Where the recipe is
    /// automatic, a quantizer that does not suit them is replaced.
    fn identifiers(&self, rows: &Features) -> Result<(CoarseToFine<B>, CandidateIndex)> {
        let recipe = self.recipe;
        if !recipe.repairs_quantizer() {
            let found = self.made(recipe.quantizer(), &recipe.health, rows);
            return found.map_err(|error| match error {
                Error::Quantizer(_) => {
                    anyhow!("the recipe's [quantizer]: {error} ({})", early::AUTOMATIC)
                }
                Error::Collapsed(_) => {
                    anyhow!("the recipe's [quantizer] and [health]: {error} ({})", early::AUTOMATIC)
                }
                error => error.into(),
            });
        }
        let mut all = attempts(&Rows::of(rows.as_slice(), rows.dim(), None)).into_iter().peekable();
        while let Some(attempt) = all.next() {
            let config = attempt.quantizer.with_seed(recipe.seed);
            match (self.made(config, &attempt.health, rows), all.peek()) {
                (Err(Error::Quantizer(problem) | Error::Collapsed(problem)), Some(next)) => {
                    let Problem { subject, expected, found, .. } = problem;
                    println!("{subject}: expected {expected}, found {found}; trying {}", next.why);
                }
                (made, _) => return Ok(made?),
            }
        }
        bail!("no quantizer to try")
    }

    /// Quantizer and identifiers by some settings.
    fn made(
        &self,
        config: CoarseToFineConfig,
        health: &HealthThresholds,
        rows: &Features,
    ) -> cart_retrieval::Result<(CoarseToFine<B>, CandidateIndex)> {
        let quantizer = self.quantizer(config, rows)?;
        let index = quantizer.assign_several(rows, None, &self.recipe.identifiers.config())?;
        println!("{}", index.health());
        match index.ensure_healthy(health) {
            Err(error) if self.ignore_health => eprintln!("going on all the same: {error}"),
            result => result?,
        }
        Ok((quantizer, index))
    }

    /// A quantizer, fitted.
    fn quantizer(
        &self,
        config: CoarseToFineConfig,
        rows: &Features,
    ) -> cart_retrieval::Result<CoarseToFine<B>> {
        let device = &self.devices[0];
        let mut progress = progress::quantizer(self.stop.clone());
        if !self.recipe.without_coarse {
            return config.fit_with_progress::<Autodiff<B>>(rows, device, &mut progress);
        }
        let FineConfig::RqVae(mut fine) = config.fine else {
            return Err(Error::config(
                "without_coarse",
                "an RQ-VAE, which alone takes the place of the coarse K-Means",
                "another fine quantizer",
                "set quantizer.fine.method to \"rq-vae\", or remove without_coarse",
            ));
        };
        fine.sizes.insert(0, config.coarse.k);
        // Two centres, both at the mean: every row gets the first.
        let (dim, n) = (rows.dim(), rows.len() as f64);
        let mut mean = vec![0.0f64; dim];
        for row in rows.as_slice().chunks_exact(dim) {
            mean.iter_mut().zip(row).for_each(|(sum, &value)| *sum += f64::from(value) / n);
        }
        let mean: Vec<f32> = mean.into_iter().map(|value| value as f32).collect();
        let less_mean = rows.as_slice().iter().zip(mean.iter().cycle()).map(|(x, m)| x - m);
        let less_mean: Vec<f32> = less_mean.collect();
        let fine =
            fine.fit_with_progress::<Autodiff<B>>(&less_mean, dim, device, &mut |event| {
                progress(QuantizerEvent::RqVae(event))
            })?;
        let coarse = KMeans::from_parts([mean.clone(), mean].concat(), dim, 0.0, 0)?;
        CoarseToFine::from_parts(coarse, FineQuantizer::RqVae(fine))
    }

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
