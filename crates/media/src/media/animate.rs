//! Videos as animated pictures.

use cart_retrieval::{Error, Result};
use image::{
    Delay, Frame, RgbaImage,
    codecs::gif::{GifEncoder, Repeat},
};

use super::Picture;

/// Slowest and fastest animation, in pictures a second: GIF counts hundredths of seconds.
const RATES: std::ops::RangeInclusive<f32> = 0.1..=50.0;

/// An animated GIF that shows pictures one after the other, for ever; each has up to 256 colours of
/// its own.
///
/// # Errors
/// [`Error::Media`] without pictures, for pictures of several sizes or above 65,535 pixels a side, and for a rate
/// outside of 0.1 to 50 pictures a second.
///
/// # Example
/// ```
/// use cart_media::{Picture, to_gif};
/// let frames = [0, 128, 255].map(|grey| Picture::new(8, 8, vec![grey; 8 * 8 * 3]).unwrap());
/// assert!(to_gif(&frames, 8.0)?.starts_with(b"GIF89a"));
/// # Ok::<(), cart_retrieval::Error>(())
/// ```
pub fn to_gif(frames: &[Picture], a_second: f32) -> Result<Vec<u8>> {
    let wrong = |expected: &str, found: String, remedy: &str| {
        Err(Error::media("animated GIF").expected(expected).found(found).fix(remedy))
    };
    let Some(first) = frames.first() else {
        return wrong("at least one picture", "none".into(), "pass the frames of a video");
    };
    if !RATES.contains(&a_second) {
        let found = a_second.to_string();
        return wrong("0.1 to 50 pictures a second", found, "choose a usual rate, such as 10");
    }
    let size = |picture: &Picture| (picture.width(), picture.height());
    if let Some(other) = frames.iter().find(|frame| size(frame) != size(first)) {
        let found = format!("{:?} and {:?}", size(first), size(other));
        return wrong("pictures of one size", found, "crop or scale them to one size");
    }
    if first.width().max(first.height()) > usize::from(u16::MAX) {
        let found = format!("{:?}", size(first));
        return wrong("at most 65,535 pixels a side", found, "shrink the pictures");
    }
    let refused = |e: image::ImageError| {
        Error::media("animated GIF")
            .expected("pictures that can be encoded")
            .found(e.to_string())
            .fix("report this")
    };
    let mut gif = Vec::new();
    let mut encoder = GifEncoder::new_with_speed(&mut gif, 10);
    encoder.set_repeat(Repeat::Infinite).map_err(refused)?;
    let delay = Delay::from_numer_denom_ms((1000.0 / a_second).round() as u32, 1);
    for frame in frames {
        let (width, height) = (frame.width() as u32, frame.height() as u32);
        let rgba = frame.rgb().chunks_exact(3).flat_map(|p| [p[0], p[1], p[2], 255]).collect();
        let image = RgbaImage::from_raw(width, height, rgba).expect("four bytes a pixel");
        let frame = Frame::from_parts(image, 0, 0, delay);
        encoder.encode_frame(frame).map_err(refused)?;
    }
    drop(encoder);
    Ok(gif)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::open_frames;

    #[test]
    fn an_animation_is_read_back_frame_by_frame() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("clip.gif");
        let frame = |colour: [u8; 3]| Picture::new(9, 5, colour.repeat(45)).unwrap();
        let frames = [[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 9, 9]].map(frame);
        std::fs::write(&path, to_gif(&frames, 8.0).unwrap()).unwrap();
        let found = open_frames(&path, 4).unwrap();
        for (found, frame) in found.iter().zip(&frames) {
            let far = found.rgb().iter().zip(frame.rgb()).map(|(a, b)| a.abs_diff(*b)).max();
            assert_eq!((found.width(), found.height()), (9, 5));
            assert!(far.is_some_and(|far| far <= 2), "{far:?}");
        }
    }

    #[test]
    fn what_cannot_be_animated_is_refused() {
        let frame = |side: usize| Picture::new(side, 4, vec![1; 12 * side]).unwrap();
        let refused = |frames: &[Picture], rate: f32, word: &str| {
            let error = to_gif(frames, rate).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        };
        refused(&[], 8.0, "none");
        refused(&[frame(4), frame(5)], 8.0, "one size");
        refused(&[frame(4)], 0.0, "pictures a second");
        refused(&[frame(4)], f32::NAN, "pictures a second");
        refused(&[frame(70_000)], 8.0, "65,535");
    }
}
