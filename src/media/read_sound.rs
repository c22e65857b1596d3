//! Sounds from files: decoding, and mixing to one channel.

use std::{
    fs::File,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use symphonia::core::{
    codecs::audio::AudioDecoderOptions,
    errors::Error as Cause,
    formats::{FormatOptions, TrackType, probe::Hint},
    io::MediaSourceStream,
    meta::MetadataOptions,
};

use super::Sound;
use crate::error::{Error, Result};

impl Sound {
    /// The longest sound that [`Sound::open`] reads, in seconds.
    pub const LONGEST: f64 = 3600.0;

    /// Reads a WAV, FLAC, MP3 or Ogg Vorbis file, told apart by its first bytes, and takes the mean of its
    /// channels.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be read; [`Error::Media`] when it is empty, of another format, broken or
    /// shorter than it says, or longer than [`Sound::LONGEST`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_part(path, 0.0, f64::INFINITY)
    }

    /// The same for the part of a file between two times in seconds; decoding ends there.
    ///
    /// # Errors
    /// As [`Sound::open`]; [`Error::Media`] also when the file ends before the part begins, and for times that are
    /// not in order.
    pub fn open_part(path: impl AsRef<Path>, from: f64, to: f64) -> Result<Self> {
        let path = path.as_ref();
        let name = path.display().to_string();
        if !(from >= 0.0 && from < to) {
            return Err(Error::media(
                name,
                "a part between two times in seconds",
                format!("{from} to {to}"),
                "give a start of at least 0 and a later end",
            ));
        }
        let file = File::open(path).map_err(|e| Error::io("read", path, e))?;
        if file.metadata().map_err(|e| Error::io("read", path, e))?.len() == 0 {
            return Err(broken(&name, "an empty file".into()));
        }
        let stream = MediaSourceStream::new(Box::new(file), Default::default());
        // The library panics at some damaged files, where it is built with checks of overflow.
        let sound = AssertUnwindSafe(|| decode(&name, stream, &hint(path), from, to));
        catch_unwind(sound).unwrap_or_else(|_| Err(broken(&name, "a damaged header".into())))
    }
}

fn hint(path: &Path) -> Hint {
    let mut hint = Hint::new();
    if let Some(extension) = path.extension().and_then(|extension| extension.to_str()) {
        hint.with_extension(extension);
    }
    hint
}

fn decode(name: &str, stream: MediaSourceStream, hint: &Hint, from: f64, to: f64) -> Result<Sound> {
    let failed = |e: Cause| match e {
        Cause::IoError(e) if e.kind() != std::io::ErrorKind::UnexpectedEof => {
            Error::io("read", name, e)
        }
        Cause::Unsupported(what) => broken(name, format!("something else ({what})")),
        other => broken(name, other.to_string()),
    };
    let (format, metadata) = (FormatOptions::default(), MetadataOptions::default());
    let mut format =
        symphonia::default::get_probe().probe(hint, stream, format, metadata).map_err(failed)?;
    let track = format.default_track(TrackType::Audio);
    let track = track.ok_or_else(|| broken(name, "no sound in it".into()))?;
    let (id, declared) = (track.id, track.num_frames);
    let parameters = track.codec_params.as_ref().and_then(|params| params.audio());
    let parameters = parameters.ok_or_else(|| broken(name, "no sound in it".into()))?;
    let mut decoder = symphonia::default::get_codecs()
        .make_audio_decoder(parameters, &AudioDecoderOptions::default())
        .map_err(failed)?;
    let mut samples: Vec<f32> = Vec::new();
    let mut interleaved: Vec<f32> = Vec::new();
    // Of the file: its rate, frames so far, packets that were decoded, and that could not be.
    let (mut rate, mut frames, mut good, mut bad) = (0, 0u64, 0usize, 0usize);
    let mut ended = false;
    loop {
        let packet = match format.next_packet() {
            Ok(Some(packet)) => packet,
            Ok(None) => {
                ended = true;
                break;
            }
            Err(Cause::IoError(e)) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
                return Err(truncated(name, frames, declared));
            }
            Err(e) => return Err(failed(e)),
        };
        if packet.track_id != id {
            continue;
        }
        let buffer = match decoder.decode(&packet) {
            Ok(buffer) => buffer,
            // Streams that were cut out of longer ones begin with packets that cannot be decoded.
            Err(Cause::DecodeError(_)) => {
                bad += 1;
                continue;
            }
            Err(e) => return Err(failed(e)),
        };
        good += 1;
        let (channels, found) = (buffer.num_planes(), buffer.spec().rate());
        if rate != 0 && found != rate {
            return Err(broken(name, format!("{found} samples a second after {rate}")));
        }
        rate = found;
        interleaved.resize(buffer.samples_interleaved(), 0.0);
        buffer.copy_to_slice_interleaved(&mut interleaved);
        let begin = (from * f64::from(rate)).round() as u64;
        let end = (to * f64::from(rate)).round() as u64;
        for frame in interleaved.chunks_exact(channels.max(1)) {
            if (begin..end).contains(&frames) {
                samples.push(frame.iter().sum::<f32>() / channels as f32);
            }
            frames += 1;
        }
        if samples.len() as f64 > Sound::LONGEST * f64::from(rate) {
            return Err(Error::media(
                name,
                format!("at most {} seconds", Sound::LONGEST),
                "a longer sound",
                "cut it, or read a part of it",
            ));
        }
        if frames >= end {
            break;
        }
    }
    if bad > good {
        return Err(broken(name, format!("{bad} of {} packets that are broken", bad + good)));
    }
    // A frame or two may be missing for delay and padding of the coder.
    if ended && declared.is_some_and(|declared| frames + 4096 < declared) {
        return Err(truncated(name, frames, declared));
    }
    if samples.is_empty() && frames > 0 {
        return Err(Error::media(
            name,
            format!("a sound of more than {from} seconds"),
            format!("{:.3} seconds", frames as f64 / f64::from(rate)),
            "choose another part",
        ));
    }
    if samples.is_empty() {
        return Err(broken(name, "no samples".into()));
    }
    Sound::new(rate, samples).map_err(|e| match e {
        Error::Media(problem) => {
            Error::media(name, problem.expected, problem.found, problem.remedy)
        }
        other => other,
    })
}

fn broken(name: &str, found: String) -> Error {
    Error::media(
        name,
        "a WAV, FLAC, MP3 or Ogg Vorbis file that is whole",
        found,
        "fetch it again, convert it, or leave it out",
    )
}

fn truncated(name: &str, frames: u64, declared: Option<u64>) -> Error {
    let declared = declared.map_or("more".into(), |declared| declared.to_string());
    broken(name, format!("{frames} samples where {declared} are announced (a truncated file)"))
}
