//! The filters that pictures are resized with.

/// How pixels between pixels are found. All filters but the first widen when they shrink a picture,
/// as those of Pillow do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Filter {
    /// The nearest pixel.
    Nearest,
    /// The mean of the pixels that a new one covers.
    Box,
    /// Linear.
    Bilinear,
    /// Linear under Hamming's window: sharper than `Bilinear`.
    Hamming,
    /// Cubic of Catmull and Rom, a = -1/2.
    #[default]
    Bicubic,
    /// Windowed sinc of three lobes.
    Lanczos,
}
