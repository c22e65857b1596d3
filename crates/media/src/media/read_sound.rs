//! Sounds from files: decoding, mixing to one channel and resampling, packet by packet.

use std::{
    fs::File,
    io::{BufReader, Read},
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    process::ChildStdout,
};

use cart_retrieval::{Error, Result};
use symphonia::core::{
    codecs::audio::{AudioCodecParameters, AudioDecoder, AudioDecoderOptions},
    errors::Error as Cause,
    formats::{FormatOptions, FormatReader, TrackType, probe::Hint},
    io::MediaSourceStream,
    meta::MetadataOptions,
    packet::Packet,
};

use super::{
    MediaItem, Sound,
    ffmpeg::Ffmpeg,
    mix::{Mix, Part, broken},
    sound::check_rate,
    wav::{Fault, Wav, is_wav},
};

/// Samples that may be missing at the end of a file for delay and padding of the coder.
const PADDING: u64 = 4096;

impl Sound {
    /// The longest sound that [`Sound::open`] reads, in seconds.
    pub const LONGEST: f64 = 3600.0;

    /// Reads a WAV, FLAC, MP3, Ogg Vorbis, M4A (AAC or ALAC), AIFF or CAF file, told apart by its
    /// first bytes, or any other sound through the program `ffmpeg`, where that is installed; and
    /// takes the mean of its channels.
    ///
    /// Where the channels cancel each other out, so that their mean has less than a ten-thousandth
    /// of their energy, the channel with the most energy is taken instead.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be read; [`Error::Media`] when it is empty, of another
    /// format, broken or shorter than it says, or longer than [`Sound::LONGEST`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_part(path, 0.0, f64::INFINITY)
    }

    /// The same for the part of a file between two times in seconds; decoding ends there.
    ///
    /// # Errors
    /// As [`Sound::open`]; [`Error::Media`] also when the file ends before the part begins, and for
    /// times that are not in order.
    pub fn open_part(path: impl AsRef<Path>, from: f64, to: f64) -> Result<Self> {
        read(path.as_ref(), Part { from, to, rate: None, audible: false })
    }

    /// The sound of an item whose file lies below `root`, at a rate in samples a second. It is
    /// resampled while it is decoded, so that an hour at 16 kHz takes 230 MB whatever the file's
    /// rate and channels.
    ///
    /// # Errors
    /// As [`Sound::open_part`]; [`Error::Media`] also for silence, when all samples lie within one
    /// step of 16 bits.
    pub fn of_item(root: impl AsRef<Path>, item: &MediaItem, rate: u32) -> Result<Self> {
        check_rate("rate to read a sound at", rate)?;
        let (from, to) = item.span.unwrap_or((0.0, f64::INFINITY));
        let path = root.as_ref().join(&item.path);
        read(&path, Part { from, to, rate: Some(rate), audible: true })
    }
}

