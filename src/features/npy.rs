//! The `.npy` format: its header, and writing it.
//!
//! Format: <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>.

use std::io::{self, Write};

use serde::Deserialize;
use serde_json::Value;

use super::{
    element::{Element, Kind},
    layout::Description,
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
    let header = header(text).map_err(|error| {
        let found = format!("one that cannot be parsed ({error})");
        wrong("a header that describes a plain array", found)
    })?;
    let type_name = header.descr.as_str().map_or(header.descr.to_string(), str::to_string);
    let kind = match type_name.trim_start_matches(['<', '>', '=']) {
        "f2" => Some(Kind::F16),
        "f4" => Some(Kind::F32),
        "f8" => Some(Kind::F64),
        _ => None,
    };
    let big_endian = type_name.starts_with('>');
    let element = kind.map(|kind| Element { kind, big_endian });
    let Header { shape, fortran_order: fortran, .. } = header;
    Ok((Description { shape, element, type_name, fortran }, end))
}

/// What a header says; `descr` is the number format, a text unless an item has several numbers.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    descr: Value,
    fortran_order: bool,
    shape: Vec<u64>,
}

/// Reads a header, which is a literal of Python, as JSON: of the two, it needs only quotes,
/// brackets, words and commas changed.
fn header(text: &[u8]) -> serde_json::Result<Header> {
    let mut json = String::with_capacity(text.len());
    for character in String::from_utf8_lossy(text).chars() {
        // Python has commas before closing brackets, too.
        if matches!(character, ')' | ']' | '}') {
            let before = json.trim_end();
            json.truncate(before.strip_suffix(',').unwrap_or(before).len());
        }
        json.push(match character {
            '\'' => '"',
            '(' => '[',
            ')' => ']',
            other => other,
        });
    }
    serde_json::from_str(&json.replace("False", "false").replace("True", "true"))
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
    fn writes_what_numpy_does() {
        let numbers: Vec<f32> = (0..40_000).map(|i| i as f32 / 7.0).collect();
        let mut bytes = Vec::new();
        write(&mut bytes, &numbers, 8).unwrap();
        let head =
            b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'fortran_order': False, 'shape': (5000, 8), }";
        assert_eq!(&bytes[..head.len()], head);
        assert_eq!(&bytes[head.len()..128], [&vec![b' '; 127 - head.len()][..], b"\n"].concat());
        assert_eq!(bytes[128..], numbers.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<_>>());
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
