//! Pictures from files.

use std::{
    fs::File,
    io::{BufRead, Cursor, Read, Seek},
    path::Path,
};

use cart_retrieval::{Error, Result};
use image::{
    DynamicImage, ExtendedColorType, ImageDecoder, ImageEncoder, ImageFormat, ImageReader, Limits,
    RgbaImage,
    codecs::{jpeg::JpegDecoder, png::PngEncoder},
};

use super::{Picture, jpeg};

/// What is read, for messages.
const FORMATS: &str = "a PNG, JPEG, WebP, GIF, BMP or TIFF file";

/// What becomes of transparent pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Transparency {
    /// Their colour is taken as it is stored, as Pillow's `convert("RGB")` does.
    #[default]
    Ignored,
    /// They are laid over this colour.
    Over([u8; 3]),
}

/// What is too large to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PictureLimits {
    /// Most pixels.
    pub pixels: u64,
    /// Most bytes that decoding may take.
    pub memory: u64,
}

impl Default for PictureLimits {
    /// 200 million pixels, 1 GiB.
    fn default() -> Self {
        Self { pixels: 200_000_000, memory: 1 << 30 }
    }
}

impl Picture {
    /// Reads a PNG, JPEG, WebP, GIF (its first frame), BMP or TIFF file (its first page), told
    /// apart by its first bytes, upright as its EXIF orientation says; transparency is
    /// [`Transparency::Ignored`].
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be opened; [`Error::Media`] when it is empty, of another
    /// format, broken, or too large ([`PictureLimits`]).
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(path, Transparency::default(), PictureLimits::default())
    }

    /// The same with other settings.
    ///
    /// # Errors
    /// As [`Picture::open`].
    pub fn open_with(
        path: impl AsRef<Path>,
        transparency: Transparency,
        limits: PictureLimits,
    ) -> Result<Self> {
        let path = path.as_ref();
        let file = File::open(path).map_err(|e| Error::io("read", path, e))?;
        let reader = std::io::BufReader::new(file);
        decode(&path.display().to_string(), ImageReader::new(reader), transparency, limits)
    }

    /// The picture as a PNG file.
    ///
    /// # Errors
    /// [`Error::Media`] for a picture too large for the format.
    pub fn to_png(&self) -> Result<Vec<u8>> {
        let mut png = Vec::new();
        let size = (self.width() as u32, self.height() as u32);
        PngEncoder::new(&mut png)
            .write_image(self.rgb(), size.0, size.1, ExtendedColorType::Rgb8)
            .map_err(|e| {
                let found = format!("{} x {} ({e})", self.width(), self.height());
                Error::media("PNG")
                    .expected("a picture of fewer than 2^31 pixels a side")
                    .found(found)
                    .fix("shrink it")
            })?;
        Ok(png)
    }

    /// Reads a file that is in memory; `name` is for messages.
    ///
    /// # Errors
    /// As [`Picture::open`].
    pub fn from_bytes(
        name: &str,
        bytes: &[u8],
        transparency: Transparency,
        limits: PictureLimits,
    ) -> Result<Self> {
        decode(name, ImageReader::new(Cursor::new(bytes)), transparency, limits)
    }
}

fn decode<R: BufRead + Seek>(
    name: &str,
    reader: ImageReader<R>,
    transparency: Transparency,
    limits: PictureLimits,
) -> Result<Picture> {
    let reader = reader.with_guessed_format().map_err(|e| Error::io("read", name, e))?;
    if reader.format() == Some(ImageFormat::Jpeg) {
        // The decoder fills what is missing with grey, so a cut file has to be found before.
        let bytes = read_all(name, reader.into_inner(), limits)?;
        if !jpeg::is_whole(&bytes) {
            return Err(not_whole(name, "a JPEG that ends early, without its end-of-image marker"));
        }
        let decoder = JpegDecoder::new(Cursor::new(bytes)).map_err(|e| broken(name, e))?;
        return finish(name, decoder, transparency, limits);
    }
    finish(name, reader.into_decoder().map_err(|e| broken(name, e))?, transparency, limits)
}

