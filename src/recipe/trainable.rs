//! Backends for which this crate compiles the training itself.

use burn::backend::Autodiff;

use super::{
    event::FitEvent,
    fit::{Fit, Fitted, TextSide},
    settings::Recipe,
    task::{Part, Task},
};
use crate::{
    align::{FittedTextSpace, FittedTokenStates, IdfWeights, LateInteractionConfig, TextVectors},
    cancel::StopFlag,
    data::{DataFolder, ItemCaption},
    error::Result,
    index::{TextTokens, TokenStates},
    model::Cart,
    retrieve::{Retriever, Searchable, compiled_here},
    train::{Trained, Trainer, TrainingData, trainable},
};

compiled_here! {
    /// A backend that an index can be trained on.
    ///
    /// All backends of the cargo features are: this crate compiles the training for them, and a
    /// program only links it. For another backend of burn, `impl Trainable for MyBackend {}`
    /// compiles it in the crate that has this line.
    trait Trainable: Searchable;

    fn text_side(
        recipe: &Recipe,
        train: &[ItemCaption],
        device: &Self::Device,
        progress: &dyn Fn(FitEvent)
    ) -> Result<TextSide<Self>> {
        TextSide::new_here(recipe, train, device, progress)
    }
    fn embed_side(
        text: &TextSide<Self>,
        captions: &[ItemCaption],
        words: Option<&IdfWeights>,
        device: &Self::Device
    ) -> Result<TextVectors> {
        text.embed_here(captions, words, device)
    }
    fn token_states(
        text: &TextSide<Self>,
        config: &LateInteractionConfig,
        captions: (&[ItemCaption], usize),
        stop: &StopFlag,
        device: &Self::Device
    ) -> Result<Option<FittedTokenStates>> {
        text.token_states_here(config, captions, stop, device)
    }
    fn query_tokens(
        text: &TextSide<Self>,
        states: &TokenStates,
        queries: &[&str],
        device: &Self::Device
    ) -> Result<Vec<TextTokens>> {
        text.query_tokens_here(states, queries, device)
    }
    fn tuned_side(
        fit: &Fit<'_>,
        text: &TextSide<Self>,
        device: &Self::Device
    ) -> Result<Option<TextSide<Self>>> {
        fit.tuned_here(text, device)
    }
    fn fit_space(
        fit: &Fit<'_>,
        text: &TextSide<Self>,
        words: Option<&IdfWeights>,
        device: &Self::Device
    ) -> Result<Option<FittedTextSpace>> {
        Ok(fit.space_here(text, words, device)?.map(|(fitted, _)| fitted))
    }
    fn fit_index(
        fit: &Fit<'_>,
        text: Option<&TextSide<Self>>,
        devices: &[Self::Device]
    ) -> Result<Fitted<Self>> {
        fit.run_here(text, devices)
    }
    fn index_over(
        task: &Task,
        retriever: Retriever<Self>,
        recipe: &Recipe
    ) -> Result<Retriever<Self>> {
        task.over_here(retriever, recipe)
    }
    fn train_further(
        trainer: &Trainer,
        network: &Cart<Self>,
        pairs: &TrainingData,
        device: &Self::Device
    ) -> Result<Trained<Self>> {
        trainer.fit(trainable::<Autodiff<Self>, Cart<_>>(network.clone()), pairs, device)
    }
}

impl Recipe {
    /// Trains an index over the candidates of a data folder.
    ///
    /// [`Fit`] has progress, cancelling, checkpoints and several devices.
    ///
    /// # Errors
    /// As [`Fit::run`].
    pub fn fit<B: Trainable>(&self, data: &DataFolder, device: &B::Device) -> Result<Retriever<B>> {
        let task = Task::new(self, data, Part::Test)?;
        task.check_leaks(self)?;
        let fitted = Fit::new(self, &task).run(std::slice::from_ref(device))?;
        fitted.with_metadata_of(data, &task)
    }
}

