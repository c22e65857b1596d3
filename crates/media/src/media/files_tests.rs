//! Files as people have them: cut, of odd formats, with headers that lie.

use std::{
    fs,
    path::{Path, PathBuf},
};

use cart_retrieval::Result;

use super::{resample::Resampler, *};

fn fixture(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/media");
    fs::read(folder.join(name)).unwrap()
}

fn picture(bytes: &[u8]) -> Result<Picture> {
    Picture::from_bytes("p", bytes, Transparency::Ignored, PictureLimits::default())
}

/// Twin: Pillow, which refuses these cuts too (`image file is truncated`).
#[test]
fn cut_pictures_are_refused_wherever_they_are_cut() {
    // Without the last bytes, a checksum, a trailer or padding, all pixels are there.
    for (name, needless) in
        [("picture.jpg", 0), ("turned.jpg", 0), ("picture.png", 20), ("picture.webp", 0)]
    {
        let bytes = fixture(name);
        assert!(picture(&bytes).is_ok(), "{name}");
        for end in 0..bytes.len() - needless {
            let error = picture(&bytes[..end]).expect_err(&format!("{name} cut at {end}"));
            assert!(error.to_string().contains("p: expected"), "{error}");
        }
    }
    let jpeg = fixture("picture.jpg");
    let error = picture(&jpeg[..jpeg.len() - 2]).unwrap_err().to_string();
    assert!(error.contains("ends early") && error.contains("end-of-image"), "{error}");
    // Bytes after the end are fine: a second picture, an archive, padding.
    let expected = picture(&jpeg).unwrap();
    for more in [&jpeg[..], b"PK\x03\x04", &[0; 100], &[0xFF; 9]] {
        assert_eq!(picture(&[&jpeg, more].concat()).unwrap(), expected);
    }
    // A thumbnail in a segment has an end of its own, which does not count.
    let thumbnail = [&[0xFF, 0xE5, 0, 6, 0xFF, 0xD8, 0xFF, 0xD9][..], &jpeg[2..]].concat();
    let whole = [&jpeg[..2], &thumbnail].concat();
    assert_eq!(picture(&whole).unwrap(), expected);
    assert!(picture(&whole[..whole.len() / 2]).is_err());
    // Stuffed bytes, restart markers and fill bytes before a marker are no ends; several scans have
    // one end.
    let scans = b"\xFF\xD8\xFF\xDA\0\x02a\xFF\0\xFF\xD0b\xFF\xFF\xDA\0\x02c\xFF\xFF\xD9";
    assert!(jpeg::is_whole(scans) && (0..scans.len()).all(|end| !jpeg::is_whole(&scans[..end])));
}

#[test]
fn bitmaps_and_tiffs_are_read() {
    let rgb: Vec<u8> = (0..5 * 3 * 3).map(|at| at as u8 * 5).collect();
    let image = image::RgbImage::from_raw(5, 3, rgb.clone()).unwrap();
    for format in [image::ImageFormat::Bmp, image::ImageFormat::Tiff] {
        let mut bytes = std::io::Cursor::new(Vec::new());
        image.write_to(&mut bytes, format).unwrap();
        let bytes = bytes.into_inner();
        assert_eq!(picture(&bytes).unwrap().rgb(), rgb, "{format:?}");
        for end in 0..bytes.len() / 2 {
            assert!(picture(&bytes[..end]).is_err(), "{format:?} cut at {end}");
        }
    }
}

#[test]
fn what_cannot_be_taken_is_named_and_stops_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let write = |name: &str| {
        fs::create_dir_all(root.join(name).parent().unwrap()).unwrap();
        fs::write(root.join(name), "x").unwrap();
    };
    for name in [
        "a.jpg",
        "a.png",
        "b.JFIF",
        "c.tif",
        "d.HEIC",
        "e.heic",
        "f.avif",
        "g.mp4",
        "notes.txt",
        "README",
    ] {
        write(name);
    }
    for name in
        ["._a.jpg", ".DS_Store", "Thumbs.db", "sub/desktop.ini", "__MACOSX/a.jpg", "@eaDir/b.jpg"]
    {
        write(name);
    }
    #[cfg(unix)]
    for name in ["new\nline.png", "sep\u{2028}.png", "\u{feff}bom.png"] {
        write(name);
    }
    let found = media_below(root, &[Modality::Image]).unwrap();
    let ids = |found: &MediaFound| -> Vec<String> {
        found.items.iter().map(|item| item.id.clone()).collect()
    };
    assert_eq!(ids(&found), ["a.jpg", "a.png", "b.JFIF", "c.tif"]);
    let kinds: Vec<(&str, usize)> =
        found.other_kinds.iter().map(|kind| (kind.extension.as_str(), kind.count)).collect();
    assert_eq!(kinds, [("heic", 2), ("", 1), ("avif", 1), ("mp4", 1), ("txt", 1)]);
    let advice = |at: usize| &found.other_kinds[at].advice;
    assert!(advice(0).contains("ImageMagick") && advice(3).contains("modality video"));
    if cfg!(unix) {
        let reasons: Vec<&str> = found.left_out.iter().map(|left| left.reason.as_str()).collect();
        assert_eq!(reasons.len(), 3, "{reasons:?}");
        assert!(reasons[0].contains("U+000A") && reasons[1].contains("U+2028"), "{reasons:?}");
    }
    // Without extensions two files have one id.
    let stems = found.with_stems();
    assert_eq!(ids(&stems), ["a", "b", "c"]);
    let second = stems.left_out.iter().find(|left| left.path == Path::new("a.png")).unwrap();
    assert!(second.reason.contains("a.jpg"), "{}", second.reason);
    // A folder with nothing to read says what it has.
    fs::create_dir(root.join("phone")).unwrap();
    fs::write(root.join("phone/i.heic"), "x").unwrap();
    let error = media_below(root.join("phone"), &[Modality::Image]).unwrap_err().to_string();
    assert!(error.contains("1 files of .heic") && error.contains("convert"), "{error}");
}

