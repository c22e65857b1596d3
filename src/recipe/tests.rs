//! Recipe files and what they are made of.

use super::{Recipe, Settings};

fn written(settings: &[&str]) -> crate::Result<Settings> {
    Settings::default().with_all(settings)
}

#[test]
fn what_a_recipe_writes_it_reads_again() {
    let recipe = Recipe::default();
    let text = recipe.to_toml().unwrap();
    assert!(text.contains("learning_rate = 0.001"), "{text}");
    assert_eq!(toml::from_str::<Recipe>(&text).unwrap(), recipe);
    assert_eq!(toml::from_str::<Recipe>("").unwrap(), recipe);
}

#[test]
fn unknown_keys_old_keys_and_values_out_of_range_are_refused_by_name() {
    for (setting, parts) in [
        ("quantiser.coarse.k=3", &["unknown field `quantiser`"][..]),
        ("training.batchsize=3", &["unknown field `batchsize`"]),
        ("training.batch_size=0", &["[training]", "batch_size"]),
        ("beam.width=0", &["[beam]"]),
        ("model.n_heads=7", &["n_heads of [model]", "128"]),
        ("beam.scope=\"all\"", &["scope"]),
        ("automatic=true", &["remove the line"]),
        ("training.epochs", &["no equals sign"]),
        ("seed.first=1", &["seed"]),
    ] {
        let error = written(&[setting]).unwrap_err().to_string();
        for part in parts {
            assert!(error.contains(part), "{setting}: {part}: {error}");
        }
    }
    assert!(written(&["seed=2", "seed.first=1"]).is_err());
}

#[test]
fn a_setting_can_be_replaced_and_removed() {
    let settings = written(&["training.epochs=7", "dataset=my photos"]).unwrap();
    assert!(settings.has("training") && settings.has("dataset"));
    let again = settings.clone().with("training.epochs=unset").unwrap();
    assert_ne!(again, settings);
    assert!(written(&["quantizer.fine={method=\"rq-kmeans\",sizes=[4,4]}"]).is_ok());
    assert!(written(&["quantizer.fine={method=\"rq-kmeans\",latent=4}"]).is_err());
}