/// Why a decoder gave no sound.
enum Failure {
    /// Another program may read it.
    Unsupported(String),
    Refused(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

type Decoded<T> = std::result::Result<T, Failure>;

fn read(path: &Path, part: Part) -> Result<Sound> {
    let name = path.display().to_string();
    if !(part.from >= 0.0 && part.from < part.to) {
        return Err(Error::media(name)
            .expected("a part between two times in seconds")
            .found(format!("{} to {}", part.from, part.to))
            .fix("give a start of at least 0 and a later end"));
    }
    let mut first = Vec::new();
    let file = File::open(path).map_err(|e| Error::io("read", path, e))?;
    file.take(12).read_to_end(&mut first).map_err(|e| Error::io("read", path, e))?;
    if first.is_empty() {
        return Err(broken(&name, "an empty file"));
    }
    let open = || -> Decoded<Packets> {
        let file = File::open(path).map_err(|e| Error::io("read", path, e))?;
        if is_wav(&first) {
            return Wav::open(file).map(Packets::Wav).map_err(|fault| of_wav(&name, fault));
        }
        Packets::probe(&name, file, &hint(path))
    };
    // The library panics at some damaged files, where it is built with checks of overflow.
    let sound = AssertUnwindSafe(|| decode_twice(&name, part, open));
    let damaged = |_| Err(broken(&name, "a damaged header").into());
    match catch_unwind(sound).unwrap_or_else(damaged) {
        Ok(sound) => Ok(sound),
        Err(Failure::Refused(e)) => Err(e),
        Err(Failure::Unsupported(found)) => by_program(path, part, &found),
    }
}

/// Decodes once, and again with another channel where the channels cancel each other out.
fn decode_twice<'a>(
    name: &str,
    part: Part,
    mut open: impl FnMut() -> Decoded<Packets<'a>>,
) -> Decoded<Sound> {
    let mut mix = Mix::new(name, part, None);
    decode(name, open()?, &mut mix)?;
    if let Some(channel) = mix.loudest_if_cancelled() {
        mix = Mix::new(name, part, Some(channel));
        decode(name, open()?, &mut mix)?;
    }
    Ok(mix.finish()?)
}

/// A sound of a format that is not decoded here. ffmpeg writes it as a WAV file.
fn by_program(path: &Path, part: Part, found: &str) -> Result<Sound> {
    let ffmpeg = Ffmpeg { path, program: "ffmpeg" };
    let mut mix = Mix::new(&ffmpeg.name(), part, None);
    stream(&ffmpeg, part, &mut mix).map_err(|e| with_cause(e, found))?;
    if let Some(channel) = mix.loudest_if_cancelled() {
        mix = Mix::new(&ffmpeg.name(), part, Some(channel));
        stream(&ffmpeg, part, &mut mix)?;
    }
    mix.finish()
}

fn stream(ffmpeg: &Ffmpeg, part: Part, mix: &mut Mix) -> Result<()> {
    // One second more, as a packet may not end where the part does.
    let seconds = part.to.min(Sound::LONGEST + part.from) + 1.0;
    let before = ["-t".to_string(), format!("{seconds:.3}")];
    let after = ["-map", "0:a:0", "-c:a", "pcm_f32le", "-f", "wav"];
    let read = |output: &mut BufReader<ChildStdout>| {
        let name = ffmpeg.name();
        let wav = Wav::stream(output.by_ref()).map_err(|fault| of_wav(&name, fault));
        let done = wav.and_then(|wav| decode(&name, Packets::Wav(wav), mix));
        // What is left is not needed, but the program fails where nothing reads it.
        let _ = std::io::copy(output, &mut std::io::sink());
        done.map_err(|failure| match failure {
            Failure::Unsupported(found) => found,
            Failure::Refused(Error::Media(problem)) => problem.found,
            Failure::Refused(other) => other.to_string(),
        })
    };
    ffmpeg.read(&before, &after, read).map(|_| ())
}

/// An error of ffmpeg with what was found before it was asked.
fn with_cause(error: Error, cause: &str) -> Error {
    match error {
        Error::Media(problem) => Error::media(problem.subject)
            .expected(format!(
                "a WAV, FLAC, MP3, Ogg Vorbis, M4A, AIFF or CAF file, or {}",
                problem.expected
            ))
            .found(format!("{cause}; {}", problem.found))
            .fix(problem.remedy),
        other => other,
    }
}

fn hint(path: &Path) -> Hint {
    let mut hint = Hint::new();
    if let Some(extension) = path.extension().and_then(|extension| extension.to_str()) {
        hint.with_extension(extension);
    }
    hint
}

/// What gives the packets of a file.
enum Packets<'a> {
    Wav(Wav<'a>),
    Format { reader: Box<dyn FormatReader>, track: u32, declared: Option<u64> },
}

impl Packets<'_> {
    /// Finds out the format of a file.
    fn probe(name: &str, file: File, hint: &Hint) -> Decoded<Self> {
        let stream = MediaSourceStream::new(Box::new(file), Default::default());
        let (format, metadata) = (FormatOptions::default(), MetadataOptions::default());
        let reader = symphonia::default::get_probe()
            .probe(hint, stream, format, metadata)
            .map_err(|e| failed(name, e))?;
        let none = || Failure::Unsupported("no sound in it".into());
        let track = reader.default_track(TrackType::Audio).ok_or_else(none)?;
        // Only lengths in samples can be compared with samples.
        let rate = track.codec_params.as_ref().and_then(|params| params.audio()?.sample_rate);
        let in_samples = track
            .time_base
            .is_none_or(|unit| unit.numer.get() == 1 && Some(unit.denom.get()) == rate);
        let (track, declared) = (track.id, track.num_frames.filter(|_| in_samples));
        Ok(Self::Format { reader, track, declared })
    }

