//! No program harms its inputs, wherever its outputs are said to lie.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use cart_retrieval::media::Picture;

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

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// All files below a folder by their paths; links by where they lead.
fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_symlink() {
            let target = fs::read_link(&path).unwrap();
            all.insert(path, target.to_str().unwrap().as_bytes().to_vec());
        } else if path.is_dir() {
            all.extend(contents(&path));
        } else {
            all.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    all
}

/// A data folder `data` with a recipe and files of the user's own in it, and links to them.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let made = super::folder();
    fs::create_dir_all(data.join("sub")).unwrap();
    for entry in fs::read_dir(made.path()).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), data.join(entry.file_name())).unwrap();
    }
    fs::copy(super::named("emoji.toml"), data.join("recipe.toml")).unwrap();
    for name in ["index.html", "throughput.svg", "weights.safetensors", "ablation.md"] {
        fs::write(data.join(name), "a file of the user's").unwrap();
    }
    fs::write(data.join("mine.json"), r#"{"mine": [1, 2, 3]}"#).unwrap();
    fs::hard_link(data.join("captions.jsonl"), folder.path().join("hard.jsonl")).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::symlink;
        symlink("data/captions.jsonl", folder.path().join("soft.jsonl")).unwrap();
        symlink("data", folder.path().join("linked")).unwrap();
    }
    folder
}

#[test]
fn outputs_over_inputs_are_refused_and_nothing_is_touched() {
    let folder = folder();
    let before = contents(folder.path());
    let mut outputs = vec![
        "data/captions.jsonl",
        "data/sub/../captions.jsonl",
        "hard.jsonl",
        "data/recipe.toml",
        "data/features.npy",
        "data/mine.json",
        "data",
    ];
    let mut folders = vec!["data", "data/", "data/sub/..", "data/mine.json"];
    if cfg!(unix) {
        outputs.extend(["soft.jsonl", "linked/ids.txt"]);
        folders.push("linked");
    }
    let refused = |name: &str, arguments: &[&str]| {
        for _ in 0..2 {
            let output = run(name, folder.path(), arguments);
            let said = said(&output);
            assert!(!output.status.success(), "{name} {arguments:?}: {said}");
            assert!(said.contains("expected"), "{name} {arguments:?}: {said}");
            assert_eq!(contents(folder.path()), before, "{name} {arguments:?}: {said}");
        }
    };
    let data = ["--data", "data", "--recipe", "data/recipe.toml"];
    for to in outputs {
        for (name, more) in [
            ("evaluate", &["--bm25", "--json"][..]),
            ("study", &["--json"]),
            ("grow", &["--out", "index", "--json"]),
        ] {
            refused(name, &[&data[..], more, &[to]].concat());
        }
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
        let rows = ["--rows", "data/features.npy"];
        refused("measure", &[&["kmeans"], &rows[..], &["--n", "6", "--centres", to]].concat());
    }
    for to in folders {
        refused("train", &[&data[..], &["--out", to]].concat());
        refused("train", &[&data[..], &["--out", "index", "--run", to]].concat());
        refused("grow", &[&data[..], &["--out", to]].concat());
        refused("ablation", &[&data[..], &["--short", "--out", to]].concat());
        refused("draw", &["--modality", "image", "--items", "3", "--out", to]);
        refused("quickstart", &["--short", "--out", to]);
        refused("throughput", &["--sizes", "10", "--seconds", "0", "--out", to]);
        refused("measure", &["dump", "--to", to]);
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
