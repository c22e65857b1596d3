use std::{fs, path::PathBuf};

use cart_retrieval::Error;

use super::{container::frames_by, *};

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/media").join(name)
}

/// The sound of `make_media.py`.
fn sound(rate: u32, seconds: f64) -> Sound {
    let tau = std::f64::consts::TAU;
    let sample = |at: usize| {
        let time = at as f64 / f64::from(rate);
        let tones =
            0.4 * (tau * 440.0 * time).sin() + 0.2 * (tau * (900.0 + 2000.0 * time) * time).sin();
        let crackle = ((at * 7919) % 1013) as f64 / 1013.0 - 0.5;
        (tones + 0.1 * crackle + 0.05) as f32
    };
    Sound::new(rate, (0..(f64::from(rate) * seconds) as usize).map(sample).collect()).unwrap()
}

/// The picture of `make_media.py`.
fn picture(width: usize, height: usize) -> Picture {
    let mut rgb = Vec::new();
    for at in 0..width * height * 3 {
        let (x, y, c) = (at / 3 % width, at / 3 / width, at % 3);
        let (wide, high) = (0.21 * x as f64 + 0.5 * c as f64, 0.17 * y as f64 - 0.3 * c as f64);
        let noise = (x * 131 + y * 57 + c * 29) % 61;
        let value = 127.0 + 100.0 * wide.sin() * high.cos() + noise as f64 - 30.0;
        rgb.push(value.round_ties_even().clamp(0.0, 255.0) as u8);
    }
    Picture::new(width, height, rgb).unwrap()
}

