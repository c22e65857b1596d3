use burn::backend::{Autodiff, Flex};
use cart_retrieval::{data::procedural::*, eval::*, prelude::*, train::StopFlag};
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
fn main() -> anyhow::Result<()> {
    let s = Scenes::generate(&ScenesConfig::new(2000).with_max_objects(2).with_seed(7))?;
    let (r, d) = s.features();
    let items = Features::from_rows(r, d)?;
    let c = s.captions()?;
    let conv = |v: &[Caption]| -> Vec<ItemCaption> {
        v.iter()
            .map(|c| ItemCaption { item: c.item as u32, text: c.text.clone(), weight: 1.0 })
            .collect()
    };
    let (train, test) = (conv(&c.training), conv(&c.queries));
    let tok = TextTokenizer::train(
        train.iter().map(|c| c.text.as_str()),
        &TokenizerConfig { vocabulary: 1000, ..Default::default() },
        40,
    )?;
    for epochs in [2, 5] {
        let enc = CartConfig::new(
            tok.vocabulary(),
            cart_retrieval::identifier::Vocabulary::new(vec![2])?,
        )
        .with_max_tokens(40)
        .encoder();
        let cfg = DualTowerConfig {
            epochs,
            batch_size: 32,
            learning_rate: 2e-3,
            ..DualTowerConfig::new(enc)
        };
        let t = std::time::Instant::now();
        let tower =
            cfg.fit::<Autodiff<Flex>>(&tok, &train, &items, &StopFlag::new(), &Default::default())?;
        let secs = t.elapsed().as_secs_f64();
        let texts: Vec<&str> = test.iter().map(|c| c.text.as_str()).collect();
        let rel: Vec<[u32; 1]> = test.iter().map(|c| [c.item]).collect();
        let m =
            evaluate(&tower.search_all(&texts, 50)?, &rel, 2000, TruncatedTies::Listed)?.metrics();
        println!("tower {epochs} epochs {secs:.0}s: {m}");
    }
    Ok(())
}
