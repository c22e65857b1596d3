//! Videos as frames: folders of pictures, animations, and containers through ffmpeg.

use std::{
    cmp::Ordering,
    fs::{self, File},
    io::BufReader,
    path::{Path, PathBuf},
};

use cart_retrieval::{Error, Result};
use image::{
    AnimationDecoder, DynamicImage, Frames, ImageDecoder, ImageFormat, ImageReader, Limits,
    codecs::{gif::GifDecoder, png::PngDecoder, webp::WebPDecoder},
};

use super::{
    Modality, Picture, PictureLimits, Transparency,
    container::{self, even},
    kinds::{is_of_a_system, is_read_as},
    read::{broken, flatten, within},
};

/// Most pixels of an animation: the decoders keep several pictures of its size at once, whatever
/// the file holds of them.
const MOST_PIXELS: u64 = 1 << 26;
/// Most memory for one of its pictures, in bytes: in a GIF they may be larger than the animation.
const MOST_MEMORY: u64 = 6 * MOST_PIXELS;
/// Most frames of an animation or a container that are looked at.
const MOST: usize = 1_000_000;

/// Reads `count` frames of a video, evenly over its length: the frames in the middle of as many
/// parts; fewer are given several times.
///
/// A video is a folder of pictures (in the order of the numbers in their names), an animated GIF,
/// WebP or PNG, or a file that the program `ffmpeg` reads, which has to be installed for those.
///
/// # Errors
/// [`Error::Io`] when it cannot be read; [`Error::Media`] for a count of zero, a folder without
/// pictures, a broken frame (named), an animation of more than 67 million pixels, or where `ffmpeg`
/// is needed and missing or refuses the file.
///
/// # Example
/// ```no_run
/// let frames = cart_media::open_frames("video7010.mp4", 8)?;
/// # Ok::<(), cart_retrieval::Error>(())
/// ```
pub fn open_frames(path: impl AsRef<Path>, count: usize) -> Result<Vec<Picture>> {
    frames_by(path.as_ref(), count, "ffmpeg")
}

/// The same with another program in the place of ffmpeg.
pub(super) fn frames_by(path: &Path, count: usize, program: &str) -> Result<Vec<Picture>> {
    if count == 0 {
        let remedy = "ask for one frame or more";
        return Err(Error::media("frames of a video")
            .expected("at least one")
            .found("0")
            .fix(remedy));
    }
    let refused = |e| Error::io("read", path, e);
    if fs::metadata(path).map_err(refused)?.is_dir() {
        let files = pictures_of(path)?;
        return even(files.len(), count).map(|at| Picture::open(&files[at])).collect();
    }
    let file = || File::open(path).map(BufReader::new).map_err(refused);
    let format = ImageReader::new(file()?).with_guessed_format().map_err(refused)?.format();
    match format {
        Some(format @ (ImageFormat::Gif | ImageFormat::WebP | ImageFormat::Png)) => {
            let name = path.display().to_string();
            // Once to count, once to keep those that are wanted: the others need not be in memory.
            let Some(frames) = animation(&name, format, file()?)? else {
                return Ok(vec![Picture::open(path)?; count]);
            };
            let mut total = 0;
            for frame in frames.take(MOST) {
                frame.map_err(|e| broken(&name, e))?;
                total += 1;
            }
            let wanted: Vec<usize> = even(total, count).collect();
            let mut found = Vec::with_capacity(count);
            let frames = animation(&name, format, file()?)?.into_iter().flatten();
            for (at, frame) in frames.enumerate().take(total) {
                let times = wanted.iter().filter(|&&wanted| wanted == at).count();
                if times > 0 {
                    let image =
                        DynamicImage::from(frame.map_err(|e| broken(&name, e))?.into_buffer());
                    let picture = flatten(image, Transparency::Ignored)?;
                    found.extend(std::iter::repeat_n(picture, times));
                }
            }
            match found.is_empty() {
                true => Err(Error::media(name)
                    .expected("at least one frame")
                    .found("none")
                    .fix("leave it out")),
                false => Ok(found),
            }
        }
        Some(_) => Ok(vec![Picture::open(path)?; count]),
        None => container::frames_by(path, count, program),
    }
}

/// The frames of an animation; none for a picture that stands still.
fn animation(
    name: &str,
    format: ImageFormat,
    file: BufReader<File>,
) -> Result<Option<Frames<'static>>> {
    let broken = |e| broken(name, e);
    let limits = PictureLimits { pixels: MOST_PIXELS, memory: MOST_MEMORY };
    let bounds = || {
        let mut bounds = Limits::default();
        bounds.max_alloc = Some(limits.memory);
        bounds
    };
    Ok(match format {
        ImageFormat::Gif => {
            let mut decoder = GifDecoder::new(file).map_err(broken)?;
            let (width, height) = decoder.dimensions();
            within(name, width, height, limits)?;
            decoder.set_limits(bounds()).map_err(broken)?;
            Some(decoder.into_frames())
        }
        ImageFormat::WebP => {
            let mut decoder = WebPDecoder::new(file).map_err(broken)?;
            let (width, height) = decoder.dimensions();
            within(name, width, height, limits)?;
            decoder.set_limits(bounds()).map_err(broken)?;
            decoder.has_animation().then(|| decoder.into_frames())
        }
        _ => {
            let decoder = PngDecoder::with_limits(file, bounds()).map_err(broken)?;
            let (width, height) = decoder.dimensions();
            within(name, width, height, limits)?;
            match decoder.is_apng().map_err(broken)? {
                true => Some(decoder.apng().map_err(broken)?.into_frames()),
                false => None,
            }
        }
    })
}

/// The pictures of a folder, by the numbers in their names.
pub(super) fn pictures_of(folder: &Path) -> Result<Vec<PathBuf>> {
    let refused = |e| Error::io("read", folder, e);
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(refused)? {
        let entry = entry.map_err(refused)?;
        let path = entry.path();
        let is_picture = is_read_as(&path, Modality::Image) && !is_of_a_system(&entry.file_name());
        if is_picture && path.is_file() {
            files.push(path);
        }
    }
    if files.is_empty() {
        return Err(Error::media(folder.display().to_string())
            .expected("frames in files of pictures")
            .found("no picture")
            .fix("name their folder"));
    }
    files.sort_by(|a, b| {
        let name =
            |path: &PathBuf| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        by_number(&name(a), &name(b))
    });
    Ok(files)
}

/// Runs of digits as numbers, the rest as text.
fn by_number(a: &str, b: &str) -> Ordering {
    let (mut left, mut right) = (a.as_bytes(), b.as_bytes());
    let digits = |text: &[u8]| text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    while let (Some(first), Some(second)) = (left.first(), right.first()) {
        let (long, short) = (digits(left), digits(right));
        if long > 0 && short > 0 {
            let number = |text: &[u8]| -> Vec<u8> {
                text.iter().copied().skip_while(|&byte| byte == b'0').collect()
            };
            let (x, y) = (number(&left[..long]), number(&right[..short]));
            match x.len().cmp(&y.len()).then(x.cmp(&y)) {
                Ordering::Equal => (left, right) = (&left[long..], &right[short..]),
                other => return other,
            }
        } else {
            match first.cmp(second) {
                Ordering::Equal => (left, right) = (&left[1..], &right[1..]),
                other => return other,
            }
        }
    }
    left.len().cmp(&right.len()).then_with(|| a.cmp(b))
}
