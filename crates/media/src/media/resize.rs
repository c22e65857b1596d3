//! Pictures in other sizes.

use cart_retrieval::{Error, Result};
use fast_image_resize::{
    FilterType, ResizeAlg, ResizeOptions, Resizer,
    images::{TypedImage, TypedImageRef},
    pixels::U8x3,
};

use super::{Filter, Picture};

/// Most pixels that [`Picture::shorter_side`] gives.
const MOST_PIXELS: u128 = 1 << 26;

impl Picture {
    /// The picture in another size.
    ///
    /// # Errors
    /// [`Error::Media`] for a size of zero or one beyond 2^31 pixels.
    pub fn resized(&self, width: usize, height: usize, filter: Filter) -> Result<Self> {
        if (width, height) == (self.width(), self.height()) {
            return Ok(self.clone());
        }
        let wrong = |found: String| {
            Error::media("size of a picture")
                .expected("1 to 2^31 pixels")
                .found(found)
                .fix("choose another size")
        };
        let pixels = (width as u64).saturating_mul(height as u64);
        if pixels == 0 || pixels > 1 << 31 {
            return Err(wrong(format!("{width} x {height}")));
        }
        let algorithm = match filter {
            Filter::Nearest => ResizeAlg::Nearest,
            Filter::Box => ResizeAlg::Convolution(FilterType::Box),
            Filter::Bilinear => ResizeAlg::Convolution(FilterType::Bilinear),
            Filter::Hamming => ResizeAlg::Convolution(FilterType::Hamming),
            Filter::Bicubic => ResizeAlg::Convolution(FilterType::CatmullRom),
            Filter::Lanczos => ResizeAlg::Convolution(FilterType::Lanczos3),
        };
        let options = ResizeOptions::new().resize_alg(algorithm);
        let pass = |from: &Self, width: usize, height: usize| {
            let (from_width, from_height) = (from.width() as u32, from.height() as u32);
            // Typed: `Resizer::resize` would compile every type of pixel that there is.
            let pixels = TypedImageRef::<U8x3>::from_buffer(from_width, from_height, from.rgb())
                .map_err(|e| wrong(e.to_string()))?;
            let mut rgb = vec![0; 3 * width * height];
            let mut to = TypedImage::<U8x3>::from_buffer(width as u32, height as u32, &mut rgb)
                .map_err(|e| wrong(e.to_string()))?;
            Resizer::new()
                .resize_typed(&pixels, &mut to, &options)
                .map_err(|e| wrong(e.to_string()))?;
            drop(to);
            Self::new(width, height, rgb)
        };
        // Rows first, as Pillow does: what is rounded between the passes is then the same.
        pass(&pass(self, width, self.height())?, width, height)
    }

    /// The picture resized so that its shorter side has a length, the longer one in proportion,
    /// rounded down.
    ///
    /// # Errors
    /// As [`Picture::resized`]; [`Error::Media`] also for a picture so long and narrow that it
    /// would get more than 2^26 pixels.
    pub fn shorter_side(&self, length: usize, filter: Filter) -> Result<Self> {
        let scaled = |side: usize, shorter: usize| {
            (side as u128 * length as u128 / shorter as u128).min(u32::MAX.into()) as usize
        };
        let (width, height) = if self.width() <= self.height() {
            (length, scaled(self.height(), self.width()))
        } else {
            (scaled(self.width(), self.height()), length)
        };
        if width as u128 * height as u128 > MOST_PIXELS {
            return Err(Error::media("picture to resize")
                .expected(format!("at most {MOST_PIXELS} pixels with a shorter side of {length}"))
                .found(format!(
                    "{width} x {height}, as it has {} x {} pixels",
                    self.width(),
                    self.height()
                ))
                .fix("crop it: it is too long and narrow"));
        }
        self.resized(width, height, filter)
    }
}
