use std::{fs, path::PathBuf};

use super::*;

/// A folder with an input file, an input folder, and a file of an earlier run.
struct Setup {
    folder: tempfile::TempDir,
}

impl Setup {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("data/media")).unwrap();
        fs::write(folder.path().join("data/input.txt"), "input").unwrap();
        fs::write(folder.path().join("ours.txt"), "ours").unwrap();
        fs::write(folder.path().join("theirs.txt"), "theirs").unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn outputs(&self) -> Outputs {
        let inputs = [self.path("data"), self.path("data/input.txt")];
        Outputs::new().reads(inputs).reads_below([self.path("data/media")])
    }

    /// The error for a file at a path.
    fn refused(&self, name: &str) -> String {
        let ours = |path: &Path| fs::read(path).is_ok_and(|bytes| bytes == b"ours");
        let outputs = self.outputs().replaces([self.path(name)], "one of ours", ours);
        outputs.check().map_or_else(|error| error.to_string(), |()| "accepted".into())
    }

    fn refused_folder(&self, name: &str) -> String {
        let outputs = self.outputs().fills([self.path(name)]);
        outputs.check().map_or_else(|error| error.to_string(), |()| "accepted".into())
    }
}

fn has(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "no {part:?} in {message}");
    }
}

#[test]
fn an_input_is_never_an_output() {
    let setup = Setup::new();
    for name in ["data/input.txt", "data/../data/./input.txt", "data//input.txt"] {
        has(&setup.refused(name), &["input.txt", "the input", "name another file"]);
    }
    fs::hard_link(setup.path("data/input.txt"), setup.path("hard")).unwrap();
    has(&setup.refused("hard"), &["hard", "the input", "input.txt"]);
    #[cfg(unix)]
    {
        use std::os::unix::fs::symlink;
        symlink("data/input.txt", setup.path("soft")).unwrap();
        symlink("data", setup.path("linked")).unwrap();
        symlink("none", setup.path("dangling")).unwrap();
        has(&setup.refused("soft"), &["soft", "the input", "input.txt"]);
        has(&setup.refused("linked/input.txt"), &["the input"]);
        has(&setup.refused("dangling"), &["a symbolic link to a file that is not there"]);
        has(&setup.refused_folder("linked"), &["the input"]);
        has(&setup.refused_folder("dangling"), &["a symbolic link to a folder that is not there"]);
        has(&setup.refused("linked/media/new"), &["data/media", "the next run would read"]);
    }
    for name in ["data", "data/", "data/media/.."] {
        has(&setup.refused_folder(name), &["the input", "name another folder"]);
    }
    assert_eq!(fs::read(setup.path("data/input.txt")).unwrap(), b"input");
}

#[test]
fn only_files_of_an_earlier_run_are_replaced() {
    let setup = Setup::new();
    for name in ["ours.txt", "new.txt", "data/new.txt", "a/b/new.txt", "theirs.txt/../new.txt"] {
        let found = setup.refused(name);
        // The last one only where the system takes `..` by the name alone.
        assert!(found == "accepted" || name.contains("theirs"), "{name}: {found}");
    }
    let found = setup.refused("theirs.txt");
    has(&found, &["no file yet, or one of ours", "another file", "remove this one yourself"]);
    let outputs = setup.outputs().writes([setup.path("ours.txt")]);
    has(&outputs.check().unwrap_err().to_string(), &["no file yet, found another file"]);
    has(&setup.refused("data"), &["the input"]);
    fs::create_dir(setup.path("folder")).unwrap();
    has(&setup.refused("folder"), &["found a folder"]);
    has(&setup.refused("folder/.."), &["does not end in a name"]);
    has(&setup.refused("theirs.txt/new.txt"), &["the file", "theirs.txt", "a folder should be"]);
    has(&setup.refused_folder("theirs.txt/new"), &["theirs.txt", "a folder should be"]);
    has(&setup.refused_folder("theirs.txt"), &["found a file"]);
    for name in ["data/media/new", "data/media", "data/media/a/b", "data/media/../media/new"] {
        let found = setup.refused(name);
        assert_ne!(found, "accepted", "{name}");
        assert_ne!(setup.refused_folder(name), "accepted", "{name}");
    }
    #[cfg(unix)]
    {
        let outputs = Outputs::new().writes(["/dev/null"]);
        has(&outputs.check().unwrap_err().to_string(), &["a device or a pipe"]);
        let outputs = Outputs::new().writes(["/proc/version/x"]);
        has(&outputs.check().unwrap_err().to_string(), &["/proc/version"]);
    }
}

#[test]
fn two_outputs_are_two_files() {
    let setup = Setup::new();
    let two =
        |a: &str, b: &str| setup.outputs().writes([setup.path(a)]).writes([setup.path(b)]).check();
    two("a", "b").unwrap();
    for (a, b) in [("a", "a"), ("a", "data/../a"), ("new/a", "new/./a"), ("new/x/../a", "new/a")] {
        has(&two(a, b).unwrap_err().to_string(), &["the output"]);
    }
    let outputs = setup.outputs().writes([setup.path("a")]).fills([setup.path("a")]);
    has(&outputs.check().unwrap_err().to_string(), &["the output"]);
}

#[test]
fn inputs_have_to_be_there() {
    let setup = Setup::new();
    let missing = Outputs::new().reads([setup.path("none")]).check().unwrap_err();
    has(&missing.to_string(), &["cannot read", "none", "check the path"]);
    let outputs = setup.outputs().reads(None::<&Path>).writes(None::<&Path>);
    outputs.check().unwrap();
}

#[test]
fn more_than_the_disk_has_is_refused() {
    let setup = Setup::new();
    let needs = |bytes: &[u64]| {
        let outputs = bytes
            .iter()
            .fold(Outputs::new(), |outputs, &bytes| outputs.needs(setup.path("not/yet"), bytes));
        outputs.check()
    };
    needs(&[1]).unwrap();
    if cfg!(unix) {
        has(&needs(&[1 << 62]).unwrap_err().to_string(), &["not/yet", "MB free", "another disk"]);
        has(&needs(&[1, u64::MAX]).unwrap_err().to_string(), &["MB free"]);
    }
}

#[test]
fn nothing_is_created_before_all_is_checked() {
    let setup = Setup::new();
    let outputs = setup.outputs().writes([setup.path("x/y/a")]).fills([setup.path("z/w")]);
    outputs.check().unwrap();
    let bad = outputs.clone().writes([setup.path("data/input.txt")]);
    bad.prepare().unwrap_err();
    assert!(!setup.path("x").exists() && !setup.path("z").exists());
    outputs.prepare().unwrap();
    assert!(setup.path("x/y").is_dir() && setup.path("z/w").is_dir());
    assert!(!setup.path("x/y/a").exists());
}

/// A folder without rights; the user of containers may write everywhere.
#[cfg(unix)]
#[test]
fn folders_without_rights_are_refused() {
    use std::os::unix::fs::PermissionsExt;
    let setup = Setup::new();
    fs::create_dir(setup.path("shut")).unwrap();
    fs::set_permissions(setup.path("shut"), fs::Permissions::from_mode(0o555)).unwrap();
    let may = fs::write(setup.path("shut/probe"), "").is_ok();
    for found in [setup.refused("shut/a"), setup.refused_folder("shut")] {
        if may {
            assert_eq!(found, "accepted");
        } else {
            has(&found, &["shut", "can be written to", "permissions"]);
        }
    }
}
