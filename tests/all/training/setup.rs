//! A small collection to train on; the unit tests of the trainer share it.

use burn::backend::{Autodiff, Flex};
use burn_store::ModuleSnapshot;
use cart_procedural::{Caption, Scenes, ScenesConfig};
use cart_retrieval::{prelude::*, quantizer::RqKMeansConfig};

pub type A = Autodiff<Flex>;

pub struct Setup {
    pub scenes: usize,
    pub items: Features,
    pub train: Vec<ItemCaption>,
    pub queries: Vec<ItemCaption>,
    pub quantizer: CoarseToFine<Flex>,
    pub index: CandidateIndex,
    pub tokenizer: TextTokenizer,
    pub data: TrainingData,
    pub config: CartConfig,
}

pub fn setup() -> Setup {
    let config = ScenesConfig::new(80).with_max_objects(1).with_captions_per_scene(3).with_seed(3);
    let scenes = Scenes::generate(&config).unwrap();
    let (rows, dim) = scenes.features();
    let items = Features::from_rows(rows, dim).unwrap().with_id_list(scenes.ids()).unwrap();
    let captions = scenes.captions().unwrap();
    let convert = |captions: &[Caption]| -> Vec<ItemCaption> {
        captions
            .iter()
            .map(|c| ItemCaption { item: c.item as u32, text: c.text.clone(), weight: 1.0 })
            .collect()
    };
    let (train, queries) = (convert(&captions.training), convert(&captions.queries));
    let quantizer = CoarseToFineConfig::new(8, RqKMeansConfig::new(vec![8, 8]))
        .fit::<Flex>(&items, &Default::default())
        .unwrap();
    let index = quantizer.assign(&items).run().unwrap();
    let texts = train.iter().map(|caption| caption.text.as_str());
    let settings = TokenizerConfig { vocabulary: 400, ..Default::default() };
    let tokenizer = TextTokenizer::train(texts, &settings, 32).unwrap();
    let data = TrainingData::new(
        &tokenizer,
        TrainingCaptions { train: &train, valid: &queries[..32] },
        &index,
    )
    .unwrap();
    let config = CartConfig::new(tokenizer.vocabulary(), index.vocabulary().clone())
        .with_width(32, 64, 4)
        .with_layers(1, 1)
        .with_max_tokens(32)
        .with_dropout(0.1);
    Setup { scenes: 80, items, train, queries, quantizer, index, tokenizer, data, config }
}

pub fn settings() -> TrainConfig {
    TrainConfig {
        epochs: 2,
        batch_size: 16,
        learning_rate: 3e-3,
        validations: 3,
        validation_queries: 32,
        word_dropout: 0.1,
        ..TrainConfig::default()
    }
}

pub fn weights(model: &impl ModuleSnapshot<Flex>) -> Vec<f32> {
    model
        .collect(None, None, true)
        .iter()
        .flat_map(|tensor| tensor.to_data().unwrap().iter::<f32>().collect::<Vec<_>>())
        .collect()
}
