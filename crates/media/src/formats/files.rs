//! Files as the sets publish them: JSON, lines, tables with a line of column names.

use std::path::Path;

use cart_retrieval::{Error, Result, members::read_limited};

/// The longest file that is read.
const LONGEST_FILE: u64 = 1 << 32;

/// The bytes of a file, without a byte order mark.
fn read(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = read_limited(path, LONGEST_FILE)?;
    if bytes.starts_with(b"\xEF\xBB\xBF") {
        bytes.drain(..3);
    }
    Ok(bytes)
}

/// Reads JSON of a known shape.
pub(super) fn parse<T: serde::de::DeserializeOwned>(path: &Path, shape: &str) -> Result<T> {
    serde_json::from_slice(&read(path)?).map_err(|e| {
        Error::captions(path.display().to_string())
            .expected(shape)
            .found(e.to_string())
            .fix("name the original file of the data set, or download it again")
    })
}

/// Lines with their numbers, without comments and blank ones.
pub(super) fn lines(path: &Path) -> Result<Vec<(usize, String)>> {
    let text = String::from_utf8(read(path)?).map_err(|e| {
        Error::captions(path.display().to_string())
            .expected("text in UTF-8")
            .found(format!("other bytes at {}", e.utf8_error().valid_up_to()))
            .fix("convert the file to UTF-8")
    })?;
    let lines = (1..).zip(text.lines().map(str::trim));
    let kept = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    Ok(kept.map(|(number, line)| (number, line.to_string())).collect())
}

/// A line of a table.
pub(super) struct Row<'a> {
    file: &'a Path,
    names: &'a [&'static str],
    columns: &'a [usize],
    line: u64,
    record: csv::StringRecord,
}

impl Row<'_> {
    /// The value of a column, by its place among those that were asked for.
    pub(super) fn get(&self, column: usize) -> &str {
        self.record.get(self.columns[column]).unwrap_or_default().trim()
    }

    /// The same, which must not be blank.
    pub(super) fn required(&self, column: usize) -> Result<&str> {
        match self.get(column) {
            "" => Err(Error::captions(self.at())
                .expected(format!("a value in column `{}`", self.names[column]))
                .found("none")
                .fix("correct the line, or download the file again")),
            value => Ok(value),
        }
    }

    /// The same, as a number that is not negative.
    pub(super) fn seconds(&self, column: usize) -> Result<f64> {
        let text = self.required(column)?;
        let number = text.parse().ok().filter(|n: &f64| n.is_finite() && *n >= 0.0);
        number.ok_or_else(|| {
            Error::captions(self.at())
                .expected(format!("seconds in column `{}`", self.names[column]))
                .found(format!("{text:?}"))
                .fix("correct the line, or download the file again")
        })
    }

    /// Where it is.
    pub(super) fn at(&self) -> String {
        format!("{}:{}", self.file.display(), self.line)
    }
}

/// Reads a table with at least these columns, whatever their order, and hands over every line.
pub(super) fn read_table(
    path: &Path,
    columns: &[&'static str],
    mut each: impl FnMut(&Row<'_>) -> Result<()>,
) -> Result<()> {
    let bytes = read(path)?;
    let file = path.display().to_string();
    let mut reader = csv::ReaderBuilder::new().from_reader(bytes.as_slice());
    let broken = |e: csv::Error| {
        let line = e.position().map_or(String::new(), |at| format!(":{}", at.line()));
        let found = match e.kind() {
            csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
                format!("{len} values where the first line names {expected_len} columns")
            }
            csv::ErrorKind::Utf8 { .. } => "bytes that are not UTF-8".into(),
            _ => e.to_string(),
        };
        Error::captions(format!("{file}{line}"))
            .expected("comma-separated values in UTF-8")
            .found(found)
            .fix("correct the line, or download the file again")
    };
    let names = reader.headers().map_err(broken)?.clone();
    let place = |column: &&'static str| {
        names.iter().position(|name| name.trim() == *column).ok_or_else(|| {
            Error::captions(&file)
                .expected(format!("the columns {}", columns.join(", ")))
                .found(format!("{} (no `{column}`)", names.iter().collect::<Vec<_>>().join(", ")))
                .fix(
                    "name the original file of the data set; its first line has the names of the \
                 columns",
                )
        })
    };
    let places = columns.iter().map(place).collect::<Result<Vec<_>>>()?;
    for record in reader.records() {
        let record = record.map_err(broken)?;
        let line = record.position().map_or(0, |position| position.line());
        each(&Row { file: path, names: columns, columns: &places, line, record })?;
    }
    Ok(())
}
