//! WAV files, whose headers often lie about sizes.
//!
//! Programs that write to a pipe cannot go back to fill in a size: they leave 0, 0xFFFFFFFF or
//! another large number. Others count wrongly, or wrap at 4 GiB. So the data of a file are what the
//! file has, and the header only decides whether chunks follow them and whether the file was cut.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
};

use symphonia::core::{
    audio::Channels,
    codecs::audio::{AudioCodecId, AudioCodecParameters, well_known as codec},
    packet::Packet,
    units::{Duration, Timestamp},
};

/// Where sizes begin that stand for an unknown size: near 2^31 or 2^32.
const PLACEHOLDER: u64 = 0x7FFF_0000;
/// Longest description of the format that is read.
const LONGEST_FORMAT: u64 = 1 << 12;
/// Frames and bytes of a packet, at most, unless a block is longer.
const PACKET: (u64, u64) = (4096, 1 << 18);

/// Why a WAV file is not read.
#[derive(Debug)]
pub(super) enum Fault {
    /// Another program may read it.
    Unsupported(String),
    /// It is damaged.
    Broken(String),
    Io(io::Error),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            Self::Broken("a header that ends early".into())
        } else {
            Self::Io(error)
        }
    }
}

/// Packets of a WAV file.
pub(super) struct Wav<'a> {
    source: Box<dyn Read + 'a>,
    /// How the samples are coded.
    pub parameters: AudioCodecParameters,
    format: Format,
    /// Bytes of data that are left.
    left: u64,
    blocks: u64,
}

/// What the description of the format says.
struct Format {
    id: AudioCodecId,
    channels: u16,
    rate: u32,
    /// Bytes and frames of a block.
    block: u64,
    frames: u64,
}

/// What comes before the data.
struct Header {
    format: Format,
    /// Size of the data as the header has it.
    declared: u64,
    /// Bytes before the data.
    start: u64,
}

/// Whether a file with these first bytes is a WAV file.
pub(super) fn is_wav(first: &[u8]) -> bool {
    let names = [b"RIFF", b"RF64", b"BW64"];
    first.len() >= 12
        && names.iter().any(|name| first.starts_with(*name))
        && first[8..].starts_with(b"WAVE")
}

impl<'a> Wav<'a> {
    /// Reads the header of a file.
    pub fn open(mut file: File) -> Result<Self, Fault> {
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(0))?;
        let header = header(&mut io::BufReader::new(&file))?;
        let left = data_length(&mut file, &header, length)?;
        file.seek(SeekFrom::Start(header.start))?;
        Ok(Self::new(Box::new(io::BufReader::with_capacity(1 << 16, file)), header, left))
    }

    /// Reads the header of a stream, whose data go on to its end.
    pub fn stream(mut source: impl Read + 'a) -> Result<Self, Fault> {
        let header = header(&mut source)?;
        Ok(Self::new(Box::new(source), header, u64::MAX))
    }

    fn new(source: Box<dyn Read + 'a>, header: Header, left: u64) -> Self {
        let format = header.format;
        let blocks = (PACKET.0 / format.frames).min(PACKET.1 / format.block).max(1);
        let mut parameters = AudioCodecParameters::new();
        parameters
            .for_codec(format.id)
            .with_channels(Channels::Discrete(format.channels))
            .with_sample_rate(format.rate)
            .with_max_frames_per_packet(blocks * format.frames)
            .with_frames_per_block(format.frames);
        Self { source, parameters, format, left, blocks: 0 }
    }

    /// The next packet; none at the end, where an incomplete block is dropped.
    pub fn next_packet(&mut self) -> Result<Option<Packet>, Fault> {
        let Format { block, frames, .. } = self.format;
        let most = (PACKET.0 / frames).min(PACKET.1 / block).max(1) * block;
        let mut bytes = Vec::new();
        let wanted = most.min(self.left - self.left % block);
        let read = self.source.by_ref().take(wanted).read_to_end(&mut bytes)? as u64;
        self.left -= read;
        let whole = read / block;
        bytes.truncate((whole * block) as usize);
        if whole == 0 {
            return Ok(None);
        }
        let at = Timestamp::try_from(self.blocks * frames).unwrap_or(Timestamp::ZERO);
        self.blocks += whole;
        Ok(Some(Packet::new(0, at, Duration::from(whole * frames), bytes)))
    }
}

/// Reads up to the data.
fn header(source: &mut impl Read) -> Result<Header, Fault> {
    let mut first = [0; 12];
    source.read_exact(&mut first)?;
    if !is_wav(&first) {
        return Err(Fault::Unsupported("not a WAV file".into()));
    }
    let (mut start, mut format, mut long) = (12, None, None);
    loop {
        let mut head = [0; 8];
        source.read_exact(&mut head)?;
        start += 8;
        let size = u64::from(u32::from_le_bytes([head[4], head[5], head[6], head[7]]));
        match &head[..4] {
            b"data" => {
                let format = format.ok_or_else(|| broken("no format before the data"))?;
                let declared = long.filter(|_| size == u64::from(u32::MAX)).unwrap_or(size);
                return Ok(Header { format, declared, start });
            }
            b"fmt " | b"ds64" => {
                let mut bytes = Vec::new();
                source.take(size.min(LONGEST_FORMAT)).read_to_end(&mut bytes)?;
                skip(source, size + size % 2 - bytes.len() as u64)?;
                if &head[..4] == b"fmt " {
                    format = Some(self::format(&bytes)?);
                } else {
                    // Sizes of the file and of the data, in 64 bits.
                    long =
                        bytes.get(8..16).and_then(|b| Some(u64::from_le_bytes(*b.first_chunk()?)));
                }
            }
            _ => skip(source, size + size % 2)?,
        }
        start += size + size % 2;
    }
}

