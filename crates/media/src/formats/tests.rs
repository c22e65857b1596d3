use std::{fs, path::PathBuf};

use cart_retrieval::{Error, data::Captions};

use super::*;
use crate::media::Modality;

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }
}

fn texts<'a>(captions: &'a Captions, id: &str) -> Vec<&'a str> {
    captions.iter().filter(|c| c.id == id).map(|c| c.text.as_str()).collect()
}

fn message<T: std::fmt::Debug>(result: cart_retrieval::Result<T>) -> String {
    result.unwrap_err().to_string()
}

const FLICKR30K: &str = r#"{"images": [
 {"sentids": [0, 1], "imgid": 0, "sentences": [
   {"tokens": ["two", "men"], "raw": "Two young guys with shaggy hair.", "imgid": 0, "sentid": 0},
   {"tokens": ["men"], "raw": " Two men in green shirts. ", "imgid": 0, "sentid": 1}],
  "split": "train", "filename": "1000092795.jpg"},
 {"sentids": [2], "imgid": 1, "sentences": [
   {"tokens": [], "raw": "", "imgid": 1, "sentid": 2},
   {"tokens": ["a"], "raw": "A child.", "imgid": 1, "sentid": 3}],
  "split": "test", "filename": "10002456.jpg"}],
 "dataset": "flickr30k"}"#;

const COCO: &str = r#"{"images": [
 {"filepath": "val2014", "sentids": [770337], "filename": "COCO_val2014_000000391895.jpg", "imgid": 0,
  "split": "test", "sentences": [{"tokens": ["a"], "raw": "A man with a red helmet.", "imgid": 0, "sentid": 770337}],
  "cocoid": 391895},
 {"filepath": "val2014", "sentids": [1], "filename": "COCO_val2014_000000000042.jpg", "imgid": 1,
  "split": "restval", "sentences": [{"tokens": ["b"], "raw": "Shoes.", "imgid": 1, "sentid": 1}], "cocoid": 42}],
 "dataset": "coco"}"#;

#[test]
fn karpathy_has_images_sentences_and_splits() {
    let folder = Folder::new();
    let set = karpathy(folder.file("dataset_flickr30k.json", FLICKR30K)).unwrap();
    assert_eq!(set.items().len(), 2);
    assert_eq!(set.items()[0].modality, Modality::Image);
    assert_eq!(texts(set.captions(), "1000092795.jpg").len(), 2);
    assert_eq!(texts(set.captions(), "10002456.jpg"), ["A child."]);
    assert_eq!(set.captions().iter().nth(2).unwrap().idx, Some(3));
    assert_eq!(set.splits().names().collect::<Vec<_>>(), ["train", "test"]);
    assert!(set.left_out()[0].contains("1 blank"));

    let coco = karpathy(folder.file("dataset_coco.json", COCO)).unwrap();
    assert_eq!(coco.splits().ids("train").unwrap(), ["COCO_val2014_000000000042.jpg"]);
    assert_eq!(coco.items()[0].path, PathBuf::from("val2014/COCO_val2014_000000391895.jpg"));
    assert!(coco.left_out().is_empty());
}

