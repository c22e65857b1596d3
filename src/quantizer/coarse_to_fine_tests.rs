use burn::backend::Flex;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;

fn items(n: usize) -> Features {
    let mut rng = ChaCha8Rng::seed_from_u64(6);
    let centres: Vec<f32> = (0..60).map(|_| rng.random::<f32>() * 6.0).collect();
    let rows = (0..n * 10).map(|i| centres[(i / 10 % 6) * 10 + i % 10] + rng.random::<f32>());
    Features::from_rows(rows.collect(), 10).unwrap()
}

fn fines() -> Vec<FineConfig> {
    vec![
        FineConfig::RqVae(RqVaeConfig {
            latent: 8,
            hidden: vec![16],
            epochs: 20,
            batch: 50,
            ..RqVaeConfig::new(vec![8, 8])
        }),
        FineConfig::RqKmeans(RqKMeansConfig::new(vec![8, 8])),
        FineConfig::Hierarchical(HierarchicalConfig::new(vec![8, 4])),
    ]
}

#[test]
fn coarse_tokens_are_those_of_k_means_and_fine_tokens_those_of_its_residuals() {
    let items = items(200);
    for fine in fines() {
        let fitted = CoarseToFineConfig::new(6, fine)
            .with_seed(3)
            .fit::<Flex>(&items, &Default::default())
            .unwrap();
        let codes = fitted.encode(items.as_slice()).unwrap();
        let coarse = fitted.coarse().encode(items.as_slice()).unwrap();
        let centres = fitted.coarse().decode(&coarse).unwrap();
        let rest: Vec<f32> = items.as_slice().iter().zip(&centres).map(|(a, b)| a - b).collect();
        let fine = fitted.fine().as_quantizer().encode(&rest).unwrap();
        assert_eq!(codes, coarse.join(&fine));
        assert_eq!(fitted.decode_prefix(&codes, 1).unwrap(), centres);
        assert!(fitted.decode_prefix(&codes, 4).is_err());
    }
}

#[test]
fn an_index_knows_items_identifiers_and_health() {
    let items = items(200);
    for fine in fines() {
        let fitted =
            CoarseToFineConfig::new(6, fine).fit::<Flex>(&items, &Default::default()).unwrap();
        let index = fitted.assign(&items).run().unwrap();
        assert_eq!(index.trie().levels(), 4);
        assert_eq!(index.health().levels.len(), 3);
        let energy: Vec<f64> =
            index.health().levels.iter().map(|level| level.residual_energy).collect();
        assert!(energy[2] < 0.6 && energy[2] <= energy[0], "{energy:?}");
        let identifiers = index.trie().identifiers();
        let codes = fitted.encode(items.as_slice()).unwrap();
        for item in 0..200 {
            assert_eq!(&identifiers.row(item)[..3], codes.row(item));
        }
    }
}

#[test]
fn settings_round_trip_through_json_and_refuse_unknown_fields() {
    for fine in fines() {
        let config = CoarseToFineConfig::new(6, fine);
        let json = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<CoarseToFineConfig>(&json).unwrap(), config);
        let typo = json.replace("\"sizes\"", "\"sices\"");
        assert!(serde_json::from_str::<CoarseToFineConfig>(&typo).is_err());
    }
}

