//! The dual-tower baseline: a text encoder and the candidates' features meet in one space.

mod config;
mod network;
mod training;

use std::{any::Any, sync::Arc};

use burn::backend::Autodiff;
use cart_retrieval::{
    Error, Result,
    backend::{BackendKind, LocalBackend},
    cancel::StopFlag,
    eval::Ranking,
    expert::WeightInit,
    features::Features,
    members::{BackendWork, ensure_in, run_work},
    nn::TextEncoder,
};
use network::Towers;
use training::Training;

pub use config::{DualTowerConfig, TowerData};

/// What a training starts from: a backend, a device, and a text encoder if it has weights.
///
/// The type hides the backend, so that this crate compiles the training and programs only link it.
#[derive(Debug)]
pub struct TowerStart {
    kind: BackendKind,
    /// A `B::Device`, or a `TextEncoder<Autodiff<B>>`.
    from: Box<dyn Any>,
}

impl TowerStart {
    /// Starts with a text encoder of random weights, on a device.
    pub fn scratch<B: LocalBackend>(device: &B::Device) -> Self {
        Self { kind: B::KIND, from: Box::new(device.clone()) }
    }

    /// Starts with a text encoder that has weights, usually a pretrained one, on the encoder's
    /// device.
    ///
    /// Frozen parts keep their weights.
    pub fn encoder<B: LocalBackend>(encoder: TextEncoder<Autodiff<B>>) -> Self {
        Self { kind: B::KIND, from: Box::new(encoder) }
    }
}

/// A trained dual tower with the vectors of its candidates.
///
/// # Example
/// ```
/// use burn::backend::Flex;
/// use cart_baselines::{DualTowerConfig, TowerData, TowerStart};
/// use cart_retrieval::{cancel::StopFlag, data::{ItemCaption, TextTokenizer, TokenizerConfig},
///     features::Features, expert::ScratchEncoderConfig};
/// let items = Features::from_rows(vec![1.0, 0.0, 0.0, 1.0], 2)?;
/// let captions = [(0, "a dog"), (1, "a cat")].map(|(item, text)| ItemCaption {
///     item,
///     text: text.into(),
///     weight: 1.0,
/// });
/// let frequent = TokenizerConfig { min_frequency: 1, ..TokenizerConfig::default() };
/// let tokenizer = TextTokenizer::train(["a dog", "a cat"], &frequent, 8)?;
/// let encoder = ScratchEncoderConfig {
///     vocabulary: tokenizer.vocabulary(),
///     max_tokens: 8,
///     d_model: 8,
///     d_ff: 16,
///     n_heads: 2,
///     n_layers: 1,
///     dropout: 0.0,
/// };
/// let config = DualTowerConfig { epochs: 20, learning_rate: 1e-2, ..DualTowerConfig::new(encoder) };
/// let data = TowerData { tokenizer: &tokenizer, captions: &captions, items: &items };
/// let start = TowerStart::scratch::<Flex>(&Default::default());
/// let tower = config.fit(start, &data, &StopFlag::new())?;
/// assert_eq!(tower.search_all(&["a cat"], 1)?[0].items.len(), 1);
/// # Ok::<(), cart_retrieval::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct DualTower {
    towers: Arc<dyn Towers>,
    passes: f64,
}

/// How long a training takes.
#[derive(Debug, Clone, Copy)]
enum Length {
    /// The `epochs` of the configuration.
    Epochs,
    Seconds(f64),
}

impl DualTowerConfig {
    /// Trains both towers with InfoNCE: each caption against all candidates (a random 4096 of them
    /// and the batch's own where there are more), temperature learned.
    ///
    /// Features are centred and brought to unit length first.
    ///
    /// # Errors
    /// [`Error::Captions`] without captions or with one of an unknown candidate; [`Error::Config`]
    /// for settings out of range; [`Error::Interrupted`] when `stop` is raised.
    pub fn fit(
        &self,
        start: TowerStart,
        data: &TowerData<'_>,
        stop: &StopFlag,
    ) -> Result<DualTower> {
        self.run(start, data, stop, Length::Epochs)
    }

