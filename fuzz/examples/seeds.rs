//! Writes small files of every kind that the targets read, into `seeds/TARGET`: what a fuzzer
//! starts from.
//!
//! `cargo run --release --example seeds`

#[path = "../fuzz_targets/indexes.rs"]
mod indexes;

use std::{fs, path::Path};

use burn::backend::Flex;
use cart_retrieval::{align::TextSpaceConfig, expert::TextVectors, prelude::*,
    quantizer::{HierarchicalConfig, RqKMeansConfig, RqVaeConfig}};

type Seeds<'a> = &'a mut dyn FnMut(&str, &str, u8, &[u8]);

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut failed = None;
    let mut seed = |target: &str, name: &str, kind: u8, bytes: &[u8]| {
        let folder = root.join("seeds").join(target);
        let bytes = [&[kind], bytes].concat();
        let written =
            fs::create_dir_all(&folder).and_then(|()| fs::write(folder.join(name), bytes));
        failed = failed.take().or(written.err());
    };
    let scratch = std::env::temp_dir().join(format!("cart-seeds-{}", std::process::id()));
    fs::create_dir_all(&scratch)?;
    matrices(&scratch, &mut seed)?;
    index(&scratch, root, &mut seed)?;
    folder(&scratch, &mut seed)?;
    texts(root, &mut seed)?;
    media(root, &mut seed)?;
    fs::remove_dir_all(&scratch)?;
    failed.map_or(Ok(()), |error| Err(error.into()))
}

fn matrices(scratch: &Path, seed: Seeds) -> std::result::Result<(), Box<dyn std::error::Error>> {
    let path = scratch.join("m.npy");
    Features::from_rows(vec![0.5, -1.0, 2.0, 3.0, 4.0, 5.5], 3)?.save_npy(&path)?;
    let npy = fs::read(&path)?;
    seed("matrices", "npy_f32", 0, &npy);
    let text = String::from_utf8_lossy(&npy[10..128]).into_owned();
    for (name, from, to) in [
        ("npy_f64_columns", "'<f4', 'fortran_order': False", "'<f8', 'fortran_order': True "),
        ("npy_f16_big", "'<f4'", "'>f2'"),
    ] {
        let width = if to.contains("f8") { 8 } else { 2 };
        let text = text.replace(from, to);
        seed("matrices", name, 0, &[&npy[..10], text.as_bytes(), &vec![0x3c; 6 * width]].concat());
    }
    for (name, dtype, width) in [("f32", "F32", 4), ("bf16", "BF16", 2), ("f64", "F64", 8)] {
        let end = 6 * width;
        let header = format!(
            "{{\"a\":{{\"dtype\":\"{dtype}\",\"shape\":[2,3],\"data_offsets\":[0,{end}]}}}}"
        );
        let length = (header.len() as u64).to_le_bytes();
        let bytes = [&length[..], header.as_bytes(), &vec![0x3f; end]].concat();
        seed("matrices", &format!("safetensors_{name}"), 2, &bytes);
    }
    Ok(())
}

fn index(
    scratch: &Path,
    root: &Path,
    seed: Seeds,
) -> std::result::Result<(), Box<dyn std::error::Error>> {
    let device = Default::default();
    let rows: Vec<f32> = (0..24).map(|i| ((i * i) as f32 * 0.71).sin()).collect();
    let items = Features::from_rows(rows, 2)?;
    let vae = RqVaeConfig { latent: 2, hidden: vec![2], epochs: 1, ..RqVaeConfig::new(vec![2]) };
    for (name, fine) in [
        ("rq_vae", FineConfig::RqVae(vae)),
        ("rq_kmeans", FineConfig::RqKmeans(RqKMeansConfig::new(vec![2]))),
        ("hierarchical", FineConfig::Hierarchical(HierarchicalConfig::new(vec![2, 2]))),
    ] {
        let config = CoarseToFineConfig::new(2, fine);
        let quantizer = config.fit::<Flex>(&items, &device)?;
        seed("index", name, 1, &quantizer.to_safetensors()?);
        if name != "rq_kmeans" {
            continue;
        }
        let part = scratch.join("part.safetensors");
        quantizer.assign(&items).part(0, 2)?.save(&part)?;
        seed("index", "part", 3, &fs::read(&part)?);
        // The manifest of a whole index.
        let texts = ["a dog", "a cat"];
        let captions: Vec<ItemCaption> = (0..12)
            .map(|item| ItemCaption { item, text: texts[item as usize % 2].into(), weight: 1.0 })
            .collect();
        let tokenizer = TextTokenizer::train(texts, &TokenizerConfig::default(), 8)?;
        let index = quantizer.assign(&items).run()?;
        let config = CartConfig::new(tokenizer.vocabulary(), index.vocabulary().clone())
            .with_width(4, 4, 1)
            .with_layers(1, 1)
            .with_max_tokens(8);
        TrainingData::new(&tokenizer, TrainingCaptions { train: &captions, valid: &[] }, &index)?;
        seed("texts", "tokenizer", 3, tokenizer.to_json()?.as_bytes());
        let model = config.init::<Flex>(&device)?;
        let folder = scratch.join("index");
        Retriever::new(RetrieverParts { model, config, tokenizer, quantizer, index })?.save(&folder)?;
        seed("index", "manifest", 0, &fs::read(folder.join("manifest.json"))?);
    }
    let vectors = TextVectors::new(2, items.as_slice().to_vec(), (0..12).collect())?;
    for (name, gammas) in [("space_linear", vec![0.0]), ("space_kernel", vec![1.0])] {
        let config = TextSpaceConfig { gammas, ..TextSpaceConfig::default() };
        seed("index", name, 2, &config.fit(&items, &vectors)?.space.to_safetensors()?);
    }
    let bert = root.join("../tests/fixtures/text/bert");
    let weights = fs::read(bert.join("model.safetensors"))?;
    // The header and a part of the numbers: fuzzers do better on small files.
    let config = fs::read(bert.join("config.json"))?;
    seed("index", "pretrained", 4, &[&config[..], &[0], &weights[..2048]].concat());
    Ok(())
}

