//! Holds the order of the rooms (the top-level modules): each may only use rooms below it, and no
//! files may use each other in a circle. `docs/architecture.md` draws the floors.
//!
//! The test reads the sources. It sees every path in `use` declarations and in code; it does not
//! see a method that one file calls on a type it got from another. Test code may use anything.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// The rooms, lowest first: each uses only rooms before it. Rooms that do not exist are skipped.
const FLOORS: [&[&str]; 10] = [
    &["error", "cancel", "storage"],
    &["kernels"],
    &["features", "identifier", "metadata"],
    &["trie", "index"],
    &["data"],
    &["nn", "optim", "model", "pretrained"],
    &["quantizer", "align", "decode"],
    &["eval", "train", "retrieve"],
    &["recipe"],
    &["backend", "expert", "members", "prelude"],
];

/// The same of the crate of media.
const MEDIA: [&[&str]; 3] = [&["media"], &["formats"], &["captioner", "extract"]];

/// The same of the crate of towers.
const TOWERS: [&[&str]; 4] =
    [&["networks", "names", "views"], &["config"], &["settings"], &["clap", "clip", "imagebind"]];

/// The same of the crate of procedural benchmarks.
const PROCEDURAL: [&[&str]; 3] = [
    &["vocabulary", "permutation", "compose", "texts"],
    &["benchmark", "split"],
    &["scenes", "sounds", "clips", "write"],
];

/// The same of the crate of baselines.
const BASELINES: [&[&str]; 2] =
    [&["ranks"], &["bm25", "nearest", "tfidf_ridge", "dual_tower", "fusion", "max_sim"]];

/// A piece of source text: a word, a `::`, or a single character.
#[derive(Clone, Debug)]
pub(crate) struct Token {
    line: usize,
    pub(crate) text: String,
}

/// Splits source text into tokens, without comments, strings and character literals.
pub(crate) fn tokens(source: &str) -> Vec<Token> {
    let chars: Vec<char> = source.chars().collect();
    let at = |i: usize| chars.get(i).copied().unwrap_or('\0');
    let word = |c: char| c.is_alphanumeric() || c == '_';
    let mut found = Vec::new();
    let mut line = 1;
    let mut i = 0;
    while i < chars.len() {
        let start = i;
        match at(i) {
            '/' if at(i + 1) == '/' => {
                while i < chars.len() && at(i) != '\n' {
                    i += 1;
                }
            }
            '/' if at(i + 1) == '*' => {
                let mut depth = 0;
                loop {
                    match (at(i), at(i + 1)) {
                        ('/', '*') => (depth, i) = (depth + 1, i + 2),
                        ('*', '/') => (depth, i) = (depth - 1, i + 2),
                        _ => i += 1,
                    }
                    if depth == 0 || i >= chars.len() {
                        break;
                    }
                }
            }
            '"' => i = after_string(&chars, i),
            // A lifetime is a quote before a word without a closing quote.
            '\'' if at(i + 1) == '\\' => {
                i += 3;
                while i < chars.len() && at(i) != '\'' {
                    i += 1;
                }
                i += 1;
            }
            '\'' if at(i + 2) == '\'' => i += 3,
            c if word(c) => {
                while word(at(i)) {
                    i += 1;
                }
                let text: String = chars[start..i].iter().collect();
                let quote = at(i) == '"' || (at(i) == '#' && matches!(at(i + 1), '"' | '#'));
                if quote && matches!(text.as_str(), "r" | "br" | "cr") {
                    let hashes = chars[i..].iter().take_while(|&&c| c == '#').count();
                    let end: String =
                        std::iter::once('"').chain("#".repeat(hashes).chars()).collect();
                    let rest: String = chars[i + hashes + 1..].iter().collect();
                    let length = rest.find(&end).map_or(rest.len(), |n| n + end.len());
                    i += hashes + 1 + rest[..length].chars().count();
                } else if at(i) == '"' && matches!(text.as_str(), "b" | "c") {
                    i = after_string(&chars, i);
                } else {
                    found.push(Token { line, text });
                }
            }
            ':' if at(i + 1) == ':' => {
                found.push(Token { line, text: "::".into() });
                i += 2;
            }
            c => {
                if !c.is_whitespace() {
                    found.push(Token { line, text: c.into() });
                }
                i += 1;
            }
        }
        line += chars[start..i.min(chars.len())].iter().filter(|&&c| c == '\n').count();
    }
    found
}