fn skip(source: &mut impl Read, bytes: u64) -> Result<(), Fault> {
    if io::copy(&mut source.take(bytes), &mut io::sink())? < bytes {
        return Err(broken("no data: the file ends before them"));
    }
    Ok(())
}

fn broken(what: &str) -> Fault {
    Fault::Broken(what.into())
}

/// Reads a description of the format.
fn format(bytes: &[u8]) -> Result<Format, Fault> {
    let word = |at: usize| {
        let pair = bytes.get(at..).and_then(|rest| rest.first_chunk());
        pair.map(|pair| u16::from_le_bytes(*pair))
            .ok_or_else(|| broken("a format that is too short"))
    };
    let (tag, channels, align, bits) = (word(0)?, word(2)?, u64::from(word(12)?), word(14)?);
    let rate = u32::from(word(4)?) | u32::from(word(6)?) << 16;
    // An extensible format begins its identifier with the number of the plain one.
    let tag = if tag == 0xFFFE { word(24)? } else { tag };
    let count = u64::from(channels);
    if count == 0 {
        return Err(broken("a format without channels"));
    }
    let unsupported = || {
        let what = format!("a WAV file with {bits} bits a sample in the format {tag:#06x}");
        Err(Fault::Unsupported(what))
    };
    // Samples of other widths fill the upper bits of whole bytes.
    let held = if align % count == 0 { align / count } else { 0 };
    let bytes_each =
        if held > 0 && held * 8 >= u64::from(bits) { held } else { u64::from(bits).div_ceil(8) };
    let (id, block, frames) = match (tag, bytes_each) {
        (1, 1) => (codec::CODEC_ID_PCM_U8, count, 1),
        (1, 2) => (codec::CODEC_ID_PCM_S16LE, 2 * count, 1),
        (1, 3) => (codec::CODEC_ID_PCM_S24LE, 3 * count, 1),
        (1, 4) => (codec::CODEC_ID_PCM_S32LE, 4 * count, 1),
        (3, 4) => (codec::CODEC_ID_PCM_F32LE, 4 * count, 1),
        (3, 8) => (codec::CODEC_ID_PCM_F64LE, 8 * count, 1),
        (6, 1) => (codec::CODEC_ID_PCM_ALAW, count, 1),
        (7, 1) => (codec::CODEC_ID_PCM_MULAW, count, 1),
        // Blocks of ADPCM: a head for each channel, then two samples a byte.
        (2, _) if bits == 4 && count <= 2 && align > 7 * count => {
            (codec::CODEC_ID_ADPCM_MS, align, (align - 7 * count) * 2 / count + 2)
        }
        (0x11, _) if bits == 4 && count <= 2 && align > 4 * count => {
            (codec::CODEC_ID_ADPCM_IMA_WAV, align, (align - 4 * count) * 2 / count + 1)
        }
        _ => return unsupported(),
    };
    Ok(Format { id, channels, rate, block, frames })
}

/// Bytes of data in a file of some length.
fn data_length(file: &mut File, header: &Header, length: u64) -> Result<u64, Fault> {
    let rest = length.saturating_sub(header.start);
    let declared = header.declared;
    if declared > rest {
        // A size that counts the header too is wrong by less than that.
        if declared >= PLACEHOLDER || declared - rest <= header.start {
            return Ok(rest);
        }
        let Format { block, frames, .. } = header.format;
        return Err(Fault::Broken(format!(
            "{} of {} samples (the file is truncated)",
            rest / block * frames,
            declared / block * frames
        )));
    }
    let end = header.start + declared + declared % 2;
    Ok(if chunks_follow(file, end, length)? { declared } else { rest })
}

/// Whether chunks, or tags of other programs, fill a file from a place on to its end.
fn chunks_follow(file: &mut File, mut at: u64, length: u64) -> Result<bool, Fault> {
    const TAGS: [&[u8]; 3] = [b"TAG", b"APETAGEX", b"ID3"];
    while at + 8 <= length {
        file.seek(SeekFrom::Start(at))?;
        let mut head = [0; 8];
        file.read_exact(&mut head)?;
        if TAGS.iter().any(|tag| head.starts_with(tag)) {
            return Ok(true);
        }
        let named = head[..4].iter().all(|&byte| byte.is_ascii_graphic() || byte == b' ');
        let size = u64::from(u32::from_le_bytes([head[4], head[5], head[6], head[7]]));
        at += 8 + size;
        if !named || at > length {
            return Ok(false);
        }
        at += size % 2;
    }
    Ok(true)
}
