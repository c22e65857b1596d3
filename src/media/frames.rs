//! Videos as frames: folders of pictures, animations, and containers through ffmpeg.

use std::{
    cmp::Ordering,
    fs::{self, File},
    io::{BufReader, Read},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use image::{
    AnimationDecoder, DynamicImage, Frames, ImageDecoder, ImageFormat, ImageReader, Limits,
    codecs::{gif::GifDecoder, png::PngDecoder, webp::WebPDecoder},
};

use super::{
    Picture, PictureLimits, Transparency,
    read::{broken, flatten, within},
};
use crate::error::{Error, Result};

/// Extensions of the pictures of a folder.
const PICTURES: [&str; 5] = ["png", "jpg", "jpeg", "webp", "gif"];
/// Most pixels of an animation: the decoders keep several pictures of its size at once, whatever the file holds of them.
const MOST_PIXELS: u64 = 1 << 26;
/// Most memory for one of its pictures, in bytes: in a GIF they may be larger than the animation.
const MOST_MEMORY: u64 = 6 * MOST_PIXELS;
/// Most frames of an animation or a container that are looked at.
const MOST: usize = 1_000_000;

/// Reads `count` frames of a video, evenly over its length: the frames in the middle of as many parts; fewer are
/// given several times.
///
/// A video is a folder of pictures (in the order of the numbers in their names), an animated GIF, WebP or PNG, or
/// a file that the program `ffmpeg` reads, which has to be installed for those.
///
/// # Errors
/// [`Error::Io`] when it cannot be read; [`Error::Media`] for a count of zero, a folder without pictures, a broken
/// frame (named), an animation of more than 67 million pixels, or where `ffmpeg` is needed and missing or refuses the file.
///
/// # Example
/// ```no_run
/// let frames = cart_retrieval::media::open_frames("video7010.mp4", 8)?;
/// # Ok::<(), cart_retrieval::Error>(())
/// ```
pub fn open_frames(path: impl AsRef<Path>, count: usize) -> Result<Vec<Picture>> {
    frames_by(path.as_ref(), count, "ffmpeg")
}

/// The same with another program in the place of ffmpeg.
pub(super) fn frames_by(path: &Path, count: usize, program: &str) -> Result<Vec<Picture>> {
    if count == 0 {
        let remedy = "ask for one frame or more";
        return Err(Error::media("frames of a video", "at least one", "0", remedy));
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
                true => Err(Error::media(name, "at least one frame", "none", "leave it out")),
                false => Ok(found),
            }
        }
        Some(_) => Ok(vec![Picture::open(path)?; count]),
        None => by_program(path, count, program),
    }
}