/// The place behind the string literal whose opening quote is at `open`.
fn after_string(chars: &[char], open: usize) -> usize {
    let mut i = open + 1;
    while i < chars.len() && chars[i] != '"' {
        i += 1 + usize::from(chars[i] == '\\');
    }
    i + 1
}

/// A path as it stands in a file, with the module it stands in.
#[derive(Clone, Debug)]
struct Mention {
    line: usize,
    module: Vec<String>,
    path: Vec<String>,
}

/// What a source file says about others.
#[derive(Debug, Default)]
struct Contents {
    /// Names that `use` declarations bring into a module, and the paths behind them.
    names: BTreeMap<(Vec<String>, String), Vec<String>>,
    /// Modules all of whose names a module takes (`use x::*`).
    globs: Vec<(Vec<String>, Vec<String>)>,
    /// Paths that the file uses.
    used: Vec<Mention>,
    /// Paths that it hands on by a public `use`, and whether it also uses the name.
    exported: Vec<(Mention, bool)>,
    /// Inline modules.
    inline: BTreeSet<Vec<String>>,
    /// Names of modules that are only compiled for tests.
    tests: BTreeSet<String>,
}

/// Reads the tokens of one file, which is the module `module`.
struct Reader<'a> {
    tokens: &'a [Token],
    next: usize,
    contents: Contents,
    /// Names brought in by re-exports: where they stand and what is behind them.
    exported: Vec<Mention>,
    words: BTreeSet<String>,
}

impl Contents {
    fn read(source: &str, module: &[&str]) -> Self {
        let tokens = tokens(source);
        let module: Vec<_> = module.iter().map(|&name| name.to_owned()).collect();
        let mut reader = Reader {
            tokens: &tokens,
            next: 0,
            contents: Self::default(),
            exported: Vec::new(),
            words: BTreeSet::new(),
        };
        reader.items(&module);
        let Reader { mut contents, exported, words, .. } = reader;
        let is_used = |mention: &Mention| mention.path.last().is_some_and(|n| words.contains(n));
        contents.exported = exported.into_iter().map(|m| (m.clone(), is_used(&m))).collect();
        contents
    }
}