/// A WAV file of 16 bits with sizes as given.
fn wav(rate: u32, channels: u16, samples: &[i16], riff: u32, data: u32) -> Vec<u8> {
    let mut bytes = [&b"RIFF"[..], &riff.to_le_bytes(), b"WAVEfmt \x10\0\0\0\x01\0"].concat();
    bytes.extend(channels.to_le_bytes());
    bytes.extend(rate.to_le_bytes());
    bytes.extend((rate * 2 * u32::from(channels)).to_le_bytes());
    bytes.extend((2 * channels).to_le_bytes());
    bytes.extend(16u16.to_le_bytes());
    bytes.extend([&b"data"[..], &data.to_le_bytes()].concat());
    bytes.extend(samples.iter().flat_map(|sample| sample.to_le_bytes()));
    bytes
}

/// A folder, and files that are written into it.
struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    fn sound(&self, bytes: &[u8]) -> Result<Sound> {
        Sound::open(self.write("sound.wav", bytes))
    }

    /// As extractors read it.
    fn extracted(&self, bytes: &[u8]) -> Result<Sound> {
        self.write("sound.wav", bytes);
        let path = PathBuf::from("sound.wav");
        let item = MediaItem { id: "s".into(), path, modality: Modality::Audio, span: None };
        Sound::of_item(self.0.path(), &item, 16_000)
    }
}

fn tone(count: usize) -> Vec<i16> {
    (0..count).map(|at| ((at as f32 * 0.1).sin() * 9000.0) as i16).collect()
}

#[test]
fn a_wav_file_is_read_to_its_end_whatever_its_sizes_say() {
    let (files, samples) = (Files::new(), tone(5000));
    let (data, all) = (10_000, 10_036);
    let expected = files.sound(&wav(16_000, 1, &samples, all, data)).unwrap();
    assert_eq!(expected.samples().len(), 5000);
    // Unknown sizes as programs write them to a pipe, sizes of the RIFF alone that are wrong, and
    // sizes that count too little, too much, or the header too.
    for (riff, size) in [
        (u32::MAX, u32::MAX),
        (0, 0),
        (0x7FFF_FFFF, 0x7FFF_FFFF - 36),
        (0x7FFF_0024, 0x7FFF_0000),
        (all - 8, data),
        (7, data),
        (u32::MAX, data),
        (all, 9000),
        (all, data + 44),
    ] {
        let found = files.sound(&wav(16_000, 1, &samples, riff, size)).unwrap();
        assert_eq!(found, expected, "{riff} {size}");
    }
    // A chunk after the data is no sound, and a file that was cut is none that is whole.
    let whole = wav(16_000, 1, &samples, all + 20, data);
    let chunk = [&whole[..], b"LIST\x0c\0\0\0INFOIART\0\0\0\0"].concat();
    assert_eq!(files.sound(&chunk).unwrap(), expected);
    assert_eq!(files.sound(&[&whole[..], b"TAGtitle", &[0; 120]].concat()).unwrap(), expected);
    for end in [40, 44, 100, 5000, 9900] {
        assert!(files.sound(&whole[..end]).is_err(), "cut at {end}");
    }
    let error = files.sound(&whole[..5044]).unwrap_err().to_string();
    assert!(error.contains("2500 of 5000 samples"), "{error}");
    assert!(files.sound(&wav(16_000, 1, &[], 36, 0)).is_err());

    // Sizes of 64 bits, known and not.
    for size in [10_000u64, 0, u64::MAX] {
        let mut long = b"RF64\xFF\xFF\xFF\xFFWAVEds64\x1c\0\0\0".to_vec();
        long.extend(size.wrapping_add(72).to_le_bytes());
        long.extend(size.to_le_bytes());
        long.extend([0; 12]);
        long.extend(&wav(16_000, 1, &samples, 0, u32::MAX)[12..]);
        assert_eq!(files.sound(&long).unwrap(), expected, "{size}");
    }
}