impl Fit<'_> {
    /// Fits the index.
    ///
    /// # Errors
    /// [`Error::Quantizer`](crate::Error::Quantizer) or
    /// [`Error::Collapsed`](crate::Error::Collapsed) for a written quantizer that does not suit the
    /// data, [`Error::Interrupted`](crate::Error::Interrupted) after a stop, and the errors of each
    /// part.
    pub fn run<B: Trainable>(&self, devices: &[B::Device]) -> Result<Fitted<B>> {
        B::fit_index(self, None, devices)
    }

    /// Fits the index with a text side that is already there.
    ///
    /// # Errors
    /// As [`Fit::run`].
    pub fn run_with<B: Trainable>(
        &self,
        text: &TextSide<B>,
        devices: &[B::Device],
    ) -> Result<Fitted<B>> {
        B::fit_index(self, Some(text), devices)
    }

    /// The text side with its encoder tuned in the space of the candidates, if the recipe says so.
    ///
    /// # Errors
    /// As [`EncoderTuning::fit`](crate::align::EncoderTuning::fit).
    pub fn tuned<B: Trainable>(
        &self,
        text: &TextSide<B>,
        device: &B::Device,
    ) -> Result<Option<TextSide<B>>> {
        B::tuned_side(self, text, device)
    }

    /// The space of the candidates, where the recipe asks for one.
    ///
    /// # Errors
    /// As
    /// [`TextSpaceConfig::fit_with_tuned_map`](crate::align::TextSpaceConfig::fit_with_tuned_map).
    pub fn space<B: Trainable>(
        &self,
        text: &TextSide<B>,
        words: Option<&IdfWeights>,
        device: &B::Device,
    ) -> Result<Option<FittedTextSpace>> {
        B::fit_space(self, text, words, device)
    }
}

impl<B: Trainable> TextSide<B> {
    /// Loads the recipe's pretrained encoder, or trains a tokenizer on the captions.
    ///
    /// # Errors
    /// As [`PretrainedText::load`](crate::pretrained::PretrainedText::load) and
    /// [`TextTokenizer::train`](crate::data::TextTokenizer::train).
    pub fn new(
        recipe: &Recipe,
        train: &[ItemCaption],
        device: &B::Device,
        progress: &dyn Fn(FitEvent),
    ) -> Result<Self> {
        B::text_side(recipe, train, device, progress)
    }

    /// Vectors of captions by the encoder, and by their words where those count.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) without a pretrained encoder.
    pub fn embed(
        &self,
        captions: &[ItemCaption],
        words: Option<&IdfWeights>,
        device: &B::Device,
    ) -> Result<TextVectors> {
        B::embed_side(self, captions, words, device)
    }

    /// Token states of candidates, from their captions and the number of candidates.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) without an encoder; as [`LateInteractionConfig::fit`].
    pub fn token_states(
        &self,
        config: &LateInteractionConfig,
        captions: (&[ItemCaption], usize),
        stop: &StopFlag,
        device: &B::Device,
    ) -> Result<Option<FittedTokenStates>> {
        B::token_states(self, config, captions, stop, device)
    }

    /// Tokens of queries, to compare with token states.
    ///
    /// # Errors
    /// As [`TextSide::token_states`], and
    /// [`TextTokenizer::encode`](crate::data::TextTokenizer::encode).
    pub fn query_tokens(
        &self,
        states: &TokenStates,
        queries: &[&str],
        device: &B::Device,
    ) -> Result<Vec<TextTokens>> {
        B::query_tokens(self, states, queries, device)
    }
}

impl Task {
    /// The index of the training over the candidates, where they are not the training's.
    ///
    /// # Errors
    /// As [`Retriever::with_candidates`].
    pub fn over<B: Trainable>(
        &self,
        retriever: Retriever<B>,
        recipe: &Recipe,
    ) -> Result<Retriever<B>> {
        B::index_over(self, retriever, recipe)
    }
}

impl Trainer {
    /// Goes on with the training of a network that was trained before, on other pairs.
    ///
    /// # Errors
    /// As [`Trainer::fit`].
    pub fn fine_tune<B: Trainable>(
        &self,
        network: &Cart<B>,
        pairs: &TrainingData,
        device: &B::Device,
    ) -> Result<Trained<B>> {
        B::train_further(self, network, pairs, device)
    }
}
