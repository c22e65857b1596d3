use std::{fs, path::PathBuf, sync::atomic::AtomicUsize, sync::atomic::Ordering};

use super::{extract::*, *};
use crate::{
    Error, Result,
    data::{Caption, Captions, DataFolder, Splits},
    features::{Features, ShardedFeatures},
    train::StopFlag,
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
    extract(items, root, out, extractor, &ExtractConfig { part }, stop, progress)
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
    assert_eq!((made.items, made.resumed, made.captions_left_out), (3, 0, 3));
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

    let again = run(&folder, &items, &descriptors, 2, &stop, |_| {}).unwrap_err().to_string();
    assert!(again.contains("without features"), "{again}");
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
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/media");
    let out = tempfile::tempdir().unwrap();
    let (descriptors, config) = (Descriptors::default(), ExtractConfig::default());
    for (modality, count, dim) in
        [(Modality::Audio, 4, SOUND_FEATURES), (Modality::Video, 3, VIDEO_FEATURES)]
    {
        let MediaFound { items, left_out, .. } = media_below(&root, &[modality]).unwrap();
        assert!(left_out.is_empty());
        let to = out.path().join(modality.to_string());
        let made =
            extract(&items, &root, &to, &descriptors, &config, &StopFlag::new(), |_| {}).unwrap();
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