impl Reader<'_> {
    fn text(&self, ahead: usize) -> &str {
        self.tokens.get(self.next + ahead).map_or("", |token| &token.text)
    }

    fn line(&self) -> usize {
        self.tokens.get(self.next).map_or(0, |token| token.line)
    }

    fn word(&self, ahead: usize) -> bool {
        self.text(ahead).starts_with(|c: char| c.is_alphabetic() || c == '_')
    }

    /// Skips a bracketed group that starts here, and gives its tokens.
    fn group(&mut self) -> Vec<String> {
        let start = self.next;
        let mut depth = 0;
        while self.next < self.tokens.len() {
            match self.text(0) {
                "(" | "[" | "{" => depth += 1,
                ")" | "]" | "}" => depth -= 1,
                _ => (),
            }
            self.next += 1;
            if depth == 0 {
                break;
            }
        }
        self.tokens[start..self.next].iter().map(|token| token.text.clone()).collect()
    }

    /// Skips the item that starts here, whose attributes are behind us.
    fn skip_item(&mut self) {
        while self.text(0) == "#" {
            self.next += 1;
            self.group();
        }
        while self.next < self.tokens.len() {
            match self.text(0) {
                "mod" if self.text(2) == ";" => {
                    let name = self.text(1).to_owned();
                    self.contents.tests.insert(name);
                    self.next += 1;
                }
                ";" | "," => {
                    self.next += 1;
                    return;
                }
                "}" => return,
                "{" => {
                    self.group();
                    return;
                }
                "(" | "[" => {
                    self.group();
                }
                // The braces of a `use` belong to a declaration that ends with a semicolon.
                "use" => {
                    while !matches!(self.text(0), ";" | "") {
                        self.next += 1;
                    }
                }
                _ => self.next += 1,
            }
        }
    }

    /// Reads until the closing brace of `module` or the end.
    fn items(&mut self, module: &[String]) {
        let mut depth = 0;
        let mut public = false;
        while self.next < self.tokens.len() {
            match self.text(0) {
                "#" => {
                    self.next += 1 + usize::from(self.text(1) == "!");
                    let attribute = self.group();
                    let cfg = attribute.get(1).is_some_and(|name| name == "cfg");
                    let not = attribute.iter().any(|word| word == "not");
                    let test = attribute.iter().any(|word| word == "test" || word == "doctest");
                    if cfg && test && !not {
                        self.skip_item();
                    }
                    continue;
                }
                "pub" => {
                    self.next += 1;
                    if self.text(0) == "(" {
                        self.group();
                    }
                    public = self.text(0) == "use";
                    continue;
                }
                "use" if self.word(1) || self.text(1) == "::" || self.text(1) == "{" => {
                    self.next += 1;
                    self.tree(module, &[], public);
                    public = false;
                }
                "mod" if self.word(1) && self.text(2) == "{" => {
                    let inner: Vec<_> =
                        module.iter().cloned().chain([self.text(1).to_owned()]).collect();
                    self.contents.inline.insert(inner.clone());
                    self.next += 3;
                    self.items(&inner);
                }
                // Its name is no use of an item of that name.
                "mod" if self.text(2) == ";" => self.next += 3,
                "{" => {
                    depth += 1;
                    self.next += 1;
                }
                "}" => {
                    self.next += 1;
                    if depth == 0 {
                        return;
                    }
                    depth -= 1;
                }
                _ if self.word(0) => self.path(module),
                _ => self.next += 1,
            }
        }
    }

    /// Reads a path in code.
    fn path(&mut self, module: &[String]) {
        let line = self.line();
        let behind = self.next.checked_sub(1).map_or("", |i| &self.tokens[i].text);
        // What follows a dot is a field or a method.
        let own = behind != "." && behind != "::";
        let mut path = vec![self.text(0).to_owned()];
        self.next += 1;
        while self.text(0) == "::" && self.word(1) {
            path.push(self.text(1).to_owned());
            self.next += 2;
        }
        if own {
            self.words.insert(path[0].clone());
            if path.len() > 1 {
                self.contents.used.push(Mention { line, module: module.to_vec(), path });
            }
        }
    }

    /// Reads a tree of a `use` declaration, whose paths start with `prefix`.
    fn tree(&mut self, module: &[String], prefix: &[String], public: bool) {
        let line = self.line();
        let mut path = prefix.to_vec();
        loop {
            match self.text(0) {
                "::" => self.next += 1,
                "{" => {
                    self.next += 1;
                    while !matches!(self.text(0), "}" | "") {
                        self.tree(module, &path, public);
                        self.next += usize::from(self.text(0) == ",");
                    }
                    self.next += 1;
                    return;
                }
                "*" => {
                    self.next += 1;
                    self.contents.globs.push((module.to_vec(), path.clone()));
                    self.mention(Mention { line, module: module.to_vec(), path }, public);
                    return;
                }
                _ if self.word(0) => {
                    path.push(self.text(0).to_owned());
                    self.next += 1;
                    if self.text(0) != "::" {
                        break;
                    }
                }
                _ => return,
            }
        }
        if path.last().is_some_and(|name| name == "self") {
            path.pop();
        }
        let mut name = path.last().cloned().unwrap_or_default();
        if self.text(0) == "as" {
            name = self.text(1).to_owned();
            self.next += 2;
        }
        self.contents.names.insert((module.to_vec(), name), path.clone());
        self.mention(Mention { line, module: module.to_vec(), path }, public);
    }

    fn mention(&mut self, mention: Mention, public: bool) {
        let list = if public { &mut self.exported } else { &mut self.contents.used };
        list.push(mention);
    }
}

