//! Holds the public names of the library: `tests/public_names.txt` lists all of them, so that a
//! change of the surface is seen in review. At most [`LIMIT`] of them lie outside of the module for
//! experts.
//!
//! The test reads the sources: every submodule of a room is private, so that the public names are
//! the public items and re-exports of the rooms' own files. `CART_WRITE_DOCS=1 cargo test --release
//! --lib surface_test` writes the list.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use crate::floors_test::{Token, tokens};

/// Maximum number of public names outside of `expert`.
const LIMIT: usize = 120;
/// The module that is hidden from the documentation.
const HIDDEN: &str = "members";

/// The public names of a file, with the path of its module in front of each.
fn names_of(file: &Path, module: &str, found: &mut BTreeSet<String>) {
    let source = fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    let tokens = tokens(&source);
    let mut depth = 0;
    let mut at = 0;
    while at < tokens.len() {
        match tokens[at].text.as_str() {
            "{" => depth += 1,
            "}" => depth -= 1,
            "pub" if depth == 0 && text(&tokens, at + 1) != "(" => {
                at += 1;
                while matches!(text(&tokens, at), "unsafe" | "async")
                    || (text(&tokens, at) == "const" && text(&tokens, at + 1) == "fn")
                {
                    at += 1;
                }
                let name = text(&tokens, at + 1).to_string();
                match text(&tokens, at) {
                    "use" => at = leaves(&tokens, at + 1, module, found),
                    "mod" if name == HIDDEN => {}
                    "mod" => {
                        assert_eq!(text(&tokens, at + 2), ";", "{module}::{name} is inline");
                        let inner = format!("{module}::{name}");
                        names_of(&place(file, &name), inner.trim_start_matches("::"), found);
                    }
                    _ => {
                        found.insert(format!("{module}::{name}"));
                    }
                }
            }
            _ => {}
        }
        at += 1;
    }
}

fn text(tokens: &[Token], at: usize) -> &str {
    tokens.get(at).map_or("", |token| &token.text)
}

/// Adds the names that a `use` tree brings; returns the place of its `;`.
fn leaves(tokens: &[Token], start: usize, module: &str, found: &mut BTreeSet<String>) -> usize {
    let mut at = start;
    while text(tokens, at) != ";" {
        let ends = matches!(text(tokens, at + 1), "," | "}" | ";");
        if ends && !matches!(text(tokens, at), "," | "}" | "{" | "::") {
            assert_ne!(text(tokens, at), "*", "{module} re-exports everything of a module");
            found.insert(format!("{module}::{}", text(tokens, at)));
        }
        at += 1;
    }
    at
}

/// The file of a module that another file declares.
fn place(file: &Path, name: &str) -> PathBuf {
    let folder = file.parent().expect("a file lies in a folder");
    let folder = match file.file_stem().and_then(|stem| stem.to_str()) {
        Some("lib" | "mod") => folder.to_path_buf(),
        Some(stem) => folder.join(stem),
        None => panic!("{} has no name", file.display()),
    };
    let alone = folder.join(format!("{name}.rs"));
    if alone.exists() { alone } else { folder.join(name).join("mod.rs") }
}

fn public_names() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    names_of(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs"), "", &mut found);
    found.into_iter().map(|name| name.trim_start_matches("::").to_string()).collect()
}

#[test]
fn the_public_names_are_listed() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/public_names.txt");
    let names = public_names();
    let list: String = names.iter().map(|name| format!("{name}\n")).collect();
    if std::env::var_os("CART_WRITE_DOCS").is_some() {
        fs::write(&path, &list).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap();
    let listed: BTreeSet<String> = written.lines().map(str::to_string).collect();
    let new: Vec<_> = names.difference(&listed).collect();
    let gone: Vec<_> = listed.difference(&names).collect();
    assert!(
        new.is_empty() && gone.is_empty(),
        "tests/public_names.txt: not in it: {new:?}; no longer public: {gone:?}; write it again with \
         CART_WRITE_DOCS=1"
    );
}

#[test]
fn few_names_are_public_outside_of_expert() {
    let names = public_names();
    // The prelude repeats names.
    let outside = |name: &&String| !name.starts_with("expert::") && !name.starts_with("prelude::");
    let count = names.iter().filter(outside).count();
    assert!(names.len() > count && count > 0, "the sources were not read");
    assert!(count <= LIMIT, "{count} public names outside of expert; at most {LIMIT}");
}