/// Numbers of a `.npy` fixture.
fn numbers(name: &str) -> Vec<f32> {
    let bytes = fs::read(fixture(name)).unwrap();
    let head = 10 + u16::from_le_bytes([bytes[8], bytes[9]]) as usize;
    bytes[head..].chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

fn message<T: std::fmt::Debug>(result: cart_retrieval::Result<T>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn a_file_gives_the_pixels_that_it_was_made_of() {
    assert_eq!(Picture::open(fixture("picture.png")).unwrap(), picture(61, 47));
    let (limits, png) = (PictureLimits::default(), picture(61, 47).to_png().unwrap());
    let again = Picture::from_bytes("png", &png, Transparency::Ignored, limits).unwrap();
    assert_eq!(again, picture(61, 47));
    let webp = Picture::open(fixture("picture.webp")).unwrap();
    let jpeg = Picture::open(fixture("picture.jpg")).unwrap();
    assert_eq!((jpeg.width(), jpeg.height()), (24, 16));
    assert_eq!((webp.width(), webp.height()), (24, 16));
    // Decoders of JPEG differ by the rounding of their transforms.
    let same = Picture::open(fixture("picture_jpg.png")).unwrap();
    let off = |(&a, &b): (&u8, &u8)| a.abs_diff(b);
    let off: Vec<u8> = jpeg.rgb().iter().zip(same.rgb()).map(off).collect();
    let mean = off.iter().map(|&off| f64::from(off)).sum::<f64>() / off.len() as f64;
    assert!(mean < 1.0 && off.iter().all(|&off| off < 8), "{mean}");
    // Turned a quarter to the right, as its EXIF says.
    let turned = Picture::open(fixture("turned.jpg")).unwrap();
    assert_eq!((turned.width(), turned.height()), (16, 24));
    for (x, y) in [(0, 0), (15, 3), (7, 23)] {
        assert_eq!(turned.pixel(x, y), jpeg.pixel(y, 15 - x));
    }
    let gif = Picture::open(fixture("frames.gif")).unwrap();
    assert_eq!(gif.pixel(5, 3), [255, 0, 0]);
}

#[test]
fn transparency_is_dropped_or_laid_over_a_colour() {
    let limits = PictureLimits::default();
    let plain = Picture::open(fixture("clear.png")).unwrap();
    assert_eq!(plain.pixel(0, 1), [200, 100, 0]);
    let white = Transparency::Over([255, 255, 255]);
    let over = Picture::open_with(fixture("clear.png"), white, limits).unwrap();
    assert_eq!(over.pixel(0, 0), [200, 100, 0]);
    assert_eq!(over.pixel(1, 0), [227, 177, 127]);
    assert_eq!(over.pixel(0, 1), [255, 255, 255]);
}

/// Twin: Pillow, which rounds between its two passes as well.
#[test]
fn resizing_is_that_of_pillow() {
    let from = picture(61, 47);
    for (name, filter) in
        [("bilinear", Filter::Bilinear), ("bicubic", Filter::Bicubic), ("lanczos", Filter::Lanczos)]
    {
        for (width, height) in [(20, 13), (90, 70)] {
            let expected = Picture::open(fixture(&format!("{name}_{width}x{height}.png"))).unwrap();
            let found = from.resized(width, height, filter).unwrap();
            // Each of two passes rounds, with weights of 16 bits here and of 22 there.
            let off: Vec<u8> =
                found.rgb().iter().zip(expected.rgb()).map(|(a, &b)| a.abs_diff(b)).collect();
            let mean = off.iter().map(|&off| f64::from(off)).sum::<f64>() / off.len() as f64;
            let worst = *off.iter().max().unwrap();
            assert!(worst <= 2 && mean < 0.3, "{name} {width}x{height}: {worst}, mean {mean}");
        }
    }
}

/// Twin: `CLIPImageProcessor` of transformers.
#[test]
fn a_picture_is_prepared_as_for_clip() {
    let (mean, deviation) =
        ([0.48145466, 0.4578275, 0.40821073], [0.268_629_55, 0.261_302_6, 0.275_777_1]);
    let small = picture(61, 47).shorter_side(24, Filter::Bicubic).unwrap();
    assert_eq!((small.width(), small.height()), (31, 24));
    let found = small.center_crop(24, 24).unwrap().normalised(mean, deviation);
    let expected = numbers("clip.npy");
    assert_eq!(found.len(), expected.len());
    // A step of eight bits is 1 / 255 / 0.26.
    let worst = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst < 1.01 / 255.0 / 0.26, "{worst}");
    let equal = found.iter().zip(&expected).filter(|(a, b)| (*a - *b).abs() < 1e-5).count();
    assert!(equal * 4 > found.len() * 3, "{equal} of {}", found.len());
}

#[test]
fn a_crop_larger_than_the_picture_is_black_around_it() {
    let crop = picture(3, 2).center_crop(5, 1).unwrap();
    assert_eq!(crop.pixel(0, 0), [0; 3]);
    assert_eq!(crop.pixel(1, 0), picture(3, 2).pixel(0, 0));
    assert!(picture(3, 2).center_crop(0, 4).is_err());
    assert!(picture(3, 2).resized(0, 4, Filter::Bilinear).is_err());
    assert!(picture(3, 2).resized(1 << 40, 1 << 40, Filter::Bilinear).is_err());
    assert!(Picture::new(2, 2, vec![0; 11]).is_err() && Picture::new(0, 0, vec![]).is_err());
}

#[test]
fn broken_pictures_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let read = |name: &str, bytes: &[u8]| message(Picture::open(write(name, bytes)));
    let png = fs::read(fixture("picture.png")).unwrap();
    assert!(read("empty.png", b"").contains("empty.png"));
    assert!(read("text.jpg", b"not a picture at all").contains("another format"));
    for name in ["picture.png", "picture.jpg", "picture.webp"] {
        let bytes = fs::read(fixture(name)).unwrap();
        let error = read(name, &bytes[..bytes.len() / 2]);
        assert!(error.contains(name) && error.contains("complete"), "{error}");
    }
    assert!(matches!(Picture::open(folder.path().join("none.png")), Err(Error::Io { .. })));
    assert!(matches!(Picture::open(folder.path()), Err(Error::Io { .. })));
    // 100,000 x 100,000 pixels in a file of a few bytes.
    let mut bomb = png.clone();
    bomb[16..20].copy_from_slice(&100_000u32.to_be_bytes());
    bomb[20..24].copy_from_slice(&100_000u32.to_be_bytes());
    let crc = crc32(&bomb[12..29]);
    bomb[29..33].copy_from_slice(&crc.to_be_bytes());
    let error = read("bomb.png", &bomb);
    assert!(error.contains("100000 x 100000") && error.contains("200000000"), "{error}");
    let few = PictureLimits { pixels: 100, ..PictureLimits::default() };
    let path = fixture("picture.png");
    assert!(Picture::open_with(path, Transparency::default(), few).is_err());
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg())
        })
    })
}

fn close(found: &[f32], expected: &[f32], within: f32) {
    assert_eq!(found.len(), expected.len());
    for (at, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!((a - b).abs() < within * (1.0 + b.abs()), "{at}: {a} where {b} is expected");
    }
}

