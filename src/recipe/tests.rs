//! Recipe files and what they are made of.

use std::{fs, path::Path};

use toml::{Table, Value};

use super::{Recipe, Settings, SplitSettings, TextSettings, TuningSettings, choice::Choice};
use crate::data::CaptionFilter;

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

/// A recipe with every table that there is.
fn complete(pretrained: bool) -> Recipe {
    let filter = CaptionFilter { ordinals: Some(vec![0]), ..CaptionFilter::default() };
    let recipe = Choice::of_some_data(pretrained).recipe;
    Recipe {
        train: CaptionFilter { held_out: true, except_held_out: true, ..filter.clone() },
        validation: Some(filter.clone()),
        splits: Some(SplitSettings {
            train: "train".into(),
            tuning: Some("val".into()),
            test: "test".into(),
        }),
        tuning: Some(TuningSettings { train: filter.clone(), queries: filter }),
        text: Some(TextSettings { pretrained: "FOLDER".into(), dropout: Some(0.1) }),
        ..recipe
    }
}

/// The values of a table by their whole names.
fn flat(table: &Table, before: &str, all: &mut Vec<(String, String)>) {
    for (key, value) in table {
        let name = format!("{before}{key}");
        match value {
            Value::Table(inner) => flat(inner, &format!("{name}."), all),
            value => all.push((name, value.to_string())),
        }
    }
}

fn values(recipe: &Recipe) -> Vec<(String, String)> {
    let mut all = Vec::new();
    flat(&toml::from_str(&recipe.to_toml().unwrap()).unwrap(), "", &mut all);
    all
}

/// `CART_WRITE_DOCS=1` writes the table into the page.
#[test]
fn the_documentation_lists_every_setting_with_its_automatic_choice() {
    const START: &str = "<!-- settings -->\n";
    const END: &str = "<!-- end of settings -->";
    let chosen = |pretrained: bool| values(&Choice::of_some_data(pretrained).recipe);
    let (scratch, pretrained) = (chosen(false), chosen(true));
    let of = |all: &[(String, String)], name: &str| {
        let found = all.iter().find(|(other, _)| other == name);
        found.map_or(String::new(), |(_, value)| format!("`{value}`"))
    };
    let mut names: Vec<String> =
        values(&complete(true)).into_iter().map(|(name, _)| name).collect();
    names.extend(chosen(false).into_iter().map(|(name, _)| name));
    // All caption filters have the same keys.
    let filters = ["queries.", "validation.", "tuning."];
    names.retain(|name| !filters.iter().any(|filter| name.starts_with(filter)));
    names.sort();
    names.dedup();
    let mut wanted =
        String::from("\n| setting | encoder from scratch | pretrained encoder |\n|---|---|---|\n");
    for name in names {
        let (scratch, pretrained) = (of(&scratch, &name), of(&pretrained, &name));
        wanted += &format!("| `{name}` | {scratch} | {pretrained} |\n");
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/recipes.md");
    let page = fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(START).expect("where the table starts");
    let (found, after) = rest.split_once(END).expect("where the table ends");
    if std::env::var_os("CART_WRITE_DOCS").is_some() {
        fs::write(&path, format!("{before}{START}{wanted}{END}{after}")).unwrap();
        return;
    }
    assert_eq!(found, wanted, "run this test with CART_WRITE_DOCS=1");
}

/// Tables and their keys; caption filters that contradict themselves are refused later.
#[test]
fn every_setting_can_be_written_and_no_other() {
    let text = complete(true).to_toml().unwrap();
    let table: Table = toml::from_str(&text).unwrap();
    assert_eq!(toml::from_str::<Recipe>(&text).unwrap(), complete(true));
    for key in table.keys() {
        let Some(Value::Table(inner)) = table.get(key) else { continue };
        let mut wrong = table.clone();
        let mut inner = inner.clone();
        inner.insert("unheard_of".into(), 1.into());
        wrong.insert(key.clone(), inner.into());
        let error = wrong.try_into::<Recipe>().unwrap_err().to_string();
        assert!(error.contains("unheard_of"), "{key}: {error}");
    }
}

#[test]
fn a_space_needs_an_encoder_that_has_learned_something() {
    let with = |settings: &[&str]| {
        let settings = settings.iter().map(|setting| setting.to_string());
        Settings::default().with_all(settings).unwrap().preview().unwrap()
    };
    // Nothing is refused before it is known whether there is an encoder.
    let none = with(&["space={ texts=0.5 }"]).check_space().unwrap_err().to_string();
    assert!(none.contains("[space_tuning]"), "{none}");
    assert!(with(&["space={}", "space_tuning.epochs=0"]).check_space().is_err());
    assert!(with(&["space={}", "space_tuning.epochs=1"]).check_space().is_ok());
    assert!(complete(true).check_space().is_ok());
    assert!(Choice::of_some_data(false).recipe.check_space().is_ok());
}
