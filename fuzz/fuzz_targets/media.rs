//! Pictures, sounds and animations, by the first byte.
#![no_main]

mod scratch;

use cart_media::{MediaItem, Modality, Picture, PictureLimits, Sound, Transparency, open_frames};
use libfuzzer_sys::fuzz_target;

/// Whether an AIFF file says more bytes a frame than 16 bits hold: `symphonia` panics at that where
/// it is built with checks of overflow, as here. `Sound` catches it, but libFuzzer stops at every
/// panic.
fn overflows(bytes: &[u8]) -> bool {
    let word = |at: usize| Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?));
    let at = |start: usize| word(start + 8)?.checked_mul(word(start + 14)?.div_ceil(8));
    bytes.windows(4).enumerate().any(|(start, name)| name == b"COMM" && at(start).is_none())
}

/// Keeps `Sound` from starting ffmpeg for what it does not know.
fn without_programs() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    // SAFETY: libFuzzer calls the target from one thread.
    ONCE.call_once(|| unsafe { std::env::set_var("PATH", "/none") });
}

fuzz_target!(|bytes: &[u8]| {
    without_programs();
    let Some((&kind, bytes)) = bytes.split_first() else { return };
    match kind % 3 {
        0 => {
            let limits = PictureLimits { pixels: 1 << 16, memory: 1 << 22 };
            if let Ok(picture) = Picture::from_bytes("p", bytes, Transparency::Ignored, limits) {
                assert!(picture.width() * picture.height() <= 1 << 16);
                assert_eq!(picture.rgb().len(), picture.width() * picture.height() * 3);
            }
        }
        1 if !overflows(bytes) => {
            // The format is told by the first bytes, whatever the file is called.
            let path = scratch::file("sound", bytes);
            if let Ok(sound) = Sound::open(&path) {
                assert!(!sound.samples().is_empty() && sound.rate() > 0);
                // Decoded and resampled packet by packet it is as long.
                let item = MediaItem {
                    id: "sound".into(),
                    path: path.file_name().unwrap().into(),
                    modality: Modality::Audio,
                    span: None,
                };
                if let Ok(streamed) = Sound::of_item(path.parent().unwrap(), &item, 16_000) {
                    let expected = sound.seconds() * 16_000.0;
                    assert!((streamed.samples().len() as f64 - expected).abs() <= 1.0);
                }
            }
        }
        // Anything else would start ffmpeg.
        _ if [&b"GIF8"[..], b"RIFF", b"\x89PNG"].iter().any(|magic| bytes.starts_with(magic)) => {
            let name = ["a.gif", "a.webp", "a.apng"][usize::from(kind / 3) % 3];
            if let Ok(frames) = open_frames(scratch::file(name, bytes), 3) {
                assert_eq!(frames.len(), 3);
            }
        }
        _ => {}
    }
});
