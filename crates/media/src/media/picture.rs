//! Pictures in memory: pixels, crops, and the numbers that encoders take.

use cart_retrieval::{Error, Result};

/// A picture of 8-bit red, green and blue, row by row from the top left.
///
/// # Example
/// ```
/// use cart_media::Picture;
/// let red = Picture::new(4, 2, [255, 0, 0].repeat(8))?;
/// assert_eq!(red.center_crop(2, 2)?.pixel(1, 0), [255, 0, 0]);
/// # Ok::<(), cart_retrieval::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    width: usize,
    height: usize,
    rgb: Vec<u8>,
}

impl Picture {
    /// A picture from its pixels, `[height, width, 3]`.
    ///
    /// # Errors
    /// [`Error::Media`] when there are no pixels, or another number of bytes.
    pub fn new(width: usize, height: usize, rgb: Vec<u8>) -> Result<Self> {
        let wanted = width.checked_mul(height).and_then(|pixels| pixels.checked_mul(3));
        if rgb.is_empty() || wanted != Some(rgb.len()) {
            return Err(Error::media("picture")
                .expected(format!("3 bytes for each of {width} x {height} pixels, at least one"))
                .found(format!("{} bytes", rgb.len()))
                .fix("pass red, green and blue of every pixel, row by row"));
        }
        Ok(Self { width, height, rgb })
    }

    /// Width in pixels.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Height in pixels.
    pub fn height(&self) -> usize {
        self.height
    }

    /// The pixels, `[height, width, 3]`.
    pub fn rgb(&self) -> &[u8] {
        &self.rgb
    }

    /// Red, green and blue of a pixel.
    ///
    /// # Panics
    /// When it lies outside of the picture.
    pub fn pixel(&self, x: usize, y: usize) -> [u8; 3] {
        assert!(x < self.width && y < self.height, "{x}, {y} of {} x {}", self.width, self.height);
        let at = (y * self.width + x) * 3;
        [self.rgb[at], self.rgb[at + 1], self.rgb[at + 2]]
    }

    /// The middle of the picture; where it is smaller, black around it. With an odd number of
    /// pixels to share between two sides, the top and the left lose the smaller half.
    ///
    /// # Errors
    /// [`Error::Media`] for a size of zero, or one beyond 2^31 pixels.
    pub fn center_crop(&self, width: usize, height: usize) -> Result<Self> {
        let pixels = (width as u64).saturating_mul(height as u64);
        if pixels == 0 || pixels > 1 << 31 {
            let found = format!("{width} x {height}");
            let remedy = "choose another size";
            return Err(Error::media("size of a picture")
                .expected("1 to 2^31 pixels")
                .found(found)
                .fix(remedy));
        }
        let mut rgb = vec![0; width * height * 3];
        // Where the crop starts in the picture, and the picture in the crop.
        let offsets = |own: usize, wanted: usize| {
            ((own.saturating_sub(wanted)) / 2, (wanted.saturating_sub(own)) / 2)
        };
        let (from_x, to_x) = offsets(self.width, width);
        let (from_y, to_y) = offsets(self.height, height);
        let (columns, rows) = (width.min(self.width), height.min(self.height));
        for row in 0..rows {
            let from = ((from_y + row) * self.width + from_x) * 3;
            let to = ((to_y + row) * width + to_x) * 3;
            rgb[to..to + columns * 3].copy_from_slice(&self.rgb[from..from + columns * 3]);
        }
        Self::new(width, height, rgb)
    }

    /// Numbers for an encoder: each channel divided by 255, less its mean, over its deviation.
    ///
    /// # Shapes
    /// - returns: `[3, height, width]`
    pub fn normalised(&self, mean: [f32; 3], deviation: [f32; 3]) -> Vec<f32> {
        self.scaled(1.0 / 255.0, mean, deviation)
    }

    /// Numbers for an encoder: each channel times a factor, less its mean, over its deviation.
    ///
    /// # Shapes
    /// - returns: `[3, height, width]`
    pub fn scaled(&self, factor: f64, mean: [f32; 3], deviation: [f32; 3]) -> Vec<f32> {
        let mut planes = Vec::with_capacity(self.rgb.len());
        for channel in 0..3 {
            let (mean, deviation) = (mean[channel], deviation[channel]);
            let table: [f32; 256] =
                std::array::from_fn(|value| ((value as f64 * factor) as f32 - mean) / deviation);
            let values = self.rgb.iter().skip(channel).step_by(3);
            planes.extend(values.map(|&value| table[usize::from(value)]));
        }
        planes
    }
}
