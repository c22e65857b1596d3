//! The built `search`, with queries as people have them and readers that end early.

use std::{
    io::{BufRead, BufReader, Read, Write},
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use serde_json::Value;

use super::saved;

/// A built example: `cargo test` builds them before the tests run.
fn program(name: &str) -> Command {
    let tests = std::env::current_exe().unwrap();
    let path: PathBuf = tests.parent().unwrap().parent().unwrap().join("examples").join(name);
    let path = path.with_extension(std::env::consts::EXE_EXTENSION);
    assert!(path.exists(), "{}: build it (cargo build --release --examples)", path.display());
    Command::new(path)
}

fn search(queries: &[u8], options: &[&str]) -> Output {
    let (folder, _) = saved(true);
    let mut command = program("search");
    command.arg("--index").arg(folder.path()).args(options);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // A program that refuses its options reads nothing.
    let _ = stdin.write_all(queries);
    drop(stdin);
    child.wait_with_output().unwrap()
}

fn lines(output: &Output) -> Vec<Value> {
    let text = std::str::from_utf8(&output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn every_line_of_a_file_of_queries_is_answered() {
    let queries =
        b"\xEF\xBB\xBFred dog\r\n\r\n   \nblue \xff sea\ntwo cats\n\xce\xa9 \xe2\x98\x83\nthe sea";
    let output = search(queries, &["--top", "1", "--json"]);
    let answers = lines(&output);
    let asked: Vec<&str> =
        answers.iter().map(|answer| answer["query"].as_str().unwrap_or("none")).collect();
    assert_eq!(asked, ["red dog", "none", "two cats", "\u{3a9} \u{2603}", "the sea"]);
    assert_eq!(answers[1]["at"], "line 4");
    assert!(answers[1]["error"].as_str().unwrap().contains("UTF-8"), "{}", answers[1]);
    let warnings = |at: usize| answers[at]["warnings"].to_string();
    assert!(warnings(3).contains("knows no word"), "{}", answers[3]);
    assert_eq!(warnings(0), "null");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("line 4: ") && said.contains("1 of 5 queries"), "{said}");
    assert_eq!(output.status.code(), Some(1));

    let output = search(b"\n\nred dog\n\n", &["--top", "1", "--json"]);
    assert_eq!((lines(&output).len(), output.status.code()), (1, Some(0)));
    for options in [["--top", "0"], ["--beam", "0"]] {
        let output = search(b"red dog\n", &options);
        assert_eq!((output.stdout.len(), output.status.code()), (0, Some(2)), "{options:?}");
    }
    let output = search(b"red dog\n", &["--top", "3", "--beam", "1", "--json"]);
    assert_eq!(lines(&output)[0]["hits"].as_array().unwrap().len(), 3);
}

/// The reader of the answers ends after the first; many more than fit into a pipe are asked for.
#[test]
fn it_ends_quietly_with_its_reader() {
    let (folder, _) = saved(true);
    for options in [&["--top", "60"][..], &["--help"]] {
        let mut command = program("search");
        command.arg("--index").arg(folder.path()).args(options);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let asked = std::thread::spawn(move || while stdin.write_all(b"a red dog\n").is_ok() {});
        if options.len() > 1 {
            let mut first = String::new();
            // The pipe is closed when this reader is dropped.
            BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
            assert_eq!(first, "a red dog\n");
        } else {
            drop(child.stdout.take());
        }
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        let status = child.wait().unwrap();
        asked.join().unwrap();
        assert!(said.is_empty(), "{said}");
        assert!(status.success(), "{status}");
    }
}

/// Answers that are lost on a full disk are an error, not a panic.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_an_error() {
    let (folder, _) = saved(true);
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let mut command = program("search");
    command.arg("--index").arg(folder.path()).arg("a red dog");
    let output = command.stdout(full).stderr(Stdio::piped()).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("cannot write the output") && !said.contains("panicked"), "{said}");
    assert_eq!(output.status.code(), Some(1));
}