/// All sources of a crate: the files by their modules.
#[derive(Default)]
struct Sources {
    files: BTreeMap<Vec<String>, (PathBuf, Contents)>,
}

/// An arrow from a file to another, by their modules.
#[derive(Debug)]
struct Arrow {
    from: Vec<String>,
    line: usize,
    /// The room as it is written, which a re-export may part from the one that defines the item.
    written: String,
    to: Vec<String>,
}

impl Sources {
    fn add(&mut self, path: &Path, source: &str) {
        let mut module: Vec<_> =
            path.iter().map(|part| part.to_string_lossy().replace(".rs", "")).collect();
        if matches!(module.last().map(String::as_str), Some("mod" | "lib")) {
            module.pop();
        }
        let names: Vec<_> = module.iter().map(String::as_str).collect();
        let contents = Contents::read(source, &names);
        self.files.insert(module, (path.to_owned(), contents));
    }

    /// Reads all files below `folder`.
    fn open(root: &Path, folder: &Path) -> Self {
        let mut sources = Self::default();
        let mut folders = vec![folder.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    let source = fs::read_to_string(&path).unwrap();
                    sources.add(path.strip_prefix(root).unwrap(), &source);
                }
            }
        }
        sources
    }

    /// Whether a file is compiled for tests alone.
    fn is_test(&self, module: &[String]) -> bool {
        (1..=module.len()).any(|n| {
            let name = &module[n - 1];
            name == "tests"
                || name.ends_with("_tests")
                || name.ends_with("_test")
                || self.files.get(&module[..n - 1]).is_some_and(|(_, c)| c.tests.contains(name))
        })
    }

    /// The file that holds `module`: itself, or the one with the inline module.
    fn holder<'a>(&self, module: &'a [String]) -> Option<&'a [String]> {
        let is_inline = |file: &[String]| {
            self.files.get(file).is_some_and(|(_, contents)| contents.inline.contains(module))
        };
        if self.files.contains_key(module) {
            return Some(module);
        }
        (0..module.len()).rev().map(|n| &module[..n]).find(|file| is_inline(file))
    }

    /// The file that defines what `path`, written in `module`, leads to; none for other crates.
    fn file(&self, module: &[String], path: &[String], depth: usize) -> Option<Vec<String>> {
        let mut at = module.to_vec();
        let mut rest = path;
        let mut rooted = false;
        while let Some(first) = rest.first() {
            match first.as_str() {
                "crate" => at.clear(),
                "self" => (),
                "super" => {
                    at.pop();
                }
                _ => break,
            }
            rooted = true;
            rest = &rest[1..];
        }
        self.below(&at, rest, rooted, depth)
    }

    fn below(
        &self,
        module: &[String],
        rest: &[String],
        rooted: bool,
        depth: usize,
    ) -> Option<Vec<String>> {
        let holder = self.holder(module)?;
        let contents = &self.files[holder].1;
        let Some((first, further)) = rest.split_first() else { return Some(holder.to_vec()) };
        if depth == 0 {
            return Some(holder.to_vec());
        }
        let child: Vec<_> = module.iter().chain([first]).cloned().collect();
        let is_child = self.holder(&child).is_some();
        let name = contents.names.get(&(module.to_vec(), first.clone()));
        match name {
            // `use a::a` brings in an item of a module of the same name.
            Some(path) if !(is_child && (!further.is_empty() || !rooted)) => {
                let whole: Vec<_> = path.iter().chain(further).cloned().collect();
                if path.first() == Some(first) && path.len() == 1 {
                    return None;
                }
                return self.file(module, &whole, depth - 1);
            }
            _ if is_child => return self.below(&child, further, true, depth),
            _ => (),
        }
        if !rooted {
            return None;
        }
        // Of two modules whose names are all taken, the one that defines the item is not known.
        let globs = contents.globs.iter().filter(|(inside, _)| inside == module);
        for (_, path) in globs {
            let whole: Vec<_> = path.iter().chain(rest).cloned().collect();
            if let Some(file) = self.file(module, &whole, depth - 1) {
                return Some(file);
            }
        }
        Some(holder.to_vec())
    }

    /// The arrows between files outside tests, with or without what files only hand on.
    fn arrows(&self, handed_on: bool) -> Vec<Arrow> {
        let files = self.files.iter().filter(|(module, _)| !self.is_test(module));
        let mentions = files.flat_map(|(from, (_, contents))| {
            let exported = contents.exported.iter().filter(move |(_, used)| handed_on || *used);
            let all = contents.used.iter().chain(exported.map(|(mention, _)| mention));
            all.map(move |mention| (from, mention))
        });
        let arrows = mentions.filter_map(|(from, mention)| {
            let to = self.file(&mention.module, &mention.path, 16)?;
            let written = self.written(&mention.module, &mention.path);
            let written = written.unwrap_or_else(|| room(&to).to_owned());
            Some(Arrow { from: from.clone(), line: mention.line, written, to })
        });
        arrows.collect()
    }

    /// The room that a path names.
    fn written(&self, module: &[String], path: &[String]) -> Option<String> {
        let supers = path.iter().take_while(|word| *word == "super").count();
        let named = match path.first()?.as_str() {
            "crate" => path.get(1),
            "super" if supers >= module.len() => path.get(supers),
            _ => None,
        };
        named.filter(|&name| self.files.contains_key(std::slice::from_ref(name))).cloned()
    }

    fn path(&self, module: &[String]) -> String {
        self.files[module].0.display().to_string()
    }

    /// What breaks the order of the rooms `floors`, lowest first.
    fn upward(&self, floors: &[&[&str]]) -> Vec<String> {
        let order: Vec<&str> = floors.iter().copied().flatten().copied().collect();
        let height = |room: &str| order.iter().position(|&name| name == room);
        let mut wrong = BTreeSet::new();
        for module in self.files.keys().filter(|module| !self.is_test(module)) {
            if !room(module).is_empty() && height(room(module)).is_none() {
                wrong.insert(format!("{}: the room has no floor", self.path(module)));
            }
        }
        for Arrow { from, line, written, to } in self.arrows(true) {
            for to in [written.as_str(), room(&to)] {
                if room(&from).is_empty() || to.is_empty() || room(&from) == to {
                    continue;
                }
                if height(room(&from)) < height(to) {
                    let file = self.path(&from);
                    wrong.insert(format!("{file}:{line}: {} uses {to} above it", room(&from)));
                }
            }
        }
        wrong.into_iter().collect()
    }

    /// Circles of files, each as the arrows around it; one for each knot of files.
    fn circles(&self) -> Vec<String> {
        let mut below: BTreeMap<Vec<String>, BTreeMap<Vec<String>, usize>> = BTreeMap::new();
        for Arrow { from, line, to, .. } in self.arrows(false) {
            if from != to && !from.is_empty() {
                below.entry(from).or_default().entry(to).or_insert(line);
            }
        }
        let mut circles = Vec::new();
        let mut seen: BTreeSet<Vec<String>> = BTreeSet::new();
        for start in below.keys() {
            if seen.contains(start) {
                continue;
            }
            // The shortest way from `start` back to itself, breadth first.
            let mut came: BTreeMap<&Vec<String>, (&Vec<String>, usize)> = BTreeMap::new();
            let mut queue = std::collections::VecDeque::from([start]);
            while let Some(file) = queue.pop_front() {
                for (to, &line) in below.get(file).into_iter().flatten() {
                    if !came.contains_key(to) {
                        came.insert(to, (file, line));
                        queue.push_back(to);
                    }
                }
            }
            let Some(_) = came.get(start) else { continue };
            let mut steps = Vec::new();
            let mut at = start;
            loop {
                let (from, line) = came[at];
                steps.push(format!("{}:{line} uses {}", self.path(from), self.path(at)));
                seen.insert(at.clone());
                at = from;
                if at == start {
                    break;
                }
            }
            steps.reverse();
            circles.push(steps.join(", "));
        }
        circles
    }
}

