//! From an array's description in a file to a matrix: the checks all formats share.

use std::io::Read;

use rayon::prelude::*;

use super::element::{Element, Fault};
use crate::error::{Error, Result};

/// Rows moved together when columns become rows: one cache line of `f32`.
const BLOCK: usize = 16;

/// What a file says about an array; nothing of it is verified yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Description {
    pub(super) shape: Vec<u64>,
    /// The number format, or none when it is not one that is read.
    pub(super) element: Option<Element>,
    /// The number format in the file's own words.
    pub(super) type_name: String,
    /// Whether columns, not rows, are contiguous.
    pub(super) fortran: bool,
}

/// A matrix whose size agrees with the bytes that are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) rows: usize,
    pub(super) dim: usize,
    pub(super) element: Element,
    pub(super) fortran: bool,
}

impl Layout {
    /// Holds a description against the `available` bytes of its payload.
    pub(super) fn new(subject: &str, description: &Description, available: u64) -> Result<Self> {
        let shape = shape_text(&description.shape);
        let wrong = |expected: &str, found: String, remedy: &str| {
            Err(Error::features(subject).expected(expected).found(found).fix(remedy))
        };
        let Some(element) = description.element else {
            return wrong(
                "f32 numbers (or f16, bf16, f64, which are converted)",
                format!("the type {}", description.type_name),
                "convert the array first, in numpy with `array.astype('float32')`",
            );
        };
        let &[rows, dim] = description.shape.as_slice() else {
            return wrong(
                "two dimensions, [items, numbers per item]",
                format!("shape {shape}"),
                "reshape the array to one row per item",
            );
        };
        if rows == 0 || dim == 0 {
            return wrong(
                "at least one row and one column",
                format!("shape {shape}"),
                "check the program that wrote the features",
            );
        }
        if rows > u64::from(u32::MAX) {
            return wrong(
                "at most 4294967295 rows",
                format!("shape {shape}"),
                "check the header, or split the candidates over several indexes",
            );
        }
        let needed =
            rows.checked_mul(dim).and_then(|count| count.checked_mul(element.width() as u64));
        let sizes = (usize::try_from(rows), usize::try_from(dim));
        let (Some(needed), (Ok(rows), Ok(dim))) = (needed, sizes) else {
            return wrong(
                "a size that fits the address space",
                format!("shape {shape}"),
                "the header is damaged; make or fetch the file again",
            );
        };
        if needed != available {
            return wrong(
                &format!("{needed} bytes for shape {shape} of {}", description.type_name),
                format!("{available} bytes"),
                if needed > available {
                    "the file is truncated; make or fetch it again"
                } else {
                    "the file holds more than one array or is damaged; save the features alone"
                },
            );
        }
        Ok(Self { rows, dim, element, fortran: description.fortran })
    }

    /// Whether the payload is a row-major `f32` matrix already.
    pub(super) fn is_native(self) -> bool {
        self.element.is_native() && !self.fortran
    }

    /// Reads the payload into row-major `f32`.
    pub(super) fn read(self, subject: &str, reader: impl Read) -> Result<Vec<f32>> {
        let numbers =
            self.element.decode(reader, self.rows * self.dim).map_err(|fault| match fault {
                Fault::Io(source) => Error::features(subject)
                    .expected(format!("a payload of {} x {} numbers", self.rows, self.dim))
                    .found(format!("an unreadable one ({source})"))
                    .fix("the file is damaged; make or fetch it again"),
                Fault::TooLarge { index, value } => {
                    let (row, column) = if self.fortran {
                        (index % self.rows, index / self.rows)
                    } else {
                        (index / self.dim, index % self.dim)
                    };
                    Error::features(subject)
                        .expected("numbers within the range of f32")
                        .found(format!("{value:e} in row {row}, column {column}"))
                        .fix("scale or clip the features")
                }
            })?;
        Ok(if self.fortran { self.columns_to_rows(&numbers) } else { numbers })
    }

    fn columns_to_rows(self, columns: &[f32]) -> Vec<f32> {
        let mut numbers = vec![0.0; columns.len()];
        numbers.par_chunks_mut(BLOCK * self.dim).enumerate().for_each(|(block, out)| {
            for (column, values) in columns.chunks_exact(self.rows).enumerate() {
                let values = &values[block * BLOCK..];
                for (row, &value) in out.chunks_exact_mut(self.dim).zip(values) {
                    row[column] = value;
                }
            }
        });
        numbers
    }
}

/// Picks the array to open: the named one, or the only one with two dimensions.
pub(super) fn choose(
    subject: &str,
    mut arrays: Vec<(String, Description)>,
    wanted: Option<&str>,
) -> Result<(String, Description)> {
    arrays.sort_by(|left, right| left.0.cmp(&right.0));
    let list = |arrays: &[(String, Description)]| {
        let mut list: Vec<_> = arrays
            .iter()
            .take(8)
            .map(|(name, array)| format!("\"{name}\" {}", shape_text(&array.shape)))
            .collect();
        if arrays.len() > list.len() {
            list.push(format!("{} more", arrays.len() - list.len()));
        }
        if list.is_empty() { "none".to_string() } else { list.join(", ") }
    };
    let Some(wanted) = wanted else {
        let all = list(&arrays);
        arrays.retain(|(_, array)| array.shape.len() == 2);
        return match arrays.len() {
            1 => Ok(arrays.swap_remove(0)),
            0 => Err(Error::features(subject)
                .expected("one array with two dimensions, [items, numbers per item]")
                .found(all)
                .fix("save the features as a matrix with one row per item")),
            _ => Err(Error::features(subject)
                .expected("one array with two dimensions")
                .found(list(&arrays))
                .fix("choose one with `Features::open_named(path, name)`")),
        };
    };
    match arrays.iter().position(|(name, _)| name == wanted) {
        Some(position) => Ok(arrays.swap_remove(position)),
        None => Err(Error::features(subject)
            .expected(format!("an array named \"{wanted}\""))
            .found(list(&arrays))
            .fix("use one of the names in the file")),
    }
}

/// A shape as people write it: `[3, 4]`.
fn shape_text(shape: &[u64]) -> String {
    format!("{shape:?}")
}

#[cfg(test)]
mod tests {
    use super::{super::element::Kind, *};

    #[test]
    fn columns_become_rows_like_the_slow_way() {
        for (rows, dim) in [(1, 1), (1, 7), (5, 3), (16, 2), (33, 4), (100, 1)] {
            let layout = Layout { rows, dim, element: Element::little(Kind::F32), fortran: true };
            let columns: Vec<f32> = (0..rows * dim).map(|i| i as f32).collect();
            let mut slow = Vec::new();
            for row in 0..rows {
                for column in 0..dim {
                    slow.push(columns[column * rows + row]);
                }
            }
            assert_eq!(layout.columns_to_rows(&columns), slow, "{rows} x {dim}");
        }
    }
}