#[test]
fn rates_and_formats_that_are_none_are_refused() {
    let files = Files::new();
    for rate in [0, 1, 999, 800_000] {
        let error = files.sound(&wav(rate, 1, &tone(99), 234, 198)).unwrap_err().to_string();
        assert!(error.contains(&format!("rate of {rate}")) && !error.contains("inf"), "{error}");
    }
    let mut bytes = wav(16_000, 1, &tone(99), 234, 198);
    bytes[22] = 0;
    assert!(files.sound(&bytes).unwrap_err().to_string().contains("without channels"));
    // More bytes a frame than 16 bits hold.
    bytes[22..24].copy_from_slice(&[0xFF, 0xFF]);
    bytes[34..36].copy_from_slice(&[32, 0]);
    assert!(files.sound(&bytes).is_err());
}

#[test]
fn samples_of_all_widths_are_the_same_sound() {
    let (files, samples) = (Files::new(), tone(600));
    let expected = files.sound(&wav(16_000, 1, &samples, 0, 0)).unwrap();
    let plain = |tag: u16, bits: u16, data: Vec<u8>| {
        let mut bytes = wav(16_000, 1, &[], 0, 0);
        bytes[20..22].copy_from_slice(&tag.to_le_bytes());
        bytes[32..34].copy_from_slice(&(bits.div_ceil(8)).to_le_bytes());
        bytes[34..36].copy_from_slice(&bits.to_le_bytes());
        bytes.extend(data);
        bytes
    };
    let of = |write: &dyn Fn(i16) -> Vec<u8>| -> Vec<u8> {
        samples.iter().flat_map(|&sample| write(sample)).collect()
    };
    let float = |sample: i16| f32::from(sample) / 32_768.0;
    for (bytes, off) in [
        (plain(1, 24, of(&|s| [&[0][..], &s.to_le_bytes()].concat())), 0.0),
        (plain(1, 32, of(&|s| [&[0, 0][..], &s.to_le_bytes()].concat())), 0.0),
        (plain(3, 32, of(&|s| float(s).to_le_bytes().to_vec())), 0.0),
        (plain(3, 64, of(&|s| f64::from(float(s)).to_le_bytes().to_vec())), 0.0),
        (plain(1, 8, of(&|s| vec![((s >> 8) + 128) as u8])), 1.0 / 128.0),
    ] {
        let found = files.sound(&bytes).unwrap();
        assert_eq!(found.samples().len(), 600);
        for (a, b) in found.samples().iter().zip(expected.samples()) {
            assert!((a - b).abs() <= off, "{a} {b}");
        }
    }
}

#[test]
fn silence_is_refused_and_channels_that_cancel_out_are_not_mixed() {
    let files = Files::new();
    for level in [0, 500] {
        let error = files.extracted(&wav(8000, 1, &[level; 8000], 0, 0)).unwrap_err().to_string();
        assert!(error.contains("1.0 seconds of silence"), "{error}");
    }
    // The second channel is the first upside down, and less.
    let mono = tone(8000);
    let stereo = |second: &dyn Fn(i16) -> i16| -> Vec<i16> {
        mono.iter().flat_map(|&sample| [second(sample), sample]).collect()
    };
    let expected = files.sound(&wav(8000, 1, &mono, 0, 0)).unwrap();
    let opposed = files.sound(&wav(8000, 2, &stereo(&|s| -s + s / 200), 0, 0)).unwrap();
    assert_eq!(opposed, expected);
    // Channels that differ otherwise are mixed.
    let mixed = files.sound(&wav(8000, 2, &stereo(&|_| 0), 0, 0)).unwrap();
    let half: Vec<f32> = expected.samples().iter().map(|sample| sample / 2.0).collect();
    assert_eq!(mixed.samples(), half);
}

/// Twin: all at once.
#[test]
fn resampling_in_parts_is_resampling() {
    for (from, to) in [(44_100, 16_000), (8_000, 48_000), (96_000, 16_000), (48_000, 44_101)] {
        let samples: Vec<f32> = (0..3000).map(|at| ((at * 7919) % 1013) as f32 / 1013.0).collect();
        let all = Sound::new(from, samples.clone()).unwrap().resampled(to).unwrap();
        for part in [1, 7, 1000] {
            let (mut resampler, mut found) = (Resampler::new(from, to), Vec::new());
            samples.chunks(part).for_each(|part| resampler.push(part, &mut found));
            resampler.finish(&mut found);
            assert_eq!(found, all.samples(), "{from} to {to} in parts of {part}");
        }
    }
    let files = Files::new();
    let bytes = wav(44_100, 2, &tone(40_000), 0, 0);
    let (whole, streamed) = (files.sound(&bytes).unwrap(), files.extracted(&bytes).unwrap());
    assert_eq!(streamed, whole.resampled(16_000).unwrap());
}

