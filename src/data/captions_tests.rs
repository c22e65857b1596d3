//! Tests of the captions file and set.

use super::*;
use proptest::prelude::*;

fn read(bytes: &[u8]) -> Result<Captions> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("captions.jsonl");
    std::fs::write(&path, bytes).unwrap();
    Captions::from_jsonl(&path)
}

#[test]
fn reads_what_the_contract_allows() {
    let text = "\u{feff}{\"id\": \"a\", \"caption\": \"one\", \"emoji\": [1]}\r\n\n  \n{\"id\":\"b\",\
                \"caption\":\"two\",\"kind\":\"k\",\"source\":\"s\",\"weight\":0.5,\"idx\":-3}";
    let captions = read(text.as_bytes()).unwrap();
    assert_eq!(captions.len(), 2);
    let mut second = Caption::new("b", "two").with_kind("k").with_source("s").with_weight(0.5);
    second.idx = Some(-3);
    assert_eq!(captions.iter().nth(1), Some(&second));
    assert_eq!(captions.subject(1).rsplit(':').next(), Some("4"));
    assert_eq!((captions.kinds(), captions.sources()), (vec!["k"], vec!["s"]));
}

#[test]
fn every_malformed_line_is_named() {
    let good = "{\"id\": \"a\", \"caption\": \"one\"}\n";
    let cases: [(&[u8], &str); 12] = [
        (b"{\"id\": \"a\"}", "missing field `caption`"),
        (b"{\"caption\": \"a\"}", "missing field `id`"),
        (b"{\"id\": 3, \"caption\": \"a\"}", "integer `3`"),
        (b"{\"id\": \"a\", \"caption\": null}", "null"),
        (b"{\"id\": \"a\", \"caption\": \" \\t\"}", "some text"),
        (b"{\"id\": \"\", \"caption\": \"x\"}", "an id"),
        (b"{\"id\": \"a\", \"caption\": \"x\", \"weight\": 0}", "above 0"),
        (b"{\"id\": \"a\", \"caption\": \"x\", \"weight\": 1e60}", "captions.jsonl:2"),
        (b"{\"id\": \"a\", \"caption\": \"x\"} {}", "trailing"),
        (b"{\"id\": \"a\", \"id\": \"b\", \"caption\": \"x\"}", "duplicate field `id`"),
        (b"{\"id\": \"a\", \"caption\": \"\xff\"}", "UTF-8"),
        (b"not json", "JSON object"),
    ];
    for (line, expected) in cases {
        let error = read(&[good.as_bytes(), line].concat()).unwrap_err();
        assert!(matches!(error, Error::Captions(_)), "{error}");
        let message = error.to_string();
        assert!(message.contains(expected), "{message}");
        assert!(message.contains("captions.jsonl:2"), "{message}");
    }
    for empty in [&b""[..], b"\n \n"] {
        assert!(read(empty).unwrap_err().to_string().contains("empty file"));
    }
    assert!(matches!(Captions::from_jsonl("no/such/file"), Err(Error::Io { .. })));
}

#[test]
fn resolve_names_the_line_and_the_likely_slip() {
    let text =
        b"{\"id\": \"a.jpg\", \"caption\": \"x\"}\n\n{\"id\": \"img/B.png\", \"caption\": \"y\"}";
    let captions = read(text).unwrap();
    let index = |known: &'static [&'static str]| {
        move |id: &str| known.iter().position(|candidate| *candidate == id)
    };
    let resolved = captions.resolve(index(&["img/B.png", "a.jpg"])).unwrap();
    assert_eq!(resolved.iter().map(|c| c.item).collect::<Vec<_>>(), [1, 0]);
    let message = captions.resolve(index(&["a.jpg", "B.jpg"])).unwrap_err().to_string();
    assert!(message.contains("captions.jsonl:3"), "{message}");
    assert!(message.contains("\"B.jpg\" exists"), "{message}");
    let message = captions.resolve(index(&["q"])).unwrap_err().to_string();
    assert!(message.contains("one of 2 captions"), "{message}");
    assert!(message.contains("ids.txt"), "{message}");
}

#[test]
fn editing_keeps_captions_and_origins_together() {
    let mut captions = read(
        b"{\"id\": \"a\", \"caption\": \"x\"}\n{\"id\": \"b\", \"caption\": \"y\"}\n{\"id\": \"c\", \"caption\": \"z\"}",
    )
    .unwrap();
    captions.retain(|caption| caption.id != "b");
    captions.push(Caption::new("d", "w")).unwrap();
    captions.extend(Captions::from_pairs([("e", "v")]).unwrap());
    let ids: Vec<&str> = captions.iter().map(|c| c.id.as_str()).collect();
    assert_eq!(ids, ["a", "c", "d", "e"]);
    assert!(captions.subject(1).ends_with(":3"));
    assert_eq!(captions.subject(3), "caption 3");
    assert!(captions.push(Caption::new("e", " ")).is_err());
    assert!(captions.push(Caption::new("e", "t").with_weight(f32::NAN)).is_err());
    let known = ["a", "x", "c", "y"];
    let index = |id: &str| known.iter().position(|candidate| *candidate == id);
    assert_eq!(captions.items_without_caption(4, index), [1, 3]);
}

#[test]
fn real_files_read_and_resolve() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data");
    for name in ["emoji", "esc50_mel", "flickr8k_clip", "lucide"] {
        let folder = root.join(name);
        let Ok(ids) = std::fs::read_to_string(folder.join("ids.txt")) else {
            eprintln!("skipped: {name} is not here");
            continue;
        };
        let ids: std::collections::HashMap<&str, usize> =
            ids.lines().enumerate().map(|(index, id)| (id, index)).collect();
        let captions = Captions::from_jsonl(folder.join("captions.jsonl")).unwrap();
        let resolved = captions.resolve(|id| ids.get(id).copied()).unwrap();
        assert_eq!(resolved.len(), captions.len());
        if name == "flickr8k_clip" {
            assert_eq!(captions.len(), 5 * ids.len());
        }
    }
}

proptest! {
    #[test]
    fn written_files_read_back(
        rows in prop::collection::vec(
            ("[^\\s]{1,8}", "[^\\s]{1}.{0,20}", prop::option::of(".{0,4}"), 0.01f32..100.0,
             prop::option::of(any::<i64>())), 1..12),
    ) {
        let mut captions = Captions::new();
        for (id, text, kind, weight, idx) in rows {
            let kind_is = kind;
            let mut caption = Caption::new(id, text).with_weight(weight);
            caption.kind = kind_is;
            caption.idx = idx;
            captions.push(caption).unwrap();
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("captions.jsonl");
        captions.to_jsonl(&path).unwrap();
        prop_assert_eq!(Captions::from_jsonl(&path).unwrap(), captions);
    }

    #[test]
    fn any_bytes_give_captions_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = read(&bytes);
    }
}
