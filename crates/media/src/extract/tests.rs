use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

use cart_retrieval::{
    Error, Result,
    cancel::{Monitor, StopFlag},
    data::{Caption, Captions, DataFolder, Splits},
    features::{Features, ShardedFeatures},
};

use super::*;
use crate::media::{
    Descriptors, Extractor, MediaFound, MediaItem, Modality, PICTURE_FEATURES, Picture,
    SOUND_FEATURES, VIDEO_FEATURES, media_below, picture_features,
};

fn pictures(count: usize) -> (tempfile::TempDir, Vec<MediaItem>) {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("media/a")).unwrap();
    let items = (0..count).map(|number| {
        let id = format!("a/{number}.png");
        let grey = Picture::new(9, 7, vec![number as u8 * 20; 9 * 7 * 3]).unwrap();
        fs::write(folder.path().join("media").join(&id), grey.to_png().unwrap()).unwrap();
        MediaItem { path: PathBuf::from(&id), id, modality: Modality::Image, span: None }
    });
    let items = items.collect();
    (folder, items)
}

fn run(
    folder: &tempfile::TempDir,
    items: &[MediaItem],
    extractor: &impl Extractor,
    part: usize,
    stop: &StopFlag,
    progress: impl FnMut(ExtractProgress),
) -> Result<Extracted> {
    let (root, out) = (folder.path().join("media"), folder.path().join("data"));
    let monitor = Monitor::new().with_stop(stop).with_progress(progress);
    Extraction::new(items, root, out).run(extractor, &ExtractConfig { part }, &monitor)
}

#[test]
fn broken_files_are_passed_over_and_named() {
    let (folder, items) = pictures(5);
    fs::write(folder.path().join("media/a/1.png"), "broken").unwrap();
    fs::remove_file(folder.path().join("media/a/4.png")).unwrap();
    let out = folder.path().join("data");
    fs::create_dir_all(&out).unwrap();
    let mut captions = Captions::new();
    for item in items.iter().chain(&items[..2]) {
        captions.push(Caption::new(&item.id, "grey").with_kind("human")).unwrap();
    }
    captions.to_jsonl(out.join("captions.jsonl")).unwrap();
    let ids = |range: std::ops::Range<usize>| -> Vec<String> {
        items[range].iter().map(|item| item.id.clone()).collect()
    };
    Splits::from_ids([("train", ids(0..3)), ("test", ids(3..5))])
        .unwrap()
        .to_json(out.join("splits.json"))
        .unwrap();

    let mut seen = Vec::new();
    let (descriptors, stop) = (Descriptors::default(), StopFlag::new());
    let made = run(&folder, &items, &descriptors, 2, &stop, |at| seen.push((at.done, at.failed)));
    let made = made.unwrap();
    assert_eq!((made.items, made.resumed, made.failed.len()), (3, 0, 2));
    assert_eq!(seen, [(2, 1), (4, 1), (5, 2)]);
    assert_eq!(made.failed[0].id, "a/1.png");
    assert!(made.failed[0].message.contains("1.png") && made.failed[1].message.contains("4.png"));

    // What is left is a data folder, of two shards.
    let data = DataFolder::open(&out).unwrap();
    assert_eq!(data.items.ids().iter().collect::<Vec<_>>(), ["a/0.png", "a/2.png", "a/3.png"]);
    assert_eq!(data.captions.len(), 4);
    assert_eq!(data.splits.unwrap().ids("test").unwrap(), ["a/3.png"]);
    let grey = Picture::new(9, 7, vec![40; 9 * 7 * 3]).unwrap();
    assert_eq!(data.items.row(1), picture_features(&grey));
    assert!(!out.join("extraction").exists());

    // Once more, nothing is changed; with another extractor or other items it is refused.
    let before = contents(&out);
    let again = run(&folder, &items, &descriptors, 2, &stop, |_| {}).unwrap();
    assert!(again.unchanged && !made.unchanged);
    assert_eq!((again.items, again.failed), (3, made.failed));
    let other = Counting(AtomicUsize::new(0), "other");
    let error = run(&folder, &items, &other, 2, &stop, |_| {}).unwrap_err().to_string();
    assert!(error.contains("`other`") && error.contains("features of 5 items"), "{error}");
    run(&folder, &items[1..], &descriptors, 2, &stop, |_| {}).unwrap_err();
    assert_eq!(contents(&out), before);
}