#[test]
fn long_and_narrow_pictures_are_described_or_refused() {
    for (width, height) in [(1, 3000), (3000, 1), (1, 1), (2, 40)] {
        let thin = Picture::new(width, height, vec![90; width * height * 3]).unwrap();
        assert!(picture_features(&thin).iter().all(|value| value.is_finite()));
        assert!(video_features(&[thin.clone(), thin.clone()]).is_ok());
        if width.max(height) < 3000 {
            let small = thin.shorter_side(8, Filter::Bicubic).unwrap();
            assert_eq!(small.width().min(small.height()), 8);
        }
    }
    // A file of a few bytes would take gigabytes when its shorter side grows to that of an encoder.
    let thin = Picture::new(1, 100_000, vec![90; 300_000]).unwrap();
    let error = thin.shorter_side(224, Filter::Bicubic).unwrap_err().to_string();
    assert!(error.contains("1 x 100000") && error.contains("narrow"), "{error}");
    assert!(thin.center_crop(usize::MAX, 3).is_err());
}

/// The rules by which `extract` names items.
#[test]
fn the_ids_of_an_extraction_lead_to_its_files() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("media");
    let write = |name: &str| {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "x").unwrap();
        fs::canonicalize(path).unwrap()
    };
    let coco = write("val2014/COCO_val2014_000000000003.jpg");
    let stem = write("trip/photo.3.jpg");
    let audio = write("aud/Yyoutube-id_03.wav");
    let whole = write("aud/other_id.wav");
    let video = write("videos/all/video7010.mp4");
    let frame = write("clips/clip-1/frame-2.png");
    write("clips/clip-1/frame-10.png");
    // As macOS writes it, with a letter and an accent.
    let accent = write("cafe\u{301}.jpg");
    write("a/same.png");
    write("b/same.jpg");
    let odd = write("odd % & #'?.png");
    write(".DS_Store");
    fs::write(folder.path().join("secret.png"), "x").unwrap();

    let files = MediaFiles::open(&root, &[folder.path()]).unwrap();
    for (id, path) in [
        ("COCO_val2014_000000000003.jpg", &coco),
        ("val2014/COCO_val2014_000000000003.jpg", &coco),
        ("trip/photo.3", &stem),
        ("photo.3", &stem),
        ("youtube-id_03_30", &audio),
        ("youtube-id_03_30.5", &audio),
        ("other_id_0", &whole),
        ("video7010", &video),
        ("clips/clip-1", &frame),
        ("clip-1", &frame),
        ("caf\u{e9}", &accent),
        ("caf\u{e9}.jpg", &accent),
        ("odd % & #'?.png", &odd),
        ("odd % & #'?", &odd),
    ] {
        assert_eq!(files.find(id), MediaFile::Found(path.clone()), "{id}");
    }
    assert!(matches!(files.find("same"), MediaFile::Ambiguous(..)));
    assert!(matches!(files.find("b/same"), MediaFile::Found(_)));
    for id in [
        "../secret.png",
        "../secret",
        "secret",
        "/etc/hostname",
        "",
        ".",
        "..",
        "none",
        "./a/same.png",
    ] {
        assert_eq!(files.find(id), MediaFile::Missing, "{id}");
    }
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(folder.path().join("secret.png"), root.join("link.png"))
            .unwrap();
        let again = files.renewed();
        assert_eq!(again.find("link"), MediaFile::Missing);
        assert_eq!(again.find("link.png"), MediaFile::Missing);
    }
    // A list says what is meant where names do not, and cannot lead out either.
    let list = r#"{"id":"same","path":"b/same.jpg","modality":"image"}

{"id":"out","path":"../secret.png","modality":"image"}
"#;
    fs::write(folder.path().join("media.jsonl"), list).unwrap();
    let files = MediaFiles::open(&root, &[folder.path()]).unwrap();
    assert!(files.find("same").found().unwrap().ends_with("b/same.jpg"));
    assert_eq!(files.find("out"), MediaFile::Missing);
    fs::write(folder.path().join("media.jsonl"), "{}").unwrap();
    assert!(MediaFiles::open(&root, &[folder.path()]).unwrap_err().to_string().contains(":1"));
    assert_eq!(MediaFiles::open(root.join("none"), &[]).unwrap().find("a"), MediaFile::Missing);
}