/// Twin: `audio_utils.spectrogram` of transformers in double precision.
#[test]
fn spectrograms_are_those_of_transformers() {
    let kaldi = MelBank::new(MelConfig::kaldi(128)).unwrap();
    let found = kaldi.spectrogram(&sound(16_000, 0.25)).unwrap();
    assert_eq!((found.frames(), found.mels()), (23, 128));
    close(found.values(), &numbers("kaldi.npy"), 1e-3);
    let clap = MelBank::new(MelConfig::clap()).unwrap();
    let found = clap.spectrogram(&sound(48_000, 0.1)).unwrap();
    assert_eq!((found.frames(), found.mels()), (11, 64));
    close(found.values(), &numbers("clap.npy"), 1e-3);
}

#[test]
fn short_sounds_are_mirrored_or_refused() {
    let clap = MelBank::new(MelConfig::clap()).unwrap();
    let short = Sound::new(48_000, vec![0.5; 3]).unwrap();
    assert_eq!(clap.spectrogram(&short).unwrap().frames(), 1);
    let one = Sound::new(48_000, vec![0.5]).unwrap();
    assert!(clap.spectrogram(&one).unwrap().values().iter().all(|value| value.is_finite()));
    let kaldi = MelBank::new(MelConfig::kaldi(40)).unwrap();
    assert!(message(kaldi.spectrogram(&short)).contains("400 samples"));
    // Silence is at the floor.
    let silence = Sound::new(16_000, vec![0.0; 400]).unwrap();
    let floor = f32::EPSILON.ln();
    assert!(kaldi.spectrogram(&silence).unwrap().values().iter().all(|&value| value == floor));
    for wrong in [
        MelConfig { fft: 256, ..MelConfig::kaldi(40) },
        MelConfig { high: 9_000.0, ..MelConfig::kaldi(40) },
        MelConfig { low: f64::NAN, ..MelConfig::kaldi(40) },
        MelConfig::kaldi(0),
    ] {
        assert!(matches!(MelBank::new(wrong), Err(Error::Config(_))));
    }
}

/// The cosine between two sounds.
fn likeness(a: &[f32], b: &[f32]) -> f32 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

#[test]
fn files_give_the_sound_that_they_were_made_of() {
    let stereo = Sound::open(fixture("stereo.wav")).unwrap();
    // The mean of a channel and of minus its half.
    let expected: Vec<f32> = sound(8000, 0.2).samples().iter().map(|s| s * 0.25).collect();
    close(stereo.samples(), &expected, 1e-4);
    assert_eq!((stereo.rate(), stereo.seconds()), (8000, 0.2));
    close(Sound::open(fixture("mono.flac")).unwrap().samples(), sound(44_100, 0.1).samples(), 1e-4);
    let ogg = Sound::open(fixture("mono.ogg")).unwrap();
    let original = sound(16_000, 0.3);
    assert_eq!(ogg.samples().len(), original.samples().len());
    assert!(likeness(ogg.samples(), original.samples()) > 0.99);
    // MP3 begins with the coder's delay, which the file says how long it is.
    let mp3 = Sound::open(fixture("mono.mp3")).unwrap();
    let best = (0..2000.min(mp3.samples().len() - 4000))
        .map(|shift| likeness(&mp3.samples()[shift..shift + 4000], &original.samples()[..4000]))
        .fold(0.0, f32::max);
    assert!(best > 0.98, "{best}");
}

#[test]
fn a_part_of_a_sound_is_what_lies_between_two_times() {
    let whole = Sound::open(fixture("mono.flac")).unwrap();
    let part = Sound::open_part(fixture("mono.flac"), 0.02, 0.05).unwrap();
    assert_eq!(part.samples(), &whole.samples()[882..2205]);
    let rest = Sound::open_part(fixture("mono.flac"), 0.09, 5.0).unwrap();
    assert_eq!(rest.samples(), &whole.samples()[3969..]);
    assert!(message(Sound::open_part(fixture("mono.flac"), 1.0, 2.0)).contains("0.100 seconds"));
    for (from, to) in [(-1.0, 1.0), (1.0, 1.0), (f64::NAN, 1.0)] {
        assert!(Sound::open_part(fixture("mono.flac"), from, to).is_err());
    }
}