    fn parameters(&self) -> Decoded<&AudioCodecParameters> {
        match self {
            Self::Wav(wav) => Ok(&wav.parameters),
            Self::Format { reader, track, .. } => {
                let own = reader.tracks().iter().find(|other| other.id == *track);
                let parameters = own.and_then(|track| track.codec_params.as_ref()?.audio());
                parameters.ok_or_else(|| Failure::Unsupported("no sound in it".into()))
            }
        }
    }

    /// How many samples the file says it has.
    fn declared(&self) -> Option<u64> {
        match self {
            Self::Wav(_) => None,
            Self::Format { declared, .. } => *declared,
        }
    }

    /// The next packet of the sound; none at the end.
    fn next(&mut self, name: &str, frames: u64) -> Decoded<Option<Packet>> {
        match self {
            Self::Wav(wav) => wav.next_packet().map_err(|fault| of_wav(name, fault)),
            Self::Format { reader, track, declared } => loop {
                match reader.next_packet() {
                    Ok(Some(packet)) if packet.track_id != *track => {}
                    Ok(packet) => return Ok(packet),
                    Err(Cause::IoError(e)) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
                        return Err(truncated(name, frames, *declared).into());
                    }
                    Err(e) => return Err(failed(name, e)),
                }
            },
        }
    }
}

/// Decodes packets into a mix, up to the end of its part.
fn decode(name: &str, mut packets: Packets, mix: &mut Mix) -> Decoded<()> {
    let parameters = packets.parameters()?;
    if let Some(rate) = parameters.sample_rate {
        check_rate(name, rate)?;
    }
    let mut decoder: Box<dyn AudioDecoder> = symphonia::default::get_codecs()
        .make_audio_decoder(parameters, &AudioDecoderOptions::default())
        .map_err(|e| failed(name, e))?;
    let mut interleaved: Vec<f32> = Vec::new();
    // Packets that were decoded, and that could not be.
    let (mut good, mut bad) = (0usize, 0usize);
    let mut ended = false;
    while !mix.is_complete() {
        let Some(packet) = packets.next(name, mix.frames())? else {
            ended = true;
            break;
        };
        let buffer = match decoder.decode(&packet) {
            Ok(buffer) => buffer,
            // Streams that were cut out of longer ones begin with packets that cannot be decoded.
            Err(Cause::DecodeError(_)) => {
                bad += 1;
                continue;
            }
            Err(e) => return Err(failed(name, e)),
        };
        good += 1;
        interleaved.resize(buffer.samples_interleaved(), 0.0);
        buffer.copy_to_slice_interleaved(&mut interleaved);
        mix.add(&interleaved, buffer.num_planes(), buffer.spec().rate())?;
    }
    if bad > good {
        let found = format!("{bad} broken packets of {}", bad + good);
        return Err(broken(name, found).into());
    }
    match packets.declared() {
        Some(declared) if ended && mix.frames() + PADDING < declared => {
            Err(truncated(name, mix.frames(), Some(declared)).into())
        }
        _ => Ok(()),
    }
}

fn failed(name: &str, cause: Cause) -> Failure {
    match cause {
        Cause::IoError(e) if e.kind() != std::io::ErrorKind::UnexpectedEof => {
            Error::io("read", name, e).into()
        }
        Cause::Unsupported(what) => Failure::Unsupported(format!("something else ({what})")),
        Cause::ResetRequired => Failure::Unsupported("several streams, one after the other".into()),
        other => broken(name, other.to_string()).into(),
    }
}

fn of_wav(name: &str, fault: Fault) -> Failure {
    match fault {
        Fault::Unsupported(what) => Failure::Unsupported(what),
        Fault::Broken(found) => broken(name, found).into(),
        Fault::Io(e) => Error::io("read", name, e).into(),
    }
}

fn truncated(name: &str, frames: u64, declared: Option<u64>) -> Error {
    let declared = declared.map_or("more".into(), |declared| declared.to_string());
    broken(name, format!("{frames} of {declared} samples (the file is truncated)"))
}