/// The bytes of a file, which may not be larger than the memory that decoding may take.
fn read_all(name: &str, mut reader: impl Read, limits: PictureLimits) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let most = limits.memory.saturating_add(1);
    reader.by_ref().take(most).read_to_end(&mut bytes).map_err(|e| Error::io("read", name, e))?;
    if bytes.len() as u64 == most {
        return Err(Error::media(name)
            .expected(format!("a file of at most {} bytes", limits.memory))
            .found("a larger one")
            .fix("leave it out, or raise the limit if this size is intended"));
    }
    Ok(bytes)
}

fn finish(
    name: &str,
    mut decoder: impl ImageDecoder,
    transparency: Transparency,
    limits: PictureLimits,
) -> Result<Picture> {
    let broken = |e: image::ImageError| broken(name, e);
    let (width, height) = decoder.dimensions();
    within(name, width, height, limits)?;
    let mut bounds = Limits::default();
    bounds.max_alloc = Some(limits.memory);
    decoder.set_limits(bounds).map_err(broken)?;
    let orientation = decoder.orientation().map_err(broken)?;
    let mut image = DynamicImage::from_decoder(decoder).map_err(broken)?;
    image.apply_orientation(orientation);
    flatten(image, transparency)
}

/// Checks the size of a picture before it is decoded.
pub(super) fn within(name: &str, width: u32, height: u32, limits: PictureLimits) -> Result<()> {
    let pixels = u64::from(width) * u64::from(height);
    if pixels == 0 || pixels > limits.pixels {
        return Err(Error::media(name)
            .expected(format!("a picture of 1 to {} pixels", limits.pixels))
            .found(format!("{width} x {height}"))
            .fix("leave it out, or raise the limit if this size is intended"));
    }
    Ok(())
}

/// Without transparency.
pub(super) fn flatten(image: DynamicImage, transparency: Transparency) -> Result<Picture> {
    let rgb = match transparency {
        Transparency::Over(below) if image.color().has_alpha() => over(&image.into_rgba8(), below),
        _ => image.into_rgb8(),
    };
    let (width, height) = rgb.dimensions();
    Picture::new(width as usize, height as usize, rgb.into_raw())
}

fn over(image: &RgbaImage, below: [u8; 3]) -> image::RgbImage {
    image::RgbImage::from_fn(image.width(), image.height(), |x, y| {
        let [r, g, b, alpha] = image.get_pixel(x, y).0;
        let mix = |above: u8, below: u8| {
            let sum =
                u32::from(above) * u32::from(alpha) + u32::from(below) * (255 - u32::from(alpha));
            ((sum + 127) / 255) as u8
        };
        image::Rgb([mix(r, below[0]), mix(g, below[1]), mix(b, below[2])])
    })
}

/// Why a picture could not be read.
pub(super) fn broken(name: &str, error: image::ImageError) -> Error {
    use image::ImageError as Cause;
    match error {
        Cause::Limits(e) => Error::media(name)
            .expected("a picture within the limits of memory")
            .found(e.to_string())
            .fix("leave it out, or raise the limit if this size is intended"),
        Cause::Unsupported(_) => Error::media(name)
            .expected(FORMATS)
            .found("an empty file, or one of another format")
            .fix("convert it, or leave it out"),
        Cause::IoError(e) if e.kind() != std::io::ErrorKind::UnexpectedEof => {
            Error::io("read", name, e)
        }
        other => not_whole(name, other.to_string()),
    }
}

/// A file that is damaged or ends early.
fn not_whole(name: &str, found: impl Into<String>) -> Error {
    let expected = format!("a complete file: {FORMATS}");
    Error::media(name)
        .expected(expected)
        .found(found.into())
        .fix("download it again, or leave it out")
}