#[test]
fn resampling_keeps_what_both_rates_can_hold() {
    let tone = |rate: u32, hertz: f64| {
        let sample =
            |at| (std::f64::consts::TAU * hertz * f64::from(at) / f64::from(rate)).sin() as f32;
        Sound::new(rate, (0..rate).map(sample).collect()).unwrap()
    };
    for (from, to) in [(44_100, 16_000), (8_000, 48_000), (96_000, 16_000), (11_025, 16_000)] {
        let found = tone(from, 440.0).resampled(to).unwrap();
        assert_eq!(found.samples().len(), to as usize);
        let inner = 2000..to as usize - 2000;
        let alike = likeness(&found.samples()[inner.clone()], &tone(to, 440.0).samples()[inner]);
        assert!(alike > 0.9999, "{from} to {to}: {alike}");
    }
    // Twin: the formula, output by output, in double precision.
    for (from, to) in [(44_100, 16_000), (8_000, 48_000), (11_025, 16_000)] {
        let found = sound(from, 0.05).resampled(to).unwrap();
        close(found.samples(), &numbers(&format!("resampled_{from}_{to}.npy")), 1e-5);
    }
    // Rates without a common divisor take more weights than are kept.
    let odd = sound(767_999, 0.1).resampled(16_001).unwrap();
    let near = sound(768_000, 0.1).resampled(16_000).unwrap();
    assert!(likeness(&odd.samples()[..1600], &near.samples()[..1600]) > 0.999);
    // What only the higher rate can hold is gone, not folded.
    let high = tone(48_000, 12_000.0).resampled(16_000).unwrap();
    assert!(high.samples()[1000..15_000].iter().all(|sample| sample.abs() < 1e-2));
    assert!(tone(8000, 100.0).resampled(0).is_err());
    assert!(Sound::new(8000, vec![]).is_err() && Sound::new(8000, vec![f32::NAN]).is_err());
}

#[test]
fn broken_sounds_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let read = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        message(Sound::open(path))
    };
    assert!(read("empty.wav", b"").contains("an empty file"));
    assert!(read("text.mp3", b"not a sound at all, whatever it is called").contains("text.mp3"));
    for name in ["stereo.wav", "mono.flac"] {
        let bytes = fs::read(fixture(name)).unwrap();
        let error = read(name, &bytes[..bytes.len() / 3]);
        assert!(error.contains(name), "{error}");
    }
    // A header that announces no samples.
    let wav = fs::read(fixture("stereo.wav")).unwrap();
    assert!(read("none.wav", &wav[..44]).contains("none.wav"));
    assert!(matches!(Sound::open(folder.path().join("gone.wav")), Err(Error::Io { .. })));
    assert!(Sound::open(folder.path()).is_err());
}

fn colours(frames: &[Picture]) -> Vec<[u8; 3]> {
    // WebP's greens and blues are off by one.
    let full = |value: u8| if value > 250 { 255 } else { value };
    frames.iter().map(|frame| frame.pixel(1, 1).map(full)).collect()
}

const RED_GREEN_BLUE: [[u8; 3]; 3] = [[255, 0, 0], [0, 255, 0], [0, 0, 255]];

#[test]
fn animations_and_folders_are_videos() {
    for name in ["frames.gif", "frames.webp", "frames.png"] {
        let all = open_frames(fixture(name), 3).unwrap();
        assert_eq!(colours(&all), RED_GREEN_BLUE, "{name}");
        // The middle one; and some twice where there are fewer than are asked for.
        assert_eq!(colours(&open_frames(fixture(name), 1).unwrap()), RED_GREEN_BLUE[1..2]);
        let six = colours(&open_frames(fixture(name), 6).unwrap());
        assert_eq!(six, [0, 0, 1, 1, 2, 2].map(|at| RED_GREEN_BLUE[at]));
    }
    // A picture is a video of one frame.
    assert_eq!(open_frames(fixture("picture.png"), 2).unwrap(), [picture(61, 47), picture(61, 47)]);
    let folder = tempfile::tempdir().unwrap();
    let error = message(open_frames(folder.path(), 2));
    assert!(error.contains("no picture"), "{error}");
    fs::write(folder.path().join("notes.txt"), "not a frame").unwrap();
    for (name, file) in [("frame2.png", "picture.png"), ("frame10.jpg", "picture.jpg")] {
        fs::copy(fixture(file), folder.path().join(name)).unwrap();
    }
    // By their numbers: 2 before 10.
    let frames = open_frames(folder.path(), 2).unwrap();
    assert_eq!((frames[0].width(), frames[1].width()), (61, 24));
    fs::write(folder.path().join("frame3.png"), "broken").unwrap();
    assert!(message(open_frames(folder.path(), 3)).contains("frame3.png"));
    assert!(open_frames(fixture("frames.gif"), 0).is_err());
    // Some bytes that ask for a canvas of a gigabyte.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vast.gif");
    let vast = |canvas: u8, frame: u8| {
        let canvas = [b"GIF89a\x00", &[canvas][..], b"\x00", &[canvas], b"\x80\x00\x00"].concat();
        let frame =
            [b",\x00\x00\x00\x00\x00", &[frame][..], b"\x00", &[frame], b"\x00\x02\x01\x2c\x00;"]
                .concat();
        std::fs::write(&path, [&canvas[..], &[0; 6], &frame].concat()).unwrap();
        open_frames(&path, 1).unwrap_err().to_string()
    };
    let error = vast(0x40, 0x01);
    assert!(error.contains("67108864 pixels") && error.contains("16384"), "{error}");
    // A small one with a frame of that size.
    let error = vast(0x01, 0x40);
    assert!(error.to_lowercase().contains("memory"), "{error}");
    assert!(matches!(open_frames(folder.path().join("none"), 1), Err(Error::Io { .. })));
}