/// All files of three indexes, but for the weights of their networks, which are long.
fn folder(scratch: &Path, seed: Seeds) -> std::result::Result<(), Box<dyn std::error::Error>> {
    for (which, retriever) in indexes::indexes().into_iter().enumerate() {
        let folder = scratch.join(which.to_string());
        retriever.save(&folder)?;
        for (at, (role, name)) in indexes::roles(&folder).into_iter().enumerate() {
            let bytes = fs::read(folder.join(name))?;
            if bytes.len() < 8192 {
                seed(
                    "folder",
                    &format!("{role}_{which}"),
                    which as u8,
                    &[&[at as u8], &bytes[..]].concat(),
                );
            }
        }
    }
    Ok(())
}

fn texts(root: &Path, seed: Seeds) -> std::result::Result<(), Box<dyn std::error::Error>> {
    seed("texts", "ids", 0, b"a.jpg\r\nb.jpg\nc d\n");
    let captions = br#"{"id":"a","caption":"a dog"}
{"id":"b","caption":"two cats","kind":"generated","source":"x","weight":0.5,"more":[1]}
"#;
    seed("texts", "captions", 1, captions);
    seed("texts", "splits", 2, br#"{"train":["a","b"],"val":["c"],"test":[]}"#);
    let tokenizer = fs::read(root.join("../tests/fixtures/text/clip/tokenizer.json"))?;
    seed("texts", "tokenizer_bpe", 3, &tokenizer);
    let karpathy = br#"{"images":[{"filename":"1.jpg","split":"train","sentences":[{"raw":"a dog","sentid":1}]}],"dataset":"flickr30k"}"#;
    seed("texts", "karpathy", 4, karpathy);
    let vtt = r#"{"videos":[{"video_id":"video0","split":"train"},{"video_id":"video1","split":"test"}],"sentences":[{"video_id":"video0","caption":"a man","sen_id":1}]}"#;
    seed("texts", "msr_vtt", 5, vtt.as_bytes());
    let lists = format!("{vtt}\0video_id\nvideo0\n\0video_id,sentence\nvideo1,a dog\n");
    seed("texts", "msr_vtt_1k_a", 6, lists.as_bytes());
    seed("texts", "msvd_lines", 7, b"# comment\na_1_2 a dog runs\nb_3_4 a cat\n\0a_1_2\n\0b_3_4\n");
    seed(
        "texts",
        "msvd_table",
        8,
        b"VideoID,Start,End,Language,Description\na,1,2,English,a dog\n\0a_1_2\n\0",
    );
    let clotho = "file_name,caption_1,caption_2,caption_3,caption_4,caption_5\na.wav,one,two,three,four,five\n";
    seed("texts", "clotho", 9, format!("{clotho}\0{clotho}\0{clotho}").as_bytes());
    let caps = "audiocap_id,youtube_id,start_time,caption\n1,abc,30,a dog barks\n";
    seed("texts", "audio_caps", 10, format!("{caps}\0{}\0", caps.replace("abc", "def")).as_bytes());
    Ok(())
}

fn media(root: &Path, seed: Seeds) -> std::result::Result<(), Box<dyn std::error::Error>> {
    let read = |name: &str| fs::read(root.join("../tests/fixtures/media").join(name));
    for name in ["clear.png", "bilinear_20x13.png", "picture.jpg", "picture.webp", "turned.jpg"] {
        seed("media", &name.replace('.', "_"), 0, &read(name)?);
    }
    for name in ["mono.flac", "mono.mp3", "mono.ogg", "stereo.wav"] {
        let bytes = read(name)?;
        seed("media", &name.replace('.', "_"), 1, &bytes[..bytes.len().min(4096)]);
    }
    for (kind, name) in [(2, "frames.gif"), (5, "frames.webp"), (8, "frames.png")] {
        seed("media", &name.replace('.', "_"), kind, &read(name)?);
    }
    Ok(())
}
