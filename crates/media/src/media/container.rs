//! Frames of videos in containers, through ffmpeg.
//!
//! ffmpeg first lists when each frame is shown, which it reads from the container without decoding.
//! From these times the frames are chosen, and ffmpeg is asked for just those. So neither the
//! length of a video nor a duration that the container lacks matters, and never more frames than
//! asked for go through the pipe.

use std::{
    io::{BufRead, Read},
    path::Path,
};

use cart_retrieval::Result;

use super::{Picture, PictureLimits, ffmpeg::Ffmpeg};

/// Most frames of a video that are listed: 77 hours at 60 a second.
const MOST: usize = 1 << 24;
/// Where more frames than these lie between two that are wanted, ffmpeg seeks instead of decoding
/// them.
const FAR: usize = 250;
/// Most frames that one run of ffmpeg is asked for, as the expression that names them has to fit a
/// command line.
const TOGETHER: usize = 500;
/// What ffmpeg says about containers whose data end early.
const CUT: [&str; 2] = ["partial file", "File ended prematurely"];

/// Frames of a video, evenly over the time that it lasts.
pub(super) fn frames_by(path: &Path, count: usize, program: &str) -> Result<Vec<Picture>> {
    let ffmpeg = Ffmpeg { path, program };
    let listing = list(&ffmpeg)?;
    let wanted = listing.choose(count);
    let mut distinct = wanted.clone();
    distinct.dedup();
    let found = match listing.times {
        Some(_) => by_time(&ffmpeg, &listing, &distinct),
        None => None,
    };
    let found = match found {
        Some(found) => found,
        // Without times, or where frames are not shown at those that the container says.
        None => by_number(&ffmpeg, &distinct)?,
    };
    let Some(last) = found.len().checked_sub(1) else {
        return Err(ffmpeg.failed("no frame that can be decoded"));
    };
    // A container may list frames that are not shown. The last ones are then missing.
    let place = |frame: &usize| distinct.partition_point(|other| other < frame).min(last);
    Ok(wanted.iter().map(|frame| found[place(frame)].clone()).collect())
}

/// The frames in the middle of `count` even parts of `total`.
pub(super) fn even(total: usize, count: usize) -> impl Iterator<Item = usize> {
    let take = if total == 0 { 0 } else { count };
    (0..take).map(move |part| (2 * part + 1) * total / (2 * count))
}

/// The frames of a video.
#[derive(Debug, PartialEq)]
struct Listing {
    /// How many there are.
    total: usize,
    /// When each is shown, in ascending order, in units; absent where the container does not say so
    /// of all.
    times: Option<Vec<i64>>,
    /// When the last one is not shown any more.
    end: i64,
    /// Seconds of a unit.
    unit: f64,
}

/// Lists the frames of the first video stream that is not a cover.
fn list(ffmpeg: &Ffmpeg) -> Result<Listing> {
    let after = ["-map", "0:V:0", "-c", "copy", "-f", "framecrc"];
    let (listing, complaints) = ffmpeg.read(&[], &after, read_listing)?;
    if let Some(cut) = complaints.lines().find(|line| CUT.iter().any(|word| line.contains(word))) {
        return Err(ffmpeg.failed(format!("a truncated file ({cut})")));
    }
    if listing.total == 0 {
        return Err(ffmpeg.failed(match complaints.as_str() {
            "" => "no frames",
            complaints => complaints,
        }));
    }
    Ok(listing)
}

/// Reads ffmpeg's list of packets: comments, and lines of stream, time of decoding, time of
/// showing, duration, ...
fn read_listing(output: &mut impl BufRead) -> std::result::Result<Listing, String> {
    let (mut times, mut unit, mut last) = (Vec::new(), None, (i64::MIN, 0));
    let (mut total, mut unknown) = (0, false);
    for line in output.lines() {
        let line = line.map_err(|e| e.to_string())?;
        if let Some(text) = line.strip_prefix("#tb 0:") {
            let parts = text.trim().split_once('/').unwrap_or((text.trim(), "1"));
            unit = match (parts.0.parse::<f64>(), parts.1.parse::<f64>()) {
                (Ok(over), Ok(under)) if over > 0.0 && under > 0.0 => Some(over / under),
                _ => return Err(format!("a unit of time of {text}")),
            };
        }
        if line.starts_with('#') || line.trim().is_empty() {
            continue;
        }
        let mut numbers = line.split(',').map(|number| number.trim().parse::<i64>());
        let (Some(Ok(0)), Some(_), Some(shown), Some(Ok(duration))) =
            (numbers.next(), numbers.next(), numbers.next(), numbers.next())
        else {
            return Err(format!("{line:?} in a list of frames"));
        };
        total += 1;
        match shown {
            Ok(shown) if shown != i64::MIN => {
                last = last.max((shown, duration));
                times.push(shown);
            }
            _ => unknown = true,
        }
        if total == MOST {
            return Err(format!("more than {MOST} frames"));
        }
    }
    times.sort_unstable();
    times.dedup();
    // What is before 0 is decoded, but cut away by the container.
    let shown = times.partition_point(|&time| time < 0);
    if shown < times.len() {
        times.drain(..shown);
    }
    let end = last.0.saturating_add(last.1.max(1));
    let times = (!unknown && !times.is_empty() && unit.is_some()).then_some(times);
    Ok(Listing { total, times, end, unit: unit.unwrap_or(1.0) })
}