#[test]
fn containers_need_ffmpeg_and_say_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("clip.mp4");
    fs::write(&path, b"\0\0\0\x18ftypmp42 and nothing more").unwrap();
    let error = message(frames_by(&path, 2, "no-such-program"));
    assert!(error.contains("no-such-program") && error.contains("install"), "{error}");
    // Where it is installed, it refuses this file.
    assert!(message(open_frames(&path, 2)).contains("ffmpeg"));
    // A program in its place that writes two pictures, one of them commented.
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let program = folder.path().join("ffmpeg");
        // It is asked for a list of the frames first, without times here, and then for these
        // frames.
        let script = |pictures: &str| {
            let list = "#tb 0: 1/25\n0, 0, -9223372036854775808, 1, 9, 0x1\n0, 1, 1, 1, 9, 0x1\n";
            format!(
                "#!/bin/sh\ncase \"$*\" in *framecrc*) printf '{list}';; *) {pictures};; esac\n"
            )
        };
        let two = r"printf 'P6\n# made\n2 1\n255\n\001\002\003\004\005\006P6 2 1 255 abcdef'";
        fs::write(&program, script(two)).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let frames = frames_by(&path, 2, program.to_str().unwrap()).unwrap();
        assert_eq!((frames[0].pixel(1, 0), frames[1].pixel(0, 0)), ([4, 5, 6], *b"abc"));
        fs::write(&program, script("printf 'P6 2 1 255 abc'")).unwrap();
        assert!(message(frames_by(&path, 2, program.to_str().unwrap())).contains("clip.mp4"));
        fs::write(&program, "#!/bin/sh\necho broken stream >&2\nexit 1\n").unwrap();
        let error = message(frames_by(&path, 2, program.to_str().unwrap()));
        assert!(error.contains("broken stream"), "{error}");
    }
}

#[test]
fn descriptors_have_their_widths_and_tell_apart() {
    let distance = |a: &[f32], b: &[f32]| -> f32 {
        a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum::<f32>().sqrt()
    };
    let tone = |hertz: f64, rate: u32| {
        let sample =
            |at| (std::f64::consts::TAU * hertz * f64::from(at) / f64::from(rate)).sin() as f32;
        sound_features(&Sound::new(rate, (0..rate / 2).map(sample).collect()).unwrap()).unwrap()
    };
    let (low, same, high) = (tone(300.0, 16_000), tone(300.0, 44_100), tone(3000.0, 16_000));
    assert_eq!(low.len(), SOUND_FEATURES);
    assert!(low.iter().chain(&high).all(|value| value.is_finite()));
    assert!(distance(&low, &same) < 0.3 * distance(&low, &high));
    // Rising and falling pitch differ in time alone.
    let rising = sound(16_000, 1.0);
    let falling = Sound::new(16_000, rising.samples().iter().rev().copied().collect()).unwrap();
    let (up, down) = (sound_features(&rising).unwrap(), sound_features(&falling).unwrap());
    assert!(distance(&up, &down) > 0.1);
    // Short ones too.
    assert!(sound_features(&Sound::new(16_000, vec![0.1; 5]).unwrap()).is_ok());

    let frame = |at: usize| {
        let mut rgb = vec![255; 32 * 32 * 3];
        for y in 10..16 {
            rgb[(y * 32 + at) * 3..(y * 32 + at + 6) * 3].fill(40);
        }
        Picture::new(32, 32, rgb).unwrap()
    };
    let right: Vec<Picture> = (0..8).map(|at| frame(3 * at)).collect();
    let left: Vec<Picture> = right.iter().rev().cloned().collect();
    let still = vec![frame(12); 8];
    let [right, left, still] = [right, left, still].map(|frames| video_features(&frames).unwrap());
    assert_eq!(right.len(), VIDEO_FEATURES);
    assert!(distance(&right, &left) > 0.1 && distance(&right, &still) > 0.1);
    assert!(video_features(&[]).is_err());
    assert_eq!(video_features(&[frame(3), picture(61, 47)]).unwrap().len(), VIDEO_FEATURES);
}