/// All files below a folder with their contents.
fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(contents(&path));
        } else {
            all.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    all
}

/// Captions as a user writes them: keys of their own, a blank line, ends of lines of Windows.
const LINES: [&str; 6] = [
    "{\"id\": \"a/0.png\", \"caption\": \"zero\", \"note\": {\"mine\": 1}}\r\n",
    "\n",
    "{\"id\": \"a/1.png\", \"caption\": \"one\", \"weight\": 1.50}\n",
    "{\"caption\": \"of no item\", \"id\": \"a/9.heic\"}\n",
    "{\"id\":\"a/2.png\",   \"caption\": \"two\"}\n",
    "{\"id\": \"a/1.png\", \"caption\": \"one again\"}",
];

#[test]
fn captions_stay_as_the_user_wrote_them() {
    let (folder, items) = pictures(3);
    fs::write(folder.path().join("media/a/1.png"), "broken").unwrap();
    let (root, file) = (folder.path().join("media"), folder.path().join("mine.jsonl"));
    fs::write(&file, LINES.concat()).unwrap();
    let extracted = |out: &Path, captions: &Path| {
        let extraction = Extraction::new(&items, &root, out).with_captions(captions);
        let unknown = extraction.check().unwrap();
        assert_eq!((unknown[0].entries, unknown[0].ids.as_slice()), (1, &["a/9.heic".into()][..]));
        let config = ExtractConfig::default();
        extraction.run(&Descriptors::default(), &config, &Monitor::new()).unwrap()
    };
    // A copy has the lines of its items, byte for byte.
    let out = folder.path().join("copy");
    assert_eq!(extracted(&out, &file).captions_left_out, 3);
    let kept = [LINES[0], LINES[1], LINES[4]].concat();
    assert_eq!(fs::read_to_string(out.join("captions.jsonl")).unwrap(), kept);
    assert_eq!(DataFolder::open(&out).unwrap().captions.len(), 2);
    assert_eq!(fs::read_to_string(&file).unwrap(), LINES.concat());

    // The folder's own file stays, by whatever path it is given; so do splits and metadata.
    let out = folder.path().join("own");
    fs::create_dir(&out).unwrap();
    let own = out.join("captions.jsonl");
    fs::write(&own, LINES.concat()).unwrap();
    fs::write(out.join("splits.json"), r#"{"train": ["a/0.png", "a/1.png"]}"#).unwrap();
    fs::write(out.join("metadata.jsonl"), "{\"id\": \"a/1.png\"}\n{\"id\": \"a/2.png\"}").unwrap();
    let before = contents(&out);
    extracted(&out, &out.join("../own/captions.jsonl"));
    let after = contents(&out);
    assert!(before.iter().all(|(path, bytes)| after.get(path) == Some(bytes)));
    let data = DataFolder::open(&out).unwrap();
    assert_eq!((data.captions.len(), data.items.len()), (2, 2));
    assert_eq!(data.splits.unwrap().ids("train").unwrap(), ["a/0.png"]);
    let left_out = fs::read_to_string(out.join("left-out.jsonl")).unwrap();
    assert!(left_out.contains("a/9.heic") && left_out.contains("a/1.png"), "{left_out}");

    // Another file of captions is in the way, and captions of nothing are told before all work.
    let refused = |captions: &str, name: &str| {
        fs::write(&file, captions).unwrap();
        let out = folder.path().join(name);
        let before = if out.exists() { contents(&out) } else { BTreeMap::new() };
        let extraction = Extraction::new(&items, &root, &out).with_captions(&file);
        let error = extraction.check().unwrap_err().to_string();
        let counting = Counting(AtomicUsize::new(0), "one");
        let config = ExtractConfig::default();
        extraction.run(&counting, &config, &Monitor::new()).unwrap_err();
        assert_eq!(counting.0.load(Ordering::Relaxed), 0);
        let after = if out.exists() { contents(&out) } else { BTreeMap::new() };
        assert_eq!(after, before);
        error
    };
    let error = refused(LINES[3], "new");
    assert!(error.contains("a/9.heic") && error.contains("--stems"), "{error}");
    fs::create_dir(folder.path().join("taken")).unwrap();
    fs::write(folder.path().join("taken/captions.jsonl"), LINES[0]).unwrap();
    let error = refused(LINES[4], "taken");
    assert!(error.contains("captions.jsonl") && error.contains("move this file away"), "{error}");
}

/// Fails for some items until it is told to succeed, as before a missing program is installed.
struct Failing(std::sync::atomic::AtomicBool, AtomicUsize);

impl Extractor for Failing {
    fn name(&self) -> String {
        "failing".into()
    }

    fn dim(&self, _: Modality) -> usize {
        PICTURE_FEATURES
    }

    fn extract(&self, root: &Path, items: &[MediaItem]) -> Vec<Result<Vec<f32>>> {
        self.1.fetch_add(items.len(), Ordering::Relaxed);
        let fails = |item: &MediaItem| !self.0.load(Ordering::Relaxed) && item.id != "a/1.png";
        let one = |item: &MediaItem| match fails(item) {
            true => Err(Error::media("item").expected("a program").found("none").fix("install it")),
            false => Descriptors::default().extract(root, std::slice::from_ref(item)).remove(0),
        };
        items.iter().map(one).collect()
    }
}

#[test]
fn what_failed_is_tried_again() {
    let (folder, items) = pictures(5);
    let failing = Failing(false.into(), 0.into());
    let stop = StopFlag::new();
    run(&folder, &items, &failing, 2, &stop, |at| {
        if at.done == 4 {
            stop.raise();
        }
    })
    .unwrap_err();
    failing.0.store(true, Ordering::Relaxed);
    failing.1.store(0, Ordering::Relaxed);
    let made = run(&folder, &items, &failing, 2, &StopFlag::new(), |_| {}).unwrap();
    assert_eq!((made.items, made.resumed, made.failed.len()), (5, 1, 0));
    assert_eq!(failing.1.load(Ordering::Relaxed), 4);
    let (whole, _) = pictures(5);
    run(&whole, &items, &failing, 2, &StopFlag::new(), |_| {}).unwrap();
    let data = |folder: &tempfile::TempDir| {
        ShardedFeatures::open_folder(folder.path().join("data")).unwrap().in_memory().unwrap()
    };
    assert_eq!(data(&folder).as_slice(), data(&whole).as_slice());
}

/// Whatever write fails and wherever the process dies, the same call again gives the same folder.
#[test]
fn whatever_fails_an_extraction_goes_on() {
    use cart_retrieval::members::faults::{Fault, inject};
    let (folder, items) = pictures(4);
    fs::write(folder.path().join("media/a/1.png"), "broken").unwrap();
    let (root, file) = (folder.path().join("media"), folder.path().join("mine.jsonl"));
    fs::write(&file, LINES.concat()).unwrap();
    let extracted = |out: &Path| {
        let (config, stop) = (ExtractConfig { part: 2 }, StopFlag::new());
        let extraction = Extraction::new(&items, &root, out).with_captions(&file);
        extraction.run(&Descriptors::default(), &config, &Monitor::new().with_stop(&stop))
    };
    let names = |out: &Path| {
        let name = |(path, bytes): (PathBuf, Vec<u8>)| {
            (path.strip_prefix(out).unwrap().to_path_buf(), bytes)
        };
        contents(out).into_iter().map(name).collect::<BTreeMap<_, _>>()
    };
    let whole = folder.path().join("whole");
    extracted(&whole).unwrap();
    let whole = names(&whole);
    for fault in [Fault::Once, Fault::Full, Fault::Killed] {
        for at in 0.. {
            let out = tempfile::tempdir().unwrap();
            let data = out.path().join("data");
            let injected = inject(out.path(), at, fault);
            let first = extracted(&data);
            let happened = injected.happened();
            drop(injected);
            // A failure that does no harm need not be told: a copy in the place of a link.
            assert!(happened || first.is_ok(), "{fault:?} {at}");
            let second = extracted(&data).unwrap_or_else(|e| panic!("{fault:?} {at}: {e}"));
            assert_eq!(second.items, 3);
            assert_eq!(names(&data), whole, "{fault:?} {at}");
            assert_eq!(fs::read_to_string(&file).unwrap(), LINES.concat());
            if !happened {
                assert!(at > 40, "{at}");
                break;
            }
        }
    }
}

#[test]
fn two_extractions_into_one_folder_are_told_apart() {
    let (folder, items) = pictures(4);
    let descriptors = Descriptors::default();
    let mut errors = Vec::new();
    run(&folder, &items, &descriptors, 2, &StopFlag::new(), |at| {
        if at.done == 2 {
            let second = run(&folder, &items, &descriptors, 2, &StopFlag::new(), |_| {});
            errors.push(second.unwrap_err().to_string());
        }
    })
    .unwrap();
    assert!(errors[0].contains("no other program runs"), "{errors:?}");
}

/// Counts what it is asked for.
struct Counting(AtomicUsize, &'static str);

impl Extractor for Counting {
    fn name(&self) -> String {
        self.1.into()
    }

    fn dim(&self, _: Modality) -> usize {
        PICTURE_FEATURES
    }

    fn extract(&self, root: &std::path::Path, items: &[MediaItem]) -> Vec<Result<Vec<f32>>> {
        self.0.fetch_add(items.len(), Ordering::Relaxed);
        Descriptors::default().extract(root, items)
    }
}

#[test]
fn an_extraction_that_was_stopped_goes_on() {
    let (folder, items) = pictures(7);
    let stop = StopFlag::new();
    let first = Counting(AtomicUsize::new(0), "one");
    let error = run(&folder, &items, &first, 2, &stop, |at| {
        if at.done == 4 {
            stop.raise();
        }
    });
    let error = error.unwrap_err();
    assert!(
        matches!(error, Error::Interrupted(_)) && error.to_string().contains("after 4"),
        "{error}"
    );
    assert!(!folder.path().join("data/ids.txt").exists());

    let other = Counting(AtomicUsize::new(0), "other settings");
    let error = run(&folder, &items, &other, 2, &StopFlag::new(), |_| {}).unwrap_err().to_string();
    assert!(error.contains("`other settings`") && error.contains("`one`"), "{error}");
    assert!(run(&folder, &items[1..], &first, 2, &StopFlag::new(), |_| {}).is_err());
    assert!(run(&folder, &items, &first, 3, &StopFlag::new(), |_| {}).is_err());

    let made = run(&folder, &items, &first, 2, &StopFlag::new(), |_| {}).unwrap();
    assert_eq!((made.items, made.resumed, first.0.load(Ordering::Relaxed)), (7, 4, 7));
    let (whole, _) = pictures(7);
    run(&whole, &items, &first, 100, &StopFlag::new(), |_| {}).unwrap();
    let features = |folder: &tempfile::TempDir| {
        let out = folder.path().join("data");
        match out.join("features.npy").exists() {
            true => Features::open(out.join("features.npy")).unwrap(),
            false => ShardedFeatures::open_folder(out).unwrap().in_memory().unwrap(),
        }
    };
    assert_eq!(features(&folder).as_slice(), features(&whole).as_slice());
    assert!(whole.path().join("data/features.npy").exists());
}

#[test]
fn what_cannot_be_extracted_is_refused() {
    let (folder, items) = pictures(2);
    let (descriptors, stop) = (Descriptors::default(), StopFlag::new());
    assert!(run(&folder, &[], &descriptors, 2, &stop, |_| {}).is_err());
    assert!(run(&folder, &items, &descriptors, 0, &stop, |_| {}).is_err());
    let twice = [items[0].clone(), items[0].clone()];
    assert!(matches!(run(&folder, &twice, &descriptors, 2, &stop, |_| {}), Err(Error::Ids(_))));
    let mut mixed = items.clone();
    mixed[1].modality = Modality::Audio;
    let error = run(&folder, &mixed, &descriptors, 2, &stop, |_| {}).unwrap_err().to_string();
    assert!(error.contains("one modality") && error.contains("a/1.png"), "{error}");
    let elsewhere: Vec<MediaItem> =
        items.iter().map(|i| MediaItem { path: "none".into(), ..i.clone() }).collect();
    let error = run(&folder, &elsewhere, &descriptors, 2, &stop, |_| {}).unwrap_err().to_string();
    assert!(error.contains("none of 2"), "{error}");

    struct Bad(Vec<f32>);
    impl Extractor for Bad {
        fn name(&self) -> String {
            "bad".into()
        }
        fn dim(&self, _: Modality) -> usize {
            2
        }
        fn extract(&self, _: &std::path::Path, items: &[MediaItem]) -> Vec<Result<Vec<f32>>> {
            items.iter().map(|_| Ok(self.0.clone())).collect()
        }
    }
    for bad in [vec![1.0], vec![1.0, f32::NAN], vec![0.0, 0.0]] {
        let (folder, items) = pictures(2);
        let error = run(&folder, &items, &Bad(bad), 2, &stop, |_| {}).unwrap_err().to_string();
        assert!(error.contains("finite numbers of the extractor"), "{error}");
    }
}

#[test]
fn sounds_and_videos_are_extracted_too() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/media");
    let out = tempfile::tempdir().unwrap();
    let (descriptors, config) = (Descriptors::default(), ExtractConfig::default());
    for (modality, count, dim) in
        [(Modality::Audio, 4, SOUND_FEATURES), (Modality::Video, 3, VIDEO_FEATURES)]
    {
        let MediaFound { items, left_out, .. } = media_below(&root, &[modality]).unwrap();
        assert!(left_out.is_empty());
        let to = out.path().join(modality.to_string());
        let made = Extraction::new(&items, &root, &to)
            .run(&descriptors, &config, &Monitor::new())
            .unwrap();
        assert_eq!((made.items, made.failed), (count, vec![]));
        let features = Features::open(to.join("features.npy")).unwrap();
        assert_eq!(features.dim(), dim);
        features.check().unwrap();
    }
}

#[test]
fn media_are_found_by_their_extensions() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    for file in ["b/2.JPG", "b/1.png", "z.wav", "notes.txt", "clips/one/f1.png", "clips/one/f2.png"]
    {
        fs::create_dir_all(root.join(file).parent().unwrap()).unwrap();
        fs::write(root.join(file), "x").unwrap();
    }
    let found = |modalities: &[Modality]| -> Vec<String> {
        media_below(root, modalities).unwrap().items.into_iter().map(|item| item.id).collect()
    };
    let pictures = ["b/1.png", "b/2.JPG", "clips/one/f1.png", "clips/one/f2.png"];
    assert_eq!(found(&[Modality::Image]), pictures);
    assert_eq!(found(&[Modality::Audio]), ["z.wav"]);
    // Folders of pictures are videos where pictures are not asked for.
    assert_eq!(found(&[Modality::Video]), ["b", "clips/one"]);
    fs::remove_file(root.join("z.wav")).unwrap();
    let error = media_below(root, &[Modality::Audio]).unwrap_err().to_string();
    assert!(error.contains("files of audio"), "{error}");
    assert!(matches!(media_below(root.join("none"), &[Modality::Image]), Err(Error::Io { .. })));
    #[cfg(unix)]
    {
        use std::os::unix::{ffi::OsStrExt, fs::symlink};
        symlink(root, root.join("b/loop")).unwrap();
        symlink(root.join("gone.png"), root.join("b/dangling.png")).unwrap();
        symlink(root.join("b/1.png"), root.join("b/3.png")).unwrap();
        let name = std::ffi::OsStr::from_bytes(b"b/\xFF.png");
        fs::write(root.join(name), "x").unwrap();
        let found = media_below(root, &[Modality::Image]).unwrap();
        assert_eq!(found.items.len(), 5);
        let left_out: Vec<&std::path::Path> =
            found.left_out.iter().map(|left_out| left_out.path.as_path()).collect();
        assert_eq!(
            left_out,
            ["b/dangling.png".as_ref(), "b/loop".as_ref(), std::path::Path::new(name)]
        );
    }
}
