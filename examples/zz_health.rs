use burn::backend::{Autodiff, Flex};
use cart_retrieval::{data::procedural::*, prelude::*, quantizer::*};
fn main() -> anyhow::Result<()> {
    let which: Vec<String> = std::env::args().skip(1).collect();
    for set in &which {
        let items = if let Some(n) = set.strip_prefix("scenes") {
            let s = Scenes::generate(
                &ScenesConfig::new(2000).with_max_objects(n.parse()?).with_seed(7),
            )?;
            let (r, d) = s.features();
            Features::from_rows(r, d)?
        } else {
            Features::open(format!("../shared/data/{set}/features.npy"))?
        };
        for (name, fine) in [
            ("vae64 lat64 h256 ema", FineConfig::RqVae(RqVaeConfig::new(vec![64; 3]))),
            (
                "vae64 lat32 h256 ema lr2e-3 e150",
                FineConfig::RqVae(
                    RqVaeConfig::new(vec![64; 3])
                        .with_latent(32)
                        .with_learning_rate(2e-3)
                        .with_epochs(150),
                ),
            ),
            (
                "vae64 lat64 perdim",
                FineConfig::RqVae(
                    RqVaeConfig::new(vec![64; 3]).with_standardise(Standardise::PerDimension),
                ),
            ),
            (
                "vae64 grad",
                FineConfig::RqVae(
                    RqVaeConfig::new(vec![64; 3]).with_codebooks(Codebooks::Gradient),
                ),
            ),
            (
                "vae64 commit1 ema.95",
                FineConfig::RqVae(
                    RqVaeConfig::new(vec![64; 3])
                        .with_commitment(1.0)
                        .with_codebooks(Codebooks::Ema { decay: 0.95 }),
                ),
            ),
            (
                "vae64 no hidden",
                FineConfig::RqVae(RqVaeConfig::new(vec![64; 3]).with_hidden(vec![])),
            ),
            ("rqk64", FineConfig::RqKmeans(RqKMeansConfig::new(vec![64; 3]))),
        ] {
            let t = std::time::Instant::now();
            let q = CoarseToFineConfig::new(32, vec![])
                .with_fine(fine)
                .with_seed(1)
                .fit::<Autodiff<Flex>>(&items, &Default::default())?;
            let h = q.assign(&items)?;
            let h = h.health();
            let used: Vec<String> = h
                .levels
                .iter()
                .map(|l| format!("{:.0}%/{:.2}", 100.0 * l.used_share, l.residual_energy))
                .collect();
            println!(
                "{set} {name}: {} shared {:.1}% largest {} ({:.1}s)",
                used.join(" "),
                100.0 * h.shared_share,
                h.largest_collision,
                t.elapsed().as_secs_f64()
            );
        }
    }
    Ok(())
}