/// The number behind `before` in an advice.
fn advised(remedy: &str, before: &str) -> Option<usize> {
    let rest = &remedy[remedy.find(before)? + before.len()..];
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// Follows an error's advice; whether it had any.
fn follow(config: &mut CoarseToFineConfig, error: &Error) -> bool {
    let (Error::Quantizer(problem) | Error::Collapsed(problem)) = error else { return false };
    let remedy = &problem.remedy;
    if let Some(k) = advised(remedy, "set k to ") {
        config.coarse.k = k;
        return true;
    }
    let sizes = match &mut config.fine {
        FineConfig::RqVae(fine) => &mut fine.sizes,
        FineConfig::RqKmeans(fine) => &mut fine.sizes,
        FineConfig::Hierarchical(fine) => &mut fine.sizes,
    };
    for level in 0..sizes.len() {
        if let Some(size) = advised(remedy, &format!("set sizes[{level}] to ")) {
            sizes[level] = size;
            return true;
        }
        if remedy.contains(&format!("leave out sizes[{level}] and the levels after it")) {
            sizes.truncate(level);
            return true;
        }
    }
    let add = remedy.starts_with("add a level to sizes");
    sizes.extend(add.then(|| sizes[0]));
    add
}

fn small(sizes: Vec<usize>) -> [FineConfig; 2] {
    let vae = RqVaeConfig { latent: 4, hidden: vec![8], ..RqVaeConfig::new(sizes.clone()) };
    [
        FineConfig::RqVae(RqVaeConfig { epochs: 1, ..vae }),
        FineConfig::RqKmeans(RqKMeansConfig::new(sizes)),
    ]
}

#[test]
fn advice_leads_to_a_fit() {
    for n in [2, 5, 12, 30] {
        let items = items(n);
        for (k, sizes) in [(2, vec![4, 4]), (8, vec![16, 16, 16]), (32, vec![64, 64])] {
            for fine in small(sizes) {
                let mut config = CoarseToFineConfig::new(k, fine);
                let mut rounds = 0;
                while let Err(error) = config.fit::<Flex>(&items, &Default::default()) {
                    let text = error.to_string();
                    assert!(
                        text.contains("coarse K-Means, k =") || text.contains("fine level"),
                        "{text}"
                    );
                    assert!(follow(&mut config, &error), "{text}");
                    rounds += 1;
                    assert!(rounds <= 5, "{n} {config:?}: {text}");
                }
            }
        }
    }
}

#[test]
fn another_level_separates_what_shares_codes() {
    let items = items(40);
    let thresholds = crate::quantizer::HealthThresholds {
        min_used_share: 0.0,
        min_normalised_entropy: 0.0,
        max_shared_items: 0.1,
        max_largest_collision: 256,
        max_residual_energy: f64::INFINITY,
    };
    for fine in small(vec![3]) {
        let mut config = CoarseToFineConfig::new(2, fine);
        let mut rounds = 0;
        loop {
            let healthy = config
                .fit::<Flex>(&items, &Default::default())
                .and_then(|fitted| fitted.assign(&items).run()?.ensure_healthy(&thresholds));
            let Err(error) = healthy else { break };
            assert!(follow(&mut config, &error), "{error}");
            rounds += 1;
            assert!(rounds <= 8, "{config:?}: {error}");
        }
        assert!(rounds > 0);
    }
}

#[test]
fn centres_that_leave_no_residual_need_no_fine_levels() {
    let items = items(6);
    let hierarchical = FineConfig::Hierarchical(HierarchicalConfig::new(vec![3]));
    for fine in small(vec![16, 16]).into_iter().chain([hierarchical]) {
        let config = CoarseToFineConfig::new(6, fine);
        let fitted = config.fit::<Flex>(&items, &Default::default()).unwrap();
        let codes = fitted.encode(items.as_slice()).unwrap();
        assert!(codes.rows().all(|row| row[1] == 0));
        assert_eq!(fitted.decode(&codes).unwrap(), items.as_slice());
        let index = fitted.assign(&items).run().unwrap();
        index.ensure_healthy(&crate::quantizer::HealthThresholds::default()).unwrap();
        assert_eq!(index.health().levels[1].used, 1);
        let bytes = fitted.to_safetensors().unwrap();
        let loaded = CoarseToFine::<Flex>::from_safetensors(&bytes, &Default::default());
        assert_eq!(loaded.unwrap().encode(items.as_slice()).unwrap(), codes);
    }
}

#[test]
fn impossible_settings_are_refused() {
    let items = items(20);
    let device = Default::default();
    for config in [
        CoarseToFineConfig::new(21, RqVaeConfig::new(vec![4])),
        CoarseToFineConfig::new(0, RqVaeConfig::new(vec![4])),
        CoarseToFineConfig::new(1, RqVaeConfig::new(vec![4])),
        CoarseToFineConfig::new(4, RqVaeConfig::new(vec![])),
        CoarseToFineConfig::new(4, RqVaeConfig::new(vec![1])),
        CoarseToFineConfig::new(4, RqVaeConfig::new(vec![21])),
    ] {
        assert!(config.fit::<Flex>(&items, &device).is_err(), "{config:?}");
    }
}
