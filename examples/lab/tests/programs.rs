//! No program harms its inputs, wherever its outputs are said to lie.

#[path = "../../../tests/all/recipes/given.rs"]
mod given;

use std::{
    path::Path,
    process::{Command, Output},
};

fn run(name: &str, folder: &Path, arguments: &[&str]) -> Output {
    let program = match name {
        "ablation" => env!("CARGO_BIN_EXE_ablation"),
        "measure" => env!("CARGO_BIN_EXE_measure"),
        "study" => env!("CARGO_BIN_EXE_study"),
        "throughput" => env!("CARGO_BIN_EXE_throughput"),
        name => panic!("{name} is no program of this package"),
    };
    Command::new(program).args(arguments).current_dir(folder).output().unwrap()
}

#[test]
fn outputs_over_inputs_are_refused_and_nothing_is_touched() {
    let folder = given::folder();
    let before = given::contents(folder.path());
    let refused = |name: &str, arguments: &[&str]| {
        given::refused(folder.path(), &before, run, (name, arguments));
    };
    let data = ["--data", "data", "--recipe", "data/recipe.toml"];
    for to in given::files() {
        refused("study", &[&data[..], &["--json", to]].concat());
        let rows = ["--rows", "data/features.npy"];
        refused("measure", &[&["kmeans"], &rows[..], &["--n", "6", "--centres", to]].concat());
    }
    for to in given::folders() {
        refused("ablation", &[&data[..], &["--short", "--out", to]].concat());
        refused("throughput", &["--sizes", "10", "--seconds", "0", "--out", to]);
        refused("measure", &["dump", "--to", to]);
    }
}
