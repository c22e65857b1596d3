//! Files that somebody gives to programs, and what programs must not do to them. The programs of
//! `examples/lab` are held to the same.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Output,
};

use cart_retrieval::{
    data::{Caption, Captions, Splits},
    features::Features,
};

/// Six items in three splits, two captions each, the second in the words of the first, reversed.
pub fn six_items() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let ids: Vec<String> = (0..6).map(|item| format!("i{item}")).collect();
    let items = Features::from_rows((0..12).map(|v| v as f32 + 1.0).collect(), 2)
        .unwrap()
        .with_id_list(ids.clone())
        .unwrap();
    items.save_npy(path("features.npy")).unwrap();
    items.save_ids(path("ids.txt")).unwrap();
    let mut captions = Captions::new();
    for (item, id) in ids.iter().enumerate() {
        for text in [format!("number {item}"), format!("{item} number")] {
            captions.push(Caption::new(id, text).with_kind("human")).unwrap();
        }
    }
    captions.to_jsonl(path("captions.jsonl")).unwrap();
    let part = |range: std::ops::Range<usize>| ids[range].to_vec();
    let splits = [("train", part(2..6)), ("val", part(0..1)), ("test", part(1..2))];
    Splits::from_ids(splits).unwrap().to_json(path("splits.json")).unwrap();
    folder
}

/// All files below a folder by their paths; links by where they lead.
pub fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
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
pub fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let made = six_items();
    fs::create_dir_all(data.join("sub")).unwrap();
    for entry in fs::read_dir(made.path()).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), data.join(entry.file_name())).unwrap();
    }
    fs::write(data.join("recipe.toml"), "dataset = \"mine\"\n").unwrap();
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

/// What programs are asked to write to, as single files.
pub fn files() -> Vec<&'static str> {
    let mut files = vec![
        "data/captions.jsonl",
        "data/sub/../captions.jsonl",
        "hard.jsonl",
        "data/recipe.toml",
        "data/features.npy",
        "data/mine.json",
        "data",
    ];
    if cfg!(unix) {
        files.extend(["soft.jsonl", "linked/ids.txt"]);
    }
    files
}

/// What programs are asked to write to, as folders.
pub fn folders() -> Vec<&'static str> {
    let mut folders = vec!["data", "data/", "data/sub/..", "data/mine.json"];
    if cfg!(unix) {
        folders.push("linked");
    }
    folders
}

pub fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Checks that a program refuses its arguments, twice, and that the folder stays as it is.
pub fn refused(
    folder: &Path,
    before: &BTreeMap<PathBuf, Vec<u8>>,
    run: impl Fn(&str, &Path, &[&str]) -> Output,
    (name, arguments): (&str, &[&str]),
) {
    for _ in 0..2 {
        let output = run(name, folder, arguments);
        let said = said(&output);
        assert!(!output.status.success(), "{name} {arguments:?}: {said}");
        assert!(said.contains("expected"), "{name} {arguments:?}: {said}");
        assert_eq!(&contents(folder), before, "{name} {arguments:?}: {said}");
    }
}
