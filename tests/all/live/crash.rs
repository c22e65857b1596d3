//! Killed at any moment, an index has every change that was acknowledged, and none by half.

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    time::Duration,
};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;

const FOLDER: &str = "CART_TEST_CRASH_FOLDER";
const FIRST: &str = "CART_TEST_CRASH_FIRST";

/// A change: ids that come, or ids that go. Two batches come, and as many candidates go: the index
/// keeps its size.
enum Step {
    Add(Vec<String>),
    Remove(Vec<String>),
}

fn step(number: usize) -> Step {
    let batch = |number: usize| names(&format!("batch{number}-"), 0..3);
    if number % 3 < 2 {
        return Step::Add(batch(number));
    }
    let mut gone = batch(number - 2);
    gone.push(batch(number - 1).swap_remove(1));
    // What was left of the round before.
    if let Some(before) = number.checked_sub(4).filter(|_| number > 4) {
        let mut rest = batch(before);
        rest.remove(1);
        gone.extend(rest);
    }
    Step::Remove(gone)
}

/// The ids after so many changes.
fn expected(changes: usize) -> BTreeSet<String> {
    let mut ids: BTreeSet<String> = names("old-", 0..60).into_iter().collect();
    for number in 0..changes {
        match step(number) {
            Step::Add(new) => ids.extend(new),
            Step::Remove(gone) => gone.iter().for_each(|id| assert!(ids.remove(id), "{id}")),
        }
    }
    ids
}

/// What the killed process does: changes, each with a word when it is done, and now and then a new
/// base.
#[test]
fn child() {
    let (Ok(folder), Ok(first)) = (std::env::var(FOLDER), std::env::var(FIRST)) else { return };
    let live = open(Path::new(&folder));
    for number in first.parse::<usize>().unwrap().. {
        match step(number) {
            Step::Add(new) => live.add(&NewCandidates::new(&items(&new))),
            Step::Remove(gone) => live.remove(&gone),
        }
        .unwrap();
        println!("\ndone {number}");
        if number % 4 == 3 {
            live.compact().unwrap();
        }
    }
}

#[test]
fn killed_at_any_moment() {
    let (folder, _) = saved(true);
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    let mut done = 0;
    for round in 0..8 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture", "live::crash::child"])
            .env(FOLDER, folder.path())
            .env(FIRST, done.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let reader = BufReader::new(child.stdout.take().unwrap());
        let listener = std::thread::spawn(move || {
            let numbers = reader.lines().map_while(std::io::Result::ok);
            numbers.filter_map(|line| line.strip_prefix("done ")?.parse::<usize>().ok()).last()
        });
        std::thread::sleep(Duration::from_millis(rng.random_range(60..400)));
        child.kill().unwrap();
        child.wait().unwrap();
        done = listener.join().unwrap().map_or(done, |number| number + 1);
        verify(folder.path()).unwrap();
        let loaded = load(folder.path());
        let found: BTreeSet<String> = loaded.index().ids().iter().map(str::to_string).collect();
        if found == expected(done + 1) {
            done += 1;
        }
        assert_eq!(found, expected(done), "round {round}");
        assert_eq!(answers(&loaded).len(), found.len());
    }
    assert!(done > 0, "no change was made in eight rounds");
}
