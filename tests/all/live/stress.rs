//! Many threads search while others change. `CART_TEST_SOAK_SECONDS=600` makes it a soak, which
//! also watches the memory.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use super::*;

/// Resident bytes of this process, where the system tells.
fn resident() -> Option<usize> {
    let text = fs::read_to_string("/proc/self/statm").ok()?;
    Some(4096 * text.split(' ').nth(1)?.parse::<usize>().ok()?)
}

/// Whatever a snapshot answers is a candidate of that snapshot, once, and as many as there can be.
fn search(live: &LiveRetriever<Flex>) {
    let now = live.snapshot();
    let n = now.index().ids().len();
    let condition = Condition::parse(r#"{"n": {"lt": 30}}"#).unwrap();
    let few = now.index().filter_where(&condition).unwrap();
    for filter in [None, Some(&few)] {
        let mut search = now.query("two red dogs").top(15);
        if let Some(filter) = filter {
            search = search.filter(filter);
        }
        let hits = search.run().unwrap();
        assert_eq!(hits.len(), filter.map_or(n, |filter| filter.count()).min(15));
        let ids: BTreeSet<&str> = hits.iter().map(|hit| hit.id.as_str()).collect();
        assert_eq!(ids.len(), hits.len());
        for hit in &hits {
            let row = now.index().ids().index_of(&hit.id);
            assert_eq!(row, Some(hit.item as usize));
            assert_eq!(now.index().identifier(&hit.id).unwrap(), hit.identifier);
        }
    }
}

#[test]
fn searches_and_changes_at_once() {
    let seconds = std::env::var("CART_TEST_SOAK_SECONDS").ok().and_then(|text| text.parse().ok());
    let (folder, _) = saved(true);
    let live = open(folder.path());
    let (over, searches, changes) =
        (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    let started = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    search(&live);
                    searches.fetch_add(2, Ordering::Relaxed);
                }
            });
        }
        // Each keeps the last ten of its own batches.
        for writer in 0..2 {
            let (live, over, changes) = (&live, &over, &changes);
            scope.spawn(move || {
                let batch = |number: usize| names(&format!("w{writer}-{number}-"), 0..5);
                for number in 0.. {
                    live.add(&NewCandidates::new(&items(&batch(number)))).unwrap();
                    if number >= 10 {
                        live.remove(&batch(number - 10)).unwrap();
                    }
                    let described = fields(json!({ "n": number }));
                    live.describe(vec![(batch(number)[0].clone(), described)]).unwrap();
                    if number % 25 == 24 {
                        live.compact().unwrap();
                    }
                    changes.fetch_add(1, Ordering::Relaxed);
                    if over.load(Ordering::Relaxed) && number >= 10 {
                        break;
                    }
                }
            });
        }
        let mut memory = Vec::new();
        while started.elapsed() < Duration::from_secs(seconds.unwrap_or(2)) {
            std::thread::sleep(Duration::from_millis(if seconds.is_some() { 10_000 } else { 100 }));
            memory.extend(resident());
        }
        over.store(true, Ordering::Relaxed);
        if let (Some(_), [_, early, .., last]) = (seconds, memory.as_slice()) {
            println!("resident: {:?} MiB", memory.iter().map(|m| m >> 20).collect::<Vec<_>>());
            assert!(*last < early + early / 4, "memory grew from {early} to {last} bytes");
        }
    });
    println!("{searches:?} searches, {changes:?} rounds of changes");
    let now = live.snapshot();
    assert_eq!(now.index().ids().len(), 60 + 2 * 50);
    assert!(searches.load(Ordering::Relaxed) > 0);
    let known = contents(&now);
    drop(live);
    assert_eq!(contents(&load(folder.path())), known);
    verify(folder.path()).unwrap();
}