fn room(module: &[String]) -> &str {
    module.first().map_or("", |name| name)
}

/// The library and the crates that build on it, with their floors.
fn crates() -> [(Sources, &'static [&'static [&'static str]]); 5] {
    let read = |folder: &str, least: usize| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        let sources = Sources::open(&folder, &folder);
        assert!(sources.files.len() > least, "only {} files", sources.files.len());
        sources
    };
    [
        (read("src", 200), &FLOORS),
        (read("crates/media/src", 50), &MEDIA),
        (read("crates/towers/src", 10), &TOWERS),
        (read("crates/procedural/src", 30), &PROCEDURAL),
        (read("crates/baselines/src", 8), &BASELINES),
    ]
}

#[test]
fn every_room_uses_only_rooms_below_it() {
    for (sources, floors) in crates() {
        let wrong = sources.upward(floors);
        assert!(wrong.is_empty(), "{} arrows go up:\n{}", wrong.len(), wrong.join("\n"));
    }
}

#[test]
fn no_files_use_each_other_in_a_circle() {
    for (sources, _) in crates() {
        let circles = sources.circles();
        assert!(circles.is_empty(), "{} circles:\n{}", circles.len(), circles.join("\n"));
    }
}

/// Sources of a crate from pairs of a path and a text.
fn sources(files: &[(&str, &str)]) -> Sources {
    let mut sources = Sources::default();
    sources.add(Path::new("lib.rs"), "");
    for (path, text) in files {
        sources.add(Path::new(path), text);
    }
    sources
}

/// What breaks the order, lowest first, in a crate of these files.
fn upward(order: &[&str], files: &[(&str, &str)]) -> Vec<String> {
    sources(files).upward(&[order])
}

#[test]
fn comments_strings_and_characters_say_nothing() {
    let text = r##"
        // crate::a
        /* crate::a /* nested */ crate::a */
        //! crate::a
        /// [`x`](crate::a::x)
        const A: &str = "\"crate::a";
        const B: &str = r#"" crate::a"#;
        const C: [char; 3] = ['"', '\'', '\\'];
        fn f<'a>(x: &'a str) -> char { 'a' }
    "##;
    let words: Vec<_> = tokens(text).into_iter().map(|token| token.text).collect();
    assert!(!words.contains(&"crate".to_owned()), "{words:?}");
    assert_eq!(words.iter().filter(|word| *word == "fn").count(), 1);
    assert_eq!(tokens(text).last().map(|token| token.line), Some(9));
}

