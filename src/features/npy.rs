//! The `.npy` format: its header, and writing it.
//!
//! Format: <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>.

use std::io::{self, Write};

use npyz::{DType, Endianness, NpyHeader, Order, TypeChar};

use super::{
    element::{Element, Kind},
    layout::Description,
    screen::screen,
};
use crate::error::{Error, Result};

/// The first bytes of every file.
const MAGIC: &[u8; 6] = b"\x93NUMPY";
/// The longest header that is read; numpy writes 128 bytes for a matrix.
pub(super) const LONGEST_HEADER: usize = 1 << 16;
/// Payloads that this library writes start at a multiple of this, as numpy's do.
const ALIGNMENT: usize = 64;

/// Parses the header at the start of `bytes`; also returns where the payload starts.
///
/// `bytes` is the file, or at least its first [`LONGEST_HEADER`] bytes.
pub(super) fn parse(subject: &str, bytes: &[u8]) -> Result<(Description, usize)> {
    let wrong = |expected: &str, found: String| {
        Error::features(subject)
            .expected(expected)
            .found(found)
            .fix("save the matrix with `numpy.save`, or fetch the file again")
    };
    let Some((version, rest)) = bytes.strip_prefix(MAGIC).and_then(|rest| rest.split_at_checked(2))
    else {
        let start = bytes.get(..bytes.len().min(8)).unwrap_or_default();
        return Err(wrong("a .npy file, which starts with \\x93NUMPY", format!("{start:02x?}")));
    };
    let truncated = || wrong("a complete .npy header", format!("only {} bytes", bytes.len()));
    let (length, start) = match version {
        [1, 0] => {
            let length = rest.first_chunk::<2>().ok_or_else(truncated)?;
            (usize::from(u16::from_le_bytes(*length)), 10)
        }
        [2 | 3, 0] => {
            let length = rest.first_chunk::<4>().ok_or_else(truncated)?;
            (usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX), 12)
        }
        _ => {
            return Err(wrong(
                ".npy version 1.0, 2.0 or 3.0",
                format!("version {}.{}", version[0], version[1]),
            ));
        }
    };
    if length > LONGEST_HEADER - start {
        return Err(wrong(
            &format!("a header of at most {} bytes", LONGEST_HEADER - start),
            format!("one of {length} bytes"),
        ));
    }
    let end = start + length;
    let text = bytes.get(start..end).ok_or_else(truncated)?;
    let plain = "a header that describes a plain array";
    screen(text).map_err(|found| wrong(plain, found))?;
    let header = NpyHeader::from_reader(&bytes[..end])
        .map_err(|source| wrong(plain, format!("one that cannot be parsed ({source})")))?;
    let (element, type_name) = element(&header.dtype());
    let description = Description {
        shape: header.shape().to_vec(),
        element,
        type_name,
        fortran: header.order() == Order::Fortran,
    };
    Ok((description, end))
}

/// The number format, if it is read, and its name.
fn element(dtype: &DType) -> (Option<Element>, String) {
    let name = dtype.descr();
    let DType::Plain(plain) = dtype else {
        return (None, name);
    };
    let kind = match (plain.type_char(), plain.size_field()) {
        (TypeChar::Float, 2) => Some(Kind::F16),
        (TypeChar::Float, 4) => Some(Kind::F32),
        (TypeChar::Float, 8) => Some(Kind::F64),
        _ => None,
    };
    let big_endian = plain.endianness() == Endianness::Big;
    (kind.map(|kind| Element { kind, big_endian }), name)
}

/// Writes a little-endian row-major `f32` matrix, version 1.0.
pub(super) fn write(out: &mut impl Write, numbers: &[f32], dim: usize) -> io::Result<()> {
    let rows = numbers.len() / dim;
    let mut text =
        format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {dim}), }}");
    let fixed = MAGIC.len() + 4;
    let total = (fixed + text.len() + 1).next_multiple_of(ALIGNMENT);
    text.extend(std::iter::repeat_n(' ', total - fixed - text.len() - 1));
    text.push('\n');
    // Two numbers of at most 20 digits: the text is far below 65536 bytes.
    let length = text.len() as u16;

    out.write_all(MAGIC)?;
    out.write_all(&[1, 0])?;
    out.write_all(&length.to_le_bytes())?;
    out.write_all(text.as_bytes())?;
    let mut bytes = Vec::with_capacity(1 << 16);
    for piece in numbers.chunks(1 << 14) {
        bytes.clear();
        bytes.extend(piece.iter().flat_map(|number| number.to_le_bytes()));
        out.write_all(&bytes)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn npyz_reads_what_is_written() {
        let numbers: Vec<f32> = (0..40_000).map(|i| i as f32 / 7.0).collect();
        let mut bytes = Vec::new();
        write(&mut bytes, &numbers, 8).unwrap();
        let file = npyz::NpyFile::new(&bytes[..]).unwrap();
        assert_eq!(file.shape(), [5000, 8]);
        assert_eq!(file.into_vec::<f32>().unwrap(), numbers);
        let (description, start) = parse("x", &bytes).unwrap();
        assert_eq!(start % ALIGNMENT, 0);
        assert_eq!(bytes.len() - start, numbers.len() * 4);
        assert_eq!((description.shape, description.fortran), (vec![5000, 8], false));
    }

    proptest! {
        #[test]
        fn any_bytes_give_a_header_or_an_error(
            version in 0u8..4,
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let mut file = MAGIC.to_vec();
            file.extend([version, 0]);
            file.extend(bytes);
            let _ = parse("x", &file);
        }

        #[test]
        fn any_header_text_gives_a_header_or_an_error(
            text in r"\{('descr': '[<>|=]?[a-zO][0-9]{0,3}', )?('fortran_order': (True|False), )?('shape': \([0-9]{0,20}(, ?[0-9]{0,20}){0,3},?\), ?)?[\[\](){},:' 0-9]{0,12}\}?"
        ) {
            let mut file = MAGIC.to_vec();
            file.extend([1, 0]);
            file.extend((text.len() as u16).to_le_bytes());
            file.extend(text.as_bytes());
            if let Ok((_, start)) = parse("x", &file) {
                prop_assert_eq!(start, file.len());
            }
        }
    }
}
