//! A crate of its own that depends on the library: embeddings and captions that it makes itself, an
//! index trained in seconds, saved, loaded and searched. It ends with an error when the index does
//! not answer as it should.

#[allow(dead_code)] // The other programs use more of it.
#[macro_use]
#[path = "../../common/print.rs"]
mod print;

use std::time::Instant;

use burn::backend::Flex;
use cart_retrieval::prelude::*;

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

    // 2. Captions: the recipe trains on all but the last of an item, which is kept for queries.
    let mut captions = Captions::new();
    let mut queries = Vec::new();
    for (i, item) in all.iter().enumerate() {
        let texts = item.captions();
        queries.push(texts[2].clone());
        for text in texts {
            captions.push(Caption::new(format!("picture-{i:03}"), text))?;
        }
    }
    let data = DataFolder::new(items, captions)?;

    // 3. All settings follow the data; a small network and few passes, to take seconds.
    let recipe = Settings::default()
        .with_all([
            "model={ d_model=64, d_ff=128, n_heads=4, encoder_layers=2, decoder_layers=1 }",
            "training={ epochs=30, learning_rate=3e-3, word_dropout=0.0, validations=1 }",
        ])?
        .recipe(&data)?;
    for reason in recipe.reasons() {
        println!("chosen: {reason}");
    }

    // 4. Identifiers and network.
    let made = recipe.fit::<Flex>(&data, &device)?;
    println!("trained in {:.1} s", started.elapsed().as_secs_f64());

    // 5. Saved, and loaded as another program would.
    let folder = std::env::temp_dir().join(format!("cart-standalone-{}", std::process::id()));
    made.save(&folder)?;
    let retriever = Retriever::<Flex>::load(&folder, &device)?;

    // 6. The loaded index answers as the one in memory, to the last bit.
    assert_eq!(retriever.query(&queries).run()?, made.query(&queries).run()?);
    let metrics = recipe.evaluate(retriever.clone(), &data)?.metrics;
    println!("{metrics}");
    for hit in retriever.query("the boat on the beach is green").top(3).run()? {
        println!("{}  {:.3}  {}", hit.id, hit.score, hit.identifier);
    }
    // Chance is 0.03.
    assert!(metrics.recall_at_10 > 0.6, "Recall@10 {}", metrics.recall_at_10);

    // 7. Filters and the exact search hold.
    let few = retriever.allow(&["picture-000", "picture-007"])?;
    let hits = retriever.query(&queries[7]).filter(&few).run()?;
    assert_eq!(hits.len(), 2);
    let exact = retriever.query(&queries[7]).top(1).exact(1000)?;
    assert!(exact.proven && exact.hits.len() == 1);

    // The index maps a file of the folder.
    drop(retriever);
    std::fs::remove_dir_all(&folder).map_err(|source| Error::io("remove", &folder, source))?;
    println!("all checks passed, {:.1} s", started.elapsed().as_secs_f64());
    Ok(())
}