#[test]
fn a_file_that_looks_otherwise_says_where() {
    let folder = Folder::new();
    let read = |text: String| message(karpathy(folder.file("x.json", text)));
    assert!(read(FLICKR30K.replace("\"test\"", "\"holdout\"")).contains("images[1]"));
    assert!(read(FLICKR30K.replace("10002456", "1000092795")).contains("again"));
    assert!(read(FLICKR30K.replace("\"raw\"", "\"text\"")).contains("missing field `raw`"));
    assert!(read(FLICKR30K[..300].into()).contains("line"));
    assert!(
        read(r#"{"images": [{"filename": "a", "split": "train", "sentences": []}]}"#.into())
            .contains("none for `a`")
    );
    assert!(read(r#"{"images": []}"#.into()).contains("no caption"));
    assert!(matches!(karpathy("no-such-file.json"), Err(Error::Io { .. })));
}

const MSR_VTT: &str = r#"{"info": {"year": "2016"}, "videos": [
 {"category": 9, "url": "https://example.org/v", "video_id": "video0", "start time": 137.72, "end time": 149.44, "split": "train", "id": 0},
 {"category": 1, "url": "https://example.org/w", "video_id": "video6513", "start time": 1.0, "end time": 9.5, "split": "validate", "id": 1},
 {"category": 3, "url": "https://example.org/x", "video_id": "video9770", "start time": 0.0, "end time": 8.0, "split": "test", "id": 2}],
 "sentences": [
 {"caption": "a car is shown", "video_id": "video0", "sen_id": 0},
 {"caption": "a man drives a car", "video_id": "video0", "sen_id": 1},
 {"caption": "people talk", "video_id": "video6513", "sen_id": 2},
 {"caption": "a person connects something", "video_id": "video9770", "sen_id": 3},
 {"caption": "someone uses wires", "video_id": "video9770", "sen_id": 4}]}"#;

#[test]
fn msr_vtt_has_its_own_splits_and_1k_a() {
    let folder = Folder::new();
    let file = folder.file("MSRVTT_data.json", MSR_VTT);
    let set = msr_vtt(&[&file]).unwrap();
    assert_eq!(set.splits().names().collect::<Vec<_>>(), ["train", "val", "test"]);
    assert_eq!(texts(set.captions(), "video9770").len(), 2);
    assert_eq!(set.items()[0].path, PathBuf::from("video0.mp4"));

    let train = folder.file("MSRVTT_train.9k.csv", "video_id\nvideo0\nvideo6513\n");
    let test = folder.file(
        "MSRVTT_JSFUSION_test.csv",
        "key,vid_key,video_id,sentence\nret0,msr9770,video9770,\"a person, connecting something to system\"\n",
    );
    let set = msr_vtt_1k_a(&[&file], &train, &test).unwrap();
    assert_eq!(set.splits().ids("train").unwrap(), ["video0", "video6513"]);
    assert_eq!(texts(set.captions(), "video9770"), ["a person, connecting something to system"]);
    assert_eq!(set.captions().len(), 4);

    let both = folder.file("both.csv", "video_id\nvideo0\nvideo9770\n");
    let error = message(msr_vtt_1k_a(&[&file], &both, &test));
    assert!(error.contains("JSFUSION_test.csv:2") && error.contains("again"), "{error}");
    let stray = folder.file("stray.csv", "video_id\nvideo1\n");
    assert!(message(msr_vtt_1k_a(&[&file], &stray, &test)).contains("`video1`"));
    assert!(message(msr_vtt_1k_a(&[&file], &train, &train)).contains("no `sentence`"));
    let stray = folder.file(
        "stray.json",
        MSR_VTT.replace("\"video_id\": \"video0\", \"sen", "\"video_id\": \"video7\", \"sen"),
    );
    assert!(message(msr_vtt(&[&stray])).contains("`video7`"));
    assert!(message(msr_vtt(&[&file, &file])).contains("again"));
    assert!(msr_vtt::<&str>(&[]).is_err());
}

#[test]
fn msvd_reads_descriptions_of_both_kinds() {
    let folder = Folder::new();
    let text = folder.file(
        "AllVideoDescriptions.txt",
        "# Descriptions\n\nmv89psg6zh4_33_46 a bird is bathing in a sink\nmv89psg6zh4_33_46 a bird splashes\n\
         _0nX-El-ySo_83_93 a boy swims\nxxHx6s_DbUo_121_128 nobody asked\n",
    );
    let train = folder.file("train_list.txt", "mv89psg6zh4_33_46\n");
    let test = folder.file("test_list.txt", "_0nX-El-ySo_83_93\r\n");
    let set = msvd(&text, &[("train", &train), ("test", &test)]).unwrap();
    assert_eq!(texts(set.captions(), "mv89psg6zh4_33_46")[1], "a bird splashes");
    assert_eq!(set.items()[1].path, PathBuf::from("_0nX-El-ySo_83_93.avi"));
    assert!(set.left_out()[0].contains("1 descriptions of clips"));

    let table = folder.file(
        "video_corpus.csv",
        "VideoID,Start,End,WorkerID,Source,AnnotationTime,Language,Description\n\
         mv89psg6zh4,33,46,588702,unverified,55,English,A bird in a sink.\n\
         mv89psg6zh4,33,46,588702,unverified,55,Slovene,Ptica.\n\
         _0nX-El-ySo,83,93,362812,clean,16,English,\n\
         _0nX-El-ySo,83,93,362812,clean,16,English,\"A boy, swimming.\"\n",
    );
    let set = msvd(&table, &[("train", &train), ("test", &test)]).unwrap();
    assert_eq!(texts(set.captions(), "_0nX-El-ySo_83_93"), ["A boy, swimming."]);
    assert_eq!(set.left_out().len(), 2);

    let wrong = folder.file("wrong.txt", "somewhere_1_2\n");
    let error = message(msvd(&text, &[("test", &wrong)]));
    assert!(error.contains("wrong.txt:1") && error.contains("somewhere_1_2"), "{error}");
    let broken = folder.file("broken.txt", "only-a-clip\n");
    assert!(message(msvd(&broken, &[("train", &train)])).contains("broken.txt:1"));
}

const CLOTHO: &str = "file_name,caption_1,caption_2,caption_3,caption_4,caption_5\n\
    Distorted AM Radio noise.wav,A muddled noise,A radio,\"A radio, dissonant\",Noise,Static\n";

#[test]
fn clotho_has_five_captions_for_each_sound() {
    let folder = Folder::new();
    let development = folder.file("clotho_captions_development.csv", CLOTHO);
    let evaluation = folder.file("clotho_captions_evaluation.csv", format!("\u{feff}{CLOTHO}"));
    let tables = [("train", "development", &development), ("test", "evaluation", &evaluation)];
    let set = clotho(&tables).unwrap();
    let id = "evaluation/Distorted AM Radio noise.wav";
    assert_eq!(texts(set.captions(), id)[2], "A radio, dissonant");
    assert_eq!(set.items()[1].path, PathBuf::from(id));
    assert_eq!(set.captions().iter().nth(9).unwrap().idx, Some(4));
    assert_eq!(set.items()[0].modality, Modality::Audio);

    let read = |bytes: &[u8]| message(clotho(&[("train", "d", folder.file("x.csv", bytes))]));
    let short =
        read(b"file_name,caption_1,caption_2,caption_3,caption_4,caption_5\na.wav,one,two\n");
    assert!(short.contains("x.csv:2") && short.contains("3 values"), "{short}");
    assert!(read(CLOTHO.replace("caption_5", "caption5").as_bytes()).contains("no `caption_5`"));
    assert!(
        read(CLOTHO.replace("Distorted AM Radio noise.wav", "").as_bytes()).contains("file_name")
    );
    let latin = CLOTHO.replace("muddled", "m\u{1}").into_bytes();
    let latin: Vec<u8> = latin.into_iter().map(|b| if b == 1 { 0xE9 } else { b }).collect();
    let error = read(&latin);
    assert!(error.contains("x.csv:2") && error.contains("not UTF-8"), "{error}");
    let twice = format!("{CLOTHO}Distorted AM Radio noise.wav,a,b,c,d,e\n");
    assert!(read(twice.as_bytes()).contains("x.csv:3"));
}

#[test]
fn audio_caps_gathers_the_captions_of_a_clip() {
    let folder = Folder::new();
    let head = "audiocap_id,youtube_id,start_time,caption\n";
    let train = folder.file(
        "train.csv",
        format!("{head}91139,r1nicOVtvkQ,130,A woman talks nearby as water pours\n"),
    );
    let rows = "103549,7fmOlUlwoNg,20,Constant rattling noise\n103548,7fmOlUlwoNg,20,\"Rattling, and a whistle\"\n";
    let test = folder.file("test.csv", format!("{head}{rows}"));
    let tables = [("train", &train), ("test", &test)];
    let set = audio_caps(&tables, ClipName::default()).unwrap();
    assert_eq!(set.items().len(), 2);
    assert_eq!(texts(set.captions(), "7fmOlUlwoNg_20").len(), 2);
    assert_eq!(set.items()[0].path, PathBuf::from("r1nicOVtvkQ_130.wav"));
    assert_eq!(set.captions().iter().next().unwrap().idx, Some(91139));
    let whole = audio_caps(&tables, ClipName::Whole).unwrap();
    assert_eq!(whole.items()[1].span, Some((20.0, 30.0)));
    let y = audio_caps(&tables, ClipName::YAndId).unwrap();
    assert_eq!(y.items()[0].path, PathBuf::from("Yr1nicOVtvkQ.wav"));

    let both = [("train", &test), ("test", &test)];
    assert!(matches!(audio_caps(&both, ClipName::default()), Err(Error::Splits(_))));
    let bad = folder.file("bad.csv", format!("{head}1,x,soon,A bell\n"));
    let error = message(audio_caps(&[("train", bad)], ClipName::default()));
    assert!(error.contains("bad.csv:2") && error.contains("soon"), "{error}");
}

#[test]
fn what_is_written_is_the_data_contract() {
    let folder = Folder::new();
    let mut set = karpathy(folder.file("dataset_flickr30k.json", FLICKR30K)).unwrap();
    let error = message(set.check_media(folder.0.path()));
    assert!(error.contains("2 missing") && error.contains("1000092795.jpg"), "{error}");
    assert!(set.clone().retain_media(folder.0.path()).is_err());
    folder.file("10002456.jpg", "");
    // A split without any file left is not passed over in silence.
    assert!(matches!(set.clone().retain_media(folder.0.path()), Err(Error::Splits(_))));
    folder.file("1000092795.jpg", "");
    set.check_media(folder.0.path()).unwrap();
    assert!(set.retain_media(folder.0.path()).unwrap().is_empty());

    let out = folder.0.path().join("out/data");
    set.write(&out).unwrap();
    let captions = Captions::from_jsonl(out.join("captions.jsonl")).unwrap();
    assert_eq!(captions.len(), 3);
    assert_eq!(captions.kinds(), ["human"]);
    let ids = cart_retrieval::features::ItemIds::open(out.join("ids.txt")).unwrap();
    assert_eq!(ids.iter().collect::<Vec<_>>(), ["1000092795.jpg", "10002456.jpg"]);
    let splits = cart_retrieval::data::Splits::from_json(out.join("splits.json")).unwrap();
    splits.verify(|id| ids.index_of(id)).unwrap();
    let media = fs::read_to_string(out.join(PublishedSet::MEDIA)).unwrap();
    let first: crate::media::MediaItem =
        serde_json::from_str(media.lines().next().unwrap()).unwrap();
    assert_eq!(&first, &set.items()[0]);
}