    /// Trains for about `seconds` seconds instead of `epochs` passes; [`DualTower::passes`] says
    /// how many passes that was.
    ///
    /// Steps on a copy, which is thrown away, show how long a step takes: 20 of them, or a tenth of
    /// a pass where that is more, but within a tenth of `seconds`. As many steps as fit into
    /// `seconds` follow, at least one, and the learning rate rises and falls over them. What comes
    /// before and after these steps takes time of its own. The number of steps, and so the result,
    /// differs from run to run.
    ///
    /// # Errors
    /// As [`DualTowerConfig::fit`]; [`Error::Config`] for seconds that are not above 0, and
    /// [`Error::Device`] when the device fails.
    pub fn fit_for(
        &self,
        seconds: f64,
        start: TowerStart,
        data: &TowerData<'_>,
        stop: &StopFlag,
    ) -> Result<DualTower> {
        ensure_in("seconds of the dual tower", seconds, "(0, inf)", "give a time such as 60")?;
        self.run(start, data, stop, Length::Seconds(seconds))
    }

    /// Not generic: this crate compiles what it calls for every backend of the build.
    fn run(
        &self,
        start: TowerStart,
        data: &TowerData<'_>,
        stop: &StopFlag,
        length: Length,
    ) -> Result<DualTower> {
        self.validate()?;
        run_work(start.kind, Work { config: self, start, data, stop, length })?
    }
}

/// A training whose backend is known by name only.
struct Work<'a> {
    config: &'a DualTowerConfig,
    start: TowerStart,
    data: &'a TowerData<'a>,
    stop: &'a StopFlag,
    length: Length,
}

impl BackendWork for Work<'_> {
    type Output = Result<DualTower>;

    fn run<B: LocalBackend>(self) -> Result<DualTower> {
        let Self { config, start, data, stop, length } = self;
        let other_backend = |_| {
            Error::device("start of the dual tower")
                .expected(format!("the backend {}", B::KIND))
                .found("another one of that name")
                .fix("start on a backend of the cargo features")
        };
        let (encoder, device) = match start.from.downcast::<TextEncoder<Autodiff<B>>>() {
            Ok(encoder) => {
                let device = encoder.token_embeddings().device();
                (*encoder, device)
            }
            Err(device) => {
                let device = *device.downcast::<B::Device>().map_err(other_backend)?;
                (config.encoder.init(&mut WeightInit::new(config.seed), &device), device)
            }
        };
        let training = Training::<Autodiff<B>>::new(config, data, stop, device)?;
        let network = training.network(encoder);
        let steps = match length {
            Length::Epochs => config.epochs * training.steps_per_pass(),
            Length::Seconds(seconds) => training.steps_within(seconds, &network)?,
        };
        let passes = steps as f64 / training.steps_per_pass() as f64;
        let network = training.run(network, steps, &mut || Ok(true))?;
        Ok(DualTower { towers: Arc::new(training.trained(network)), passes })
    }
}

impl DualTower {
    /// Passes over the training captions that its training made, with a fraction of the last one.
    pub fn passes(&self) -> f64 {
        self.passes
    }

    /// Searches other candidates from now on, by features of the same encoder.
    ///
    /// # Errors
    /// [`Error::Features`] for features of another width.
    pub fn over(self, items: &Features) -> Result<Self> {
        Ok(Self { towers: self.towers.over(items)?, ..self })
    }

    /// The `k` nearest candidates of each query, by cosine.
    ///
    /// # Errors
    /// [`Error::Query`] for a blank query.
    pub fn search_all<S: AsRef<str>>(&self, queries: &[S], k: usize) -> Result<Vec<Ranking>> {
        let queries: Vec<&str> = queries.iter().map(AsRef::as_ref).collect();
        self.towers.search(&queries, k)
    }
}

#[cfg(test)]
mod tests;