impl Listing {
    /// Numbers of the frames shown in the middle of `count` equal parts of the video.
    fn choose(&self, count: usize) -> Vec<usize> {
        let Some(times) = &self.times else {
            return even(self.total, count).collect();
        };
        let (first, parts) = (i128::from(times[0]), 2 * count as i128);
        let length = i128::from(self.end) - first;
        let shown = |part: usize| {
            let middle = (2 * part as i128 + 1) * length;
            times.partition_point(|&time| (i128::from(time) - first) * parts <= middle)
        };
        (0..count).map(|part| shown(part).max(1) - 1).collect()
    }

    /// A time between the frame before this one and this one, in seconds.
    fn before(&self, frame: usize) -> f64 {
        let times = self.times.as_deref().unwrap_or_default();
        let own = times.get(frame).copied().unwrap_or(self.end) as f64;
        match frame.checked_sub(1).and_then(|before| times.get(before)) {
            Some(&before) => (before as f64 + own) / 2.0 * self.unit,
            None => (own - 0.5) * self.unit,
        }
    }
}

/// The frames shown at the times of some frames; `None` if any is missing.
fn by_time(ffmpeg: &Ffmpeg, listing: &Listing, frames: &[usize]) -> Option<Vec<Picture>> {
    let near = |a: &usize, b: &usize| b - a <= FAR;
    let mut found = Vec::with_capacity(frames.len());
    for group in frames.chunk_by(near).flat_map(|group| group.chunks(TOGETHER)) {
        let (mut before, mut start) = (Vec::new(), 0.0);
        if group[0] > FAR {
            // ffmpeg decodes from the key frame before and drops what is before this time.
            start = (listing.before(group[0]) * 1e6).floor() / 1e6;
            before = vec!["-ss".to_string(), format!("{start:.6}")];
        }
        let shown = |&frame: &usize| {
            let (from, to) = (listing.before(frame) - start, listing.before(frame + 1) - start);
            format!("gte(t,{from:.6})*lt(t,{to:.6})")
        };
        let mut some = pictures(ffmpeg, &before, group.iter().map(shown), group.len()).ok()?;
        if some.len() < group.len() {
            return None;
        }
        found.append(&mut some);
    }
    Some(found)
}

/// Frames by their numbers in the order of showing, decoded from the beginning. Fewer where some
/// are missing.
fn by_number(ffmpeg: &Ffmpeg, frames: &[usize]) -> Result<Vec<Picture>> {
    let mut found = Vec::with_capacity(frames.len());
    for group in frames.chunks(TOGETHER) {
        let number = |frame: &usize| format!("eq(n,{frame})");
        match pictures(ffmpeg, &[], group.iter().map(number), group.len()) {
            Ok(mut some) => found.append(&mut some),
            // The end may be missing, the beginning not.
            Err(e) if found.is_empty() => return Err(e),
            Err(_) => break,
        }
    }
    Ok(found)
}

/// The frames that some conditions hold for.
fn pictures(
    ffmpeg: &Ffmpeg,
    before: &[String],
    conditions: impl Iterator<Item = String>,
    most: usize,
) -> Result<Vec<Picture>> {
    let conditions: Vec<String> = conditions.collect();
    // With times of an even rate ffmpeg neither repeats nor drops frames, whatever its version.
    let filter = format!("select='{}',setpts=N/(25*TB)", conditions.join("+"));
    let number = most.to_string();
    let after = [
        ["-map", "0:V:0"],
        ["-vf", &filter],
        ["-r", "25"],
        ["-frames:v", &number],
        ["-pix_fmt", "rgb24"],
        ["-c:v", "ppm"],
        ["-f", "image2pipe"],
    ];
    let (found, _) = ffmpeg.read(before, after.as_flattened(), |output| {
        let mut found = Vec::with_capacity(most);
        while let Some(picture) = pixmap(output)? {
            if found.len() == most {
                return Err(format!("more than the {most} frames asked for"));
            }
            found.push(picture);
        }
        Ok(found)
    })?;
    Ok(found)
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
                return Err("frames that are not portable pixmaps".into());
            }
        }
        _ => return Err("frames that are not portable pixmaps".into()),
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
            _ => return Err("frames that are not portable pixmaps".into()),
        }
    }
}

#[cfg(test)]
#[path = "container_tests.rs"]
mod tests;