#[test]
fn a_path_up_is_named_with_file_and_line() {
    let high = ("high/mod.rs", "pub struct High;");
    for low in [
        "use crate::high::High;",
        "use crate::{high::High};",
        "use crate::{error::Error, high::{self, High}};",
        "use super::high::High as Other;",
        "pub use crate::high::*;",
        "fn f() -> crate::high::High { todo!() }",
        "mod inner { use super::super::high::High; }",
        "#[cfg(not(test))] use crate::high::High;",
        "#[cfg(test)] const A: u8 = 1; use crate::high::High;",
    ] {
        let found = upward(&["low", "high"], &[high, ("low.rs", &format!("\n{low}"))]);
        assert_eq!(found, ["low.rs:2: low uses high above it"], "{low}");
        assert!(upward(&["high", "low"], &[high, ("low.rs", low)]).is_empty(), "{low}");
    }
    assert_eq!(upward(&["low"], &[high])[0], "high/mod.rs: the room has no floor");
}

#[test]
fn what_tests_use_does_not_count() {
    let high = ("high.rs", "pub struct High;");
    for (path, text) in [
        ("low/mod.rs", "#[cfg(test)] mod checks { use crate::high::High; }"),
        ("low/mod.rs", "#[cfg(all(test, unix))] use crate::high::High;"),
        ("low/mod.rs", "#[cfg(test)] #[path = \"x.rs\"] mod x; struct A { b: crate::low::B }"),
        ("low/tests.rs", "use crate::high::High;"),
        ("low/some_tests.rs", "use crate::high::High;"),
        ("low/mod.rs", "/// See [`High`](crate::high::High).\npub struct Low;"),
    ] {
        assert!(upward(&["low", "high"], &[high, (path, text)]).is_empty(), "{text}");
    }
    let named = [high, ("low/mod.rs", "#[cfg(test)]\nmod checks;")];
    let file = ("low/checks.rs", "use crate::high::High;");
    assert!(upward(&["low", "high"], &[named[0], named[1], file]).is_empty());
}