/// The frames in the middle of `count` even parts of `total`.
fn even(total: usize, count: usize) -> impl Iterator<Item = usize> {
    let take = if total == 0 { 0 } else { count };
    (0..take).map(move |part| (2 * part + 1) * total / (2 * count))
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
fn pictures_of(folder: &Path) -> Result<Vec<PathBuf>> {
    let refused = |e| Error::io("read", folder, e);
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(refused)? {
        let path = entry.map_err(refused)?.path();
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
        if PICTURES.iter().any(|known| known.eq_ignore_ascii_case(extension)) && path.is_file() {
            files.push(path);
        }
    }
    if files.is_empty() {
        return Err(Error::media(
            folder.display().to_string(),
            format!("frames in files that end in {}", PICTURES.join(", ")),
            "no picture",
            "name the folder that has them",
        ));
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

/// The frames that a program like ffmpeg decodes.
///
/// It writes all frames as portable pixmaps; how many there are shows at the end. So twice as many as wanted are
/// kept, and when there are more, every second one is left.
fn by_program(path: &Path, count: usize, program: &str) -> Result<Vec<Picture>> {
    let name = path.display().to_string();
    let mut child = Command::new(program)
        .args(["-nostdin", "-v", "error", "-i"])
        .arg(path)
        .args(["-an", "-sn", "-f", "image2pipe", "-c:v", "ppm", "-"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| {
            Error::media(
                &name,
                format!("the program `{program}`, which reads videos in containers"),
                e.to_string(),
                "install ffmpeg, or turn the video into a folder of pictures",
            )
        })?;
    let failed = |found: String| {
        let expected = format!("a video that `{program}` (ffmpeg) reads");
        Error::media(&name, expected, found, "fetch it again, or leave it out")
    };
    // Read aside, so that a program with much to complain about does not wait for a reader.
    let errors = child.stderr.take().map(|mut stream| {
        std::thread::spawn(move || {
            let mut text = Vec::new();
            let _ = stream.by_ref().take(1 << 16).read_to_end(&mut text);
            let _ = std::io::copy(&mut stream, &mut std::io::sink());
            String::from_utf8_lossy(&text).trim().to_string()
        })
    });
    let mut kept: Vec<Picture> = Vec::new();
    let (mut step, mut total, mut problem) = (1, 0, None);
    if let Some(output) = child.stdout.take() {
        let mut output = BufReader::new(output);
        loop {
            match pixmap(&mut output) {
                Ok(Some(picture)) => {
                    if total % step == 0 {
                        kept.push(picture);
                    }
                    total += 1;
                    if kept.len() > (2 * count).max(16) {
                        let mut at = 0;
                        kept.retain(|_| {
                            at += 1;
                            at % 2 == 1
                        });
                        step *= 2;
                    }
                    if total >= MOST {
                        break;
                    }
                }
                Ok(None) => break,
                Err(found) => {
                    problem = Some(found);
                    break;
                }
            }
        }
    }
    // After all is read it has ended; after a problem it need not go on.
    if problem.is_some() || total >= MOST {
        let _ = child.kill();
    }
    let status = child.wait().map_err(|e| failed(e.to_string()))?;
    let complaint = errors.and_then(|thread| thread.join().ok()).unwrap_or_default();
    match problem {
        _ if kept.is_empty() || (!status.success() && total < MOST) => {
            let found = match (complaint.is_empty(), problem) {
                (false, _) => complaint,
                (true, Some(problem)) => problem,
                (true, None) => format!("no frames, {status}"),
            };
            Err(failed(found))
        }
        Some(problem) => Err(failed(problem)),
        None => {
            Ok(even(total, count).map(|at| kept[(at / step).min(kept.len() - 1)].clone()).collect())
        }
    }
}

/// The next binary portable pixmap of a stream; none at its end.
fn pixmap(stream: &mut impl Read) -> std::result::Result<Option<Picture>, String> {
    let mut next = || -> std::result::Result<Option<u8>, String> {
        let mut byte = [0];
        match stream.read(&mut byte) {
            Ok(0) => Ok(None),
            Ok(_) => Ok(Some(byte[0])),
            Err(e) => Err(e.to_string()),
        }
    };
    match (next()?, next) {
        (None, _) => return Ok(None),
        (Some(b'P'), mut next) => {
            if next()? != Some(b'6') {
                return Err("frames that are no portable pixmaps".into());
            }
        }
        _ => return Err("frames that are no portable pixmaps".into()),
    }
    let mut numbers = [0usize; 3];
    for number in &mut numbers {
        *number = header_number(stream)?;
    }
    let [width, height, most] = numbers;
    let size = width.checked_mul(height).and_then(|pixels| pixels.checked_mul(3));
    let limit = PictureLimits::default().memory as usize;
    match size {
        Some(size) if size > 0 && size <= limit && most == 255 => {
            let mut rgb = vec![0; size];
            stream.read_exact(&mut rgb).map_err(|e| format!("a frame that ends early ({e})"))?;
            Picture::new(width, height, rgb).map(Some).map_err(|e| e.to_string())
        }
        _ => Err(format!("a frame of {width} x {height} with values up to {most}")),
    }
}

/// A number of a pixmap's header, with the one blank after it; comments before it are passed over.
fn header_number(stream: &mut impl Read) -> std::result::Result<usize, String> {
    let mut number: Option<usize> = None;
    let mut comment = false;
    loop {
        let mut byte = [0];
        stream.read_exact(&mut byte).map_err(|e| format!("a frame that ends early ({e})"))?;
        match byte[0] {
            b'\n' if comment => comment = false,
            _ if comment => {}
            b'#' if number.is_none() => comment = true,
            digit @ b'0'..=b'9' => {
                let next = number.unwrap_or(0).saturating_mul(10);
                number = Some(next.saturating_add(usize::from(digit - b'0')));
            }
            blank if blank.is_ascii_whitespace() => {
                if let Some(number) = number {
                    return Ok(number);
                }
            }
            _ => return Err("frames that are no portable pixmaps".into()),
        }
    }
}
