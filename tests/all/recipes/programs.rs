//! No program harms its inputs, wherever its outputs are said to lie.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use cart_media::Picture;

use super::given::{self, contents, folder, said};

/// Runs an example, which `cargo test` builds next to the tests.
fn run(name: &str, folder: &Path, arguments: &[&str]) -> Output {
    let exe = std::env::current_exe().unwrap();
    let program = exe.parent().unwrap().with_file_name("examples").join(name);
    let program = program.with_extension(std::env::consts::EXE_EXTENSION);
    assert!(
        program.is_file(),
        "{} is missing: run `cargo build --release --examples` before this test alone",
        program.display()
    );
    Command::new(program).args(arguments).current_dir(folder).output().unwrap()
}

#[test]
fn outputs_over_inputs_are_refused_and_nothing_is_touched() {
    let folder = folder();
    let before = contents(folder.path());
    let refused = |name: &str, arguments: &[&str]| {
        given::refused(folder.path(), &before, run, (name, arguments));
    };
    let data = ["--data", "data", "--recipe", "data/recipe.toml"];
    for to in given::files() {
        for (name, more) in
            [("evaluate", &["--bm25", "--json"][..]), ("grow", &["--out", "index", "--json"])]
        {
            refused(name, &[&data[..], more, &[to]].concat());
        }
        refused("train", &[&data[..], &["--out", "index", "--write-recipe", to]].concat());
        refused("embeddings", &[&["like"], &data[..], &["--json", to]].concat());
        refused(
            "shards",
            &["fit", "--data", "data", "--coarse", "2", "--fine", "2", "--quantizer", to],
        );
        let coder = ["--data", "data", "--quantizer", "data/recipe.toml", "--out", to];
        refused("shards", &[&["encode"], &coder[..]].concat());
        refused("shards", &[&["merge"], &coder[..], &["data/captions.jsonl"]].concat());
        refused("inspect", &["usage", "--index", "data", "--data", "data", "--out", to]);
        refused("quickstart", &["--short", "--out", "new", "--json", to]);
    }
    for to in given::folders() {
        refused("train", &[&data[..], &["--out", to]].concat());
        refused("train", &[&data[..], &["--out", "index", "--run", to]].concat());
        refused("grow", &[&data[..], &["--out", to]].concat());
        refused("draw", &["--modality", "image", "--items", "3", "--out", to]);
        refused("quickstart", &["--short", "--out", to]);
        refused("extract", &["--media", "data", "--out", to, "files", "--modality", "image"]);
    }
    for to in ["captions.jsonl", "ids.txt", "mine.json", "sub"] {
        refused("caption", &[&data[..], &["--all", "--out", to, "retrieval"]].concat());
        let more = ["--all", "--out", to, "command", "--media", "data", "cat"];
        refused("caption", &[&data[..], &more].concat());
    }
}

/// The user's pictures and captions lie in the folder that is written to, or are links into it.
#[test]
fn extract_leaves_what_lies_in_its_folder_and_changes_nothing_the_second_time() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("my");
    fs::create_dir_all(out.join("pics")).unwrap();
    for (name, value) in [("a.png", 40), ("b.png", 80), ("broken.png", 0)] {
        let bytes = match value {
            0 => b"broken".to_vec(),
            _ => Picture::new(9, 7, vec![value; 9 * 7 * 3]).unwrap().to_png().unwrap(),
        };
        fs::write(out.join("pics").join(name), bytes).unwrap();
    }
    let line =
        |id: &str| format!("{{\"caption\": \"grey\",  \"id\": \"{id}\", \"mine\": [1]}}\r\n");
    let captions = ["a.png", "b.png", "broken.png"].map(line).concat();
    fs::write(out.join("captions.jsonl"), &captions).unwrap();
    let mut given = vec!["my/captions.jsonl", "my/pics/../captions.jsonl"];
    if cfg!(unix) {
        #[cfg(unix)]
        std::os::unix::fs::symlink("my/captions.jsonl", folder.path().join("link.jsonl")).unwrap();
        given.push("link.jsonl");
    }
    let before = contents(folder.path());
    let mut first = None;
    for captions in given {
        let from = ["--media", "my/pics", "--out", "my", "files", "--modality", "image"];
        let output =
            run("extract", folder.path(), &[&from[..], &["--captions", captions]].concat());
        assert!(output.status.success(), "{}", said(&output));
        let after = contents(folder.path());
        assert!(before.iter().all(|(path, bytes)| after.get(path) == Some(bytes)), "{captions}");
        assert_eq!(first.get_or_insert(after.clone()), &after, "{captions}");
    }
    let data = cart_retrieval::data::DataFolder::open(&out).unwrap();
    assert_eq!((data.items.len(), data.captions.len()), (2, 2));
}
