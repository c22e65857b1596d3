//! Checks of the tables of settings files, which the tests of the towers of media share.

use std::{
    fs,
    path::{Path, PathBuf},
};

use cart_retrieval::Result;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Fields, GENERAL, ROOT, Rule, Table};

/// Reads a folder with settings.
pub type Load = fn(&Path) -> Result<()>;

/// A file, or a part of one, with a table.
pub struct File {
    title: &'static str,
    table: Table,
    /// The folder below `tests/fixtures` that the file is added to.
    fixture: &'static str,
    name: &'static str,
    /// What the file holds; where null, that of the fixture.
    base: Value,
    /// Where in the file the fields are, as a JSON pointer.
    part: &'static str,
    load: Load,
}

impl File {
    /// A file of a fixture.
    pub fn of(
        title: &'static str,
        table: Table,
        fixture: &'static str,
        name: &'static str,
        part: &'static str,
        load: Load,
    ) -> Self {
        Self::added(title, table, fixture, name, Value::Null, part, load)
    }

    /// A file that is added to a fixture.
    pub fn added(
        title: &'static str,
        table: Table,
        fixture: &'static str,
        name: &'static str,
        base: Value,
        part: &'static str,
        load: Load,
    ) -> Self {
        Self { title, table, fixture, name, base, part, load }
    }
}

pub fn fixture(name: &str) -> PathBuf {
    Path::new(ROOT).join("tests/fixtures").join(name)
}

/// The settings of a fixture, without its weights.
fn copy(name: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(fixture(name)).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "json") {
            fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
        }
    }
    folder
}

/// Values that no field of any kind may have, all of another type.
fn odd() -> [Value; 4] {
    [json!({"?": 1}), json!([[]]), json!("?"), json!(-1)]
}

/// Every field of every file is treated as its table says.
pub fn check_fields(files: Vec<File>) {
    for file in files {
        let folder = copy(file.fixture);
        let path = folder.path().join(file.name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let base = match &file.base {
            Value::Null => serde_json::from_slice(&fs::read(&path).unwrap()).unwrap(),
            base => base.clone(),
        };
        let load = |name: &str, value: &Value| {
            let mut edited = base.clone();
            let part = edited.pointer_mut(file.part).unwrap().as_object_mut().unwrap();
            part.insert(name.into(), value.clone());
            fs::write(&path, edited.to_string()).unwrap();
            (file.load)(folder.path()).map_err(|error| error.to_string())
        };
        load("no_such_field", &Value::Null).unwrap();
        let unknown = load("no_such_field", &json!(1)).unwrap_err();
        assert!(unknown.contains("no_such_field") && unknown.contains("docs/encoders.md"));
        let mut seen = Vec::new();
        for fields in file.table.iter().flat_map(|part| part.iter()) {
            for name in fields.names() {
                if seen.contains(&name) {
                    continue;
                }
                seen.push(name);
                let context = format!("{}, {name}", file.title);
                let errors = odd().map(|value| load(name, &value).err());
                let named = |error: &String| error.contains(name);
                match fields.rule {
                    Rule::Followed(_) => {
                        assert!(errors.iter().flatten().any(named), "{context}: {errors:?}");
                    }
                    Rule::Harmless(_) => {
                        assert!(errors.iter().all(Option::is_none), "{context}: {errors:?}");
                    }
                    Rule::Refused(_) => {
                        assert!(errors.iter().flatten().filter(|e| named(e)).count() == 4);
                        load(name, &Value::Null).unwrap();
                    }
                    Rule::Only(accepted, _) => {
                        assert!(errors.iter().flatten().filter(|e| named(e)).count() == 4);
                        for value in accepted {
                            let value = serde_json::from_str(value).unwrap();
                            load(name, &value).unwrap_or_else(|e| panic!("{context}: {e}"));
                        }
                    }
                }
            }
        }
    }
}

/// The tables in Markdown, with that of the general fields or without.
fn markdown(general: bool, files: &[File]) -> String {
    let mut text = String::new();
    let mut add = |title: &str, parts: &mut dyn Iterator<Item = &'static Fields>| {
        text += &format!("\n### {title}\n| fields | what is done |\n|---|---|\n");
        for fields in parts {
            let names: Vec<String> = fields.names().map(|name| format!("`{name}`")).collect();
            let rule = match fields.rule {
                Rule::Followed(what) => format!("followed: {what}"),
                Rule::Only(values, why) => {
                    format!("only `{}`: {why}", values.join("`, `").replace('|', "\\|"))
                }
                Rule::Harmless(why) => format!("harmless: {why}"),
                Rule::Refused(why) => format!("refused: {why}"),
            };
            text += &format!("| {} | {rule} |\n", names.join(", "));
        }
    };
    if general {
        add("Fields of every `config.json`", &mut GENERAL.iter());
    }
    // By content: a constant has no address of its own.
    let is_general = |part: &&'static [Fields]| {
        part.len() == GENERAL.len() && part[1].names().eq(GENERAL[1].names())
    };
    for file in files {
        let parts = file.table.iter().copied().filter(|part| !is_general(part));
        add(file.title, &mut parts.flat_map(|part| part.iter()));
    }
    text
}

/// Compares the tables below the line `<!-- fields of NAME -->` of the page with those of the code;
/// `CART_WRITE_DOCS=1` writes them. `general` adds the fields that all families share.
pub fn check_page(name: &str, general: bool, files: &[File]) {
    let start = format!("<!-- fields of {name} -->\n");
    const END: &str = "<!-- end of fields -->";
    let path = Path::new(ROOT).join("docs/encoders.md");
    let page = fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(&start).expect("where the tables start");
    let (found, after) = rest.split_once(END).expect("where the tables end");
    let wanted = markdown(general, files);
    if std::env::var_os("CART_WRITE_DOCS").is_some() {
        fs::write(&path, format!("{before}{start}{wanted}{END}{after}")).unwrap();
        return;
    }
    assert_eq!(found, wanted, "run this test with CART_WRITE_DOCS=1");
}

/// A file of settings with more fields, or others.
pub fn with(base: &Value, more: Value) -> Value {
    let mut all = base.clone();
    all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    all
}

/// A folder with a `config.json`.
pub fn folder_of(config: &Value) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    folder
}
