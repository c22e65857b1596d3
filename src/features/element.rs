//! Numbers as files hold them, and their conversion to `f32`.

use std::io::{self, Read};

use half::{
    bf16, f16,
    slice::{HalfBitsSliceExt, HalfFloatSliceExt},
};

/// Bytes decoded at a time; a multiple of every width.
const PIECE: usize = 1 << 16;

/// How one number is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Element {
    pub(super) kind: Kind,
    pub(super) big_endian: bool,
}

/// The floating-point formats that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    F16,
    BF16,
    F32,
    F64,
}

/// Why a payload could not be decoded.
#[derive(Debug)]
pub(super) enum Fault {
    Io(io::Error),
    /// A finite number that `f32` cannot hold, at this place in the file's order.
    TooLarge {
        index: usize,
        value: f64,
    },
}

impl Fault {
    /// The same where so many numbers are before those that were converted.
    fn behind(self, numbers: usize) -> Self {
        match self {
            Self::TooLarge { index, value } => Self::TooLarge { index: numbers + index, value },
            fault => fault,
        }
    }
}

impl Element {
    pub(super) fn little(kind: Kind) -> Self {
        Self { kind, big_endian: false }
    }

    /// Bytes of one number.
    pub(super) fn width(self) -> usize {
        match self.kind {
            Kind::F16 | Kind::BF16 => 2,
            Kind::F32 => 4,
            Kind::F64 => 8,
        }
    }

    /// Whether a little-endian machine can use the bytes as they are.
    pub(super) fn is_native(self) -> bool {
        self.kind == Kind::F32 && !self.big_endian
    }

    /// Reads `count` numbers.
    ///
    /// Memory grows with what the reader really yields, at most to `count` numbers: a count that
    /// lies cannot exhaust the memory.
    pub(super) fn decode(self, mut reader: impl Read, count: usize) -> Result<Vec<f32>, Fault> {
        let mut numbers = Vec::new();
        let mut piece = vec![0; PIECE.min(count.saturating_mul(self.width()))];
        while numbers.len() < count {
            let bytes = PIECE.min((count - numbers.len()).saturating_mul(self.width()));
            reader.read_exact(&mut piece[..bytes]).map_err(Fault::Io)?;
            let start = numbers.len();
            numbers.resize(start + bytes / self.width(), 0.0);
            let converted = self.convert(&piece[..bytes], &mut numbers[start..]);
            converted.map_err(|fault| fault.behind(start))?;
        }
        Ok(numbers)
    }

    /// Converts as many numbers as `out` has room for; `bytes` holds exactly these.
    ///
    /// # Panics
    /// When `bytes` has another length.
    pub(super) fn convert(self, bytes: &[u8], out: &mut [f32]) -> Result<(), Fault> {
        assert_eq!(bytes.len(), out.len() * self.width(), "one item for each number");
        let as_it_lies = cfg!(target_endian = "little") && !self.big_endian;
        match (self.kind, bytemuck::try_cast_slice::<u8, u16>(bytes)) {
            (Kind::F16, Ok(halves)) if as_it_lies => {
                halves.reinterpret_cast::<f16>().convert_to_f32_slice(out);
            }
            (Kind::BF16, Ok(halves)) if as_it_lies => {
                halves.reinterpret_cast::<bf16>().convert_to_f32_slice(out);
            }
            (Kind::F16, _) => fill(out, self.items(bytes).map(|x| f16::from_le_bytes(x).to_f32())),
            (Kind::BF16, _) => {
                fill(out, self.items(bytes).map(|x| bf16::from_le_bytes(x).to_f32()));
            }
            (Kind::F32, _) => fill(out, self.items(bytes).map(f32::from_le_bytes)),
            (Kind::F64, _) => {
                for (index, (value, out)) in
                    self.items(bytes).map(f64::from_le_bytes).zip(out).enumerate()
                {
                    *out = value as f32;
                    if out.is_infinite() && value.is_finite() {
                        return Err(Fault::TooLarge { index, value });
                    }
                }
            }
        }
        Ok(())
    }

    /// The bytes of each number, little-endian.
    fn items<const WIDTH: usize>(self, bytes: &[u8]) -> impl Iterator<Item = [u8; WIDTH]> {
        bytes.as_chunks::<WIDTH>().0.iter().map(move |item| {
            let mut item = *item;
            if self.big_endian {
                item.reverse();
            }
            item
        })
    }
}

fn fill(out: &mut [f32], numbers: impl Iterator<Item = f32>) {
    out.iter_mut().zip(numbers).for_each(|(out, number)| *out = number);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_every_kind_in_both_byte_orders() {
        let values = [0.0f32, -0.0, 1.5, -2.0, 65504.0 / 2.0, f32::INFINITY];
        let encode = |kind, value: f32| match kind {
            Kind::F16 => f16::from_f32(value).to_le_bytes().to_vec(),
            Kind::BF16 => bf16::from_f32(value).to_le_bytes().to_vec(),
            Kind::F32 => value.to_le_bytes().to_vec(),
            Kind::F64 => f64::from(value).to_le_bytes().to_vec(),
        };
        for kind in [Kind::F16, Kind::BF16, Kind::F32, Kind::F64] {
            for big_endian in [false, true] {
                let element = Element { kind, big_endian };
                let bytes: Vec<u8> = values
                    .iter()
                    .flat_map(|&value| {
                        let mut item = encode(kind, value);
                        if big_endian {
                            item.reverse();
                        }
                        item
                    })
                    .collect();
                assert_eq!(bytes.len(), values.len() * element.width());
                let expected: Vec<f32> = values
                    .iter()
                    .map(|&value| match kind {
                        Kind::F16 => f16::from_f32(value).to_f32(),
                        Kind::BF16 => bf16::from_f32(value).to_f32(),
                        _ => value,
                    })
                    .collect();
                let found = element.decode(&bytes[..], values.len()).unwrap();
                assert_eq!(found, expected, "{element:?}");
                // The payload of a file may start at any byte.
                let shifted = [&[0][..], &bytes].concat();
                for bytes in [&bytes[..], &shifted[1..]] {
                    let mut out = vec![f32::NAN; values.len()];
                    element.convert(bytes, &mut out).unwrap();
                    assert_eq!(out, expected, "{element:?}");
                }
            }
        }
    }

    #[test]
    fn a_count_that_lies_is_an_error_and_not_an_allocation() {
        for kind in [Kind::F16, Kind::F64] {
            let found = Element::little(kind).decode(&[0u8; 100][..], usize::MAX);
            assert!(matches!(found, Err(Fault::Io(_))));
        }
    }

    #[test]
    fn doubles_beyond_f32_are_named_and_infinities_kept() {
        let bytes: Vec<u8> = [1.0, f64::NEG_INFINITY, 1e39]
            .iter()
            .flat_map(|value: &f64| value.to_le_bytes())
            .collect();
        let element = Element::little(Kind::F64);
        assert_eq!(element.decode(&bytes[..16], 2).unwrap(), [1.0, f32::NEG_INFINITY]);
        let fault = element.decode(&bytes[..], 3);
        assert!(matches!(fault, Err(Fault::TooLarge { index: 2, value }) if value == 1e39));
        let fault = element.convert(&bytes, &mut [0.0; 3]);
        assert!(matches!(fault, Err(Fault::TooLarge { index: 2, value }) if value == 1e39));
    }
}
