//! A crate of its own that depends on the library: embeddings and captions that it makes itself, an
//! index trained in seconds, saved, loaded and searched. It ends with an error when the index does
//! not answer as it should.

#[allow(dead_code)] // The other programs use more of it.
#[macro_use]
#[path = "../../common/print.rs"]
mod print;

use std::time::Instant;

use burn::backend::{Autodiff, Flex};
use cart_retrieval::{
    eval::{TruncatedTies, evaluate},
    prelude::*,
    quantizer::HealthThresholds,
};

const COLOURS: [&str; 6] = ["red", "green", "blue", "white", "black", "yellow"];
const THINGS: [&str; 10] =
    ["dog", "cat", "car", "boat", "bird", "horse", "house", "flower", "bicycle", "train"];
const PLACES: [&str; 5] =
    ["in the snow", "on the beach", "in a street", "under a bridge", "by the river"];
/// Width of the embeddings.
const DIM: usize = 24;

/// An item: a colour, a thing and a place.
struct Item {
    words: [usize; 3],
}

impl Item {
    fn all() -> Vec<Self> {
        let count = COLOURS.len() * THINGS.len() * PLACES.len();
        let item = |i: usize| Self { words: [i % 6, i / 6 % 10, i / 60] };
        (0..count).map(item).collect()
    }

    /// What a frozen encoder might say of it: a direction for each of its words.
    fn embedding(&self) -> Vec<f32> {
        let direction = |word: usize, at: usize| ((word * DIM + at) as f32 * 12.9898).sin();
        let [colour, thing, place] = self.words;
        (0..DIM)
            .map(|at| {
                0.6 * direction(colour, at)
                    + direction(10 + thing, at)
                    + 0.8 * direction(30 + place, at)
            })
            .collect()
    }

    /// Two captions to train on, and a third to ask with.
    fn captions(&self) -> [String; 3] {
        let [colour, thing, place] = self.words;
        let (colour, thing, place) = (COLOURS[colour], THINGS[thing], PLACES[place]);
        [
            format!("a {colour} {thing} {place}"),
            format!("{place} there is a {thing}, it is {colour}"),
            format!("the {thing} {place} is {colour}"),
        ]
    }
}

fn main() -> Result<()> {
    let started = Instant::now();
    let device = Default::default();
    let all = Item::all();

    // 1. Candidates: embeddings with ids.
    let rows: Vec<f32> = all.iter().flat_map(Item::embedding).collect();
    let ids: Vec<String> = (0..all.len()).map(|i| format!("picture-{i:03}")).collect();
    let items = Features::from_rows(rows, DIM)?.with_id_list(ids)?;
    items.check()?;

    // 2. Captions: two train, the third asks.
    let caption = |item: usize, text: String| ItemCaption { item: item as u32, text, weight: 1.0 };
    let (mut train, mut queries) = (Vec::new(), Vec::new());
    for (i, item) in all.iter().enumerate() {
        let [first, second, query] = item.captions();
        train.extend([caption(i, first), caption(i, second)]);
        queries.push(query);
    }

    // 3. Identifiers.
    let quantizer = CoarseToFineConfig::new(12, vec![16, 16])
        .with_seed(1)
        .fit::<Autodiff<Flex>>(&items, &device)?;
    let index = quantizer.assign(&items)?;
    println!("{}", index.health());
    index.ensure_healthy(&HealthThresholds {
        max_shared_items: 0.6,
        ..HealthThresholds::default()
    })?;

    // 4. The network, trained for seconds.
    let texts = train.iter().map(|caption| caption.text.as_str());
    let tokenizer = TextTokenizer::train(texts, &TokenizerConfig::default(), 24)?;
    let config = CartConfig::new(tokenizer.vocabulary(), index.vocabulary().clone())
        .with_width(64, 128, 4)
        .with_layers(2, 1)
        .with_max_tokens(tokenizer.max_tokens())
        .with_seed(1);
    let data = TrainingData::new(&tokenizer, &train, &[], &index)?;
    let trained = Trainer::new(TrainConfig {
        epochs: 30,
        batch_size: 32,
        learning_rate: 3e-3,
        seed: 1,
        loss: LossConfig { r_drop: 0.0, ..LossConfig::default() },
        ..TrainConfig::default()
    })
    .fit(config.init::<Autodiff<Flex>>(&device)?, &data, &device)?;
    println!("trained for {:.1} s", trained.seconds);

    // 5. Saved, and loaded as another program would.
    let folder = std::env::temp_dir().join(format!("cart-standalone-{}", std::process::id()));
    let made = Retriever::new(trained.model, config, tokenizer, quantizer, index, device)?;
    made.save(&folder)?;
    let retriever = Retriever::<Flex>::load(&folder, &device)?;

    // 6. The loaded index answers as the one in memory, to the last bit.
    assert_eq!(retriever.search_all(&queries).run()?, made.search_all(&queries).run()?);
    let relevant: Vec<[u32; 1]> = (0..all.len() as u32).map(|item| [item]).collect();
    let rankings = retriever.search_all(&queries).top(10).rankings()?;
    let metrics = evaluate(&rankings, &relevant, all.len(), TruncatedTies::Listed)?.metrics();
    println!("{metrics}");
    for hit in retriever.search("the boat on the beach is green").top(3).run()? {
        println!("{}  {:.3}  {}", hit.id, hit.score, hit.identifier);
    }
    // Chance is 0.03.
    assert!(metrics.recall_at_10 > 0.6, "Recall@10 {}", metrics.recall_at_10);

    // 7. Filters and the exact search hold.
    let few = retriever.allow(&["picture-000", "picture-007"])?;
    let hits = retriever.search(&queries[7]).filter(&few).run()?;
    assert_eq!(hits.len(), 2);
    let exact = retriever.search_exact(&queries[7], 1, 1000)?;
    assert!(exact.proven && exact.answers.len() == 1);

    // The index maps a file of the folder.
    drop(retriever);
    std::fs::remove_dir_all(&folder).map_err(|source| Error::io("remove", &folder, source))?;
    println!("all checks passed, {:.1} s", started.elapsed().as_secs_f64());
    Ok(())
}