#[test]
fn a_re_export_below_leads_to_the_room_that_defines_the_item() {
    let files = [
        ("lib.rs", "pub use high::High;"),
        ("high/mod.rs", "mod deep; pub use deep::High;"),
        ("high/deep.rs", "pub struct High;"),
        ("low.rs", "use crate::High;"),
    ];
    assert_eq!(upward(&["low", "high"], &files), ["low.rs:1: low uses high above it"]);
}

#[test]
fn files_that_use_each_other_are_a_circle() {
    let parent = ("a/mod.rs", "mod b; mod c; pub use b::B;");
    let circles = |files: &[(&str, &str)]| sources(files).circles();
    // A parent that hands on names of its children uses none of them.
    let b = ("a/b.rs", "use super::c::C; pub struct B;");
    assert!(circles(&[parent, b, ("a/c.rs", "pub struct C;")]).is_empty());
    for c in
        ["use super::B; struct C;", "struct C(crate::a::b::B);", "use super::b; struct C(b::B);"]
    {
        let found = circles(&[parent, b, ("a/c.rs", c)]);
        assert_eq!(found, ["a/b.rs:1 uses a/c.rs, a/c.rs:1 uses a/b.rs"], "{c}");
    }
    // Over three files.
    let (b, c) = (("a/b.rs", "use super::c::C;"), ("a/c.rs", "use super::d::D;"));
    let d = ("a/d.rs", "use super::b::B;");
    assert_eq!(circles(&[("a/mod.rs", "mod b; mod c; mod d;"), b, c, d]).len(), 1);
}

#[test]
fn a_parent_and_a_child_that_use_each_other_are_a_circle() {
    let circles = |parent: &str, child: &str| {
        sources(&[("a/mod.rs", parent), ("a/b.rs", child)]).circles().len()
    };
    let child = "use super::A; pub struct B;";
    assert_eq!(circles("mod b; pub struct A; fn f(b: b::B) {}", child), 1);
    assert_eq!(circles("mod b; use b::B; pub struct A;", child), 1);
    assert_eq!(circles("mod b; pub use b::B; pub struct A(B);", child), 1);
    assert_eq!(circles("mod b; pub use b::B; pub struct A;", child), 0);
    assert_eq!(circles("mod b; pub use b::b; pub struct A;", "pub fn b() { super::A; }"), 0);
    assert_eq!(circles("mod b; use b::B; struct A(B);", "pub struct B;"), 0);
    assert_eq!(circles("mod b; use b::B; struct A;", "struct B; impl B { fn a(&self) {} }"), 0);
}
