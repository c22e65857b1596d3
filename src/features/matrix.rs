//! The feature matrix.

use std::{
    fmt,
    ops::Range,
    path::Path,
    sync::{Arc, OnceLock},
};

use rayon::prelude::*;

use super::{ids::ItemIds, npy, open};
use crate::{
    error::{Error, Result},
    kernels::normalise,
    storage::{Array, write_atomic},
};

/// Embeddings of the candidates: a row-major `[N, D]` matrix of `f32` and an id per row.
///
/// The numbers are owned or mapped from a file; both read the same, and clones share them. Until
/// ids are given, rows are called `"0"` to `"N-1"`, and [`Features::has_given_ids`] is false.
///
/// Invariants: `dim >= 1`; the buffer holds `len * dim` numbers; there are `len` ids.
///
/// # Example
/// ```no_run
/// use cart_retrieval::features::Features;
///
/// let items = Features::open("features.npy")?.with_ids("ids.txt")?;
/// let summary = items.check()?;
/// let first: &[f32] = items.row(0);
/// # Ok::<(), cart_retrieval::Error>(())
/// ```
#[derive(Clone)]
pub struct Features {
    buffer: Arc<Array<f32>>,
    len: usize,
    dim: usize,
    /// Numbered ids are made at their first use: a mapped file opens without touching its rows.
    ids: OnceLock<Arc<ItemIds>>,
    given_ids: bool,
}

impl Features {
    /// Opens a `.npy`, `.npz` or `.safetensors` file.
    ///
    /// A `.npz` or `.safetensors` file has to hold one array with two dimensions; others go with
    /// [`Features::open_named`]. Row-major little-endian `f32` in `.npy` and `.safetensors` is
    /// mapped into memory and read as it is used; `f16`, `bf16`, `f64`, big-endian numbers,
    /// column-major arrays and all of `.npz` are converted into memory. Do not change a mapped
    /// file in place: write a new one and rename it, as [`Features::save_npy`] does, or call
    /// [`Features::in_memory`].
    ///
    /// # Shapes
    /// The file's array is `[items, numbers per item]`, both at least one.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be read; [`Error::Features`] when it is empty,
    /// truncated or of another format, shape or number type.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let (buffer, dim) = open::open(path.as_ref(), None)?;
        Ok(Self::over(buffer, dim))
    }

    /// Opens the array called `name` in a `.npz` or `.safetensors` file.
    ///
    /// # Errors
    /// As [`Features::open`], and [`Error::Features`] when there is no such array.
    ///
    /// # Example
    /// ```no_run
    /// use cart_retrieval::features::Features;
    ///
    /// let items = Features::open_named("embeddings.npz", "image")?;
    /// # Ok::<(), cart_retrieval::Error>(())
    /// ```
    pub fn open_named(path: impl AsRef<Path>, name: &str) -> Result<Self> {
        let (buffer, dim) = open::open(path.as_ref(), Some(name))?;
        Ok(Self::over(buffer, dim))
    }

    /// A matrix over a flat buffer of rows of `dim` numbers.
    ///
    /// # Shapes
    /// `data` is `[N, dim]` row-major, N at least one.
    ///
    /// # Errors
    /// [`Error::Features`] when the buffer is empty or no whole number of rows.
    ///
    /// # Example
    /// ```
    /// use cart_retrieval::features::Features;
    ///
    /// let items = Features::from_rows(vec![1.0, 2.0, 3.0, 4.0], 2)?;
    /// assert_eq!(items.row(1), [3.0, 4.0]);
    /// assert_eq!(items.id(1), "1");
    /// # Ok::<(), cart_retrieval::Error>(())
    /// ```
    pub fn from_rows(data: Vec<f32>, dim: usize) -> Result<Self> {
        if dim == 0 || data.is_empty() || !data.len().is_multiple_of(dim) {
            return Err(Error::features("feature matrix")
                .expected("at least one whole row of at least one number")
                .found(format!("{} numbers in rows of {dim}", data.len()))
                .fix("pass the same count of numbers for every item"));
        }
        let len = data.len() / dim;
        if u32::try_from(len).is_err() {
            return Err(Error::features("feature matrix")
                .expected(format!("at most {} rows", u32::MAX))
                .found(len.to_string())
                .fix("split the candidates over several indexes"));
        }
        Ok(Self::over(data.into(), dim))
    }

    /// Names the rows by a UTF-8 text file with one id per line.
    ///
    /// # Errors
    /// As [`ItemIds::open`], and [`Error::Ids`] when there is not one id per row.
    pub fn with_ids(self, path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let ids = ItemIds::open(path)?;
        self.named(&path.display().to_string(), ids)
    }

    /// Names the rows by a list.
    ///
    /// # Errors
    /// As [`ItemIds::new`], and [`Error::Ids`] when there is not one id per row.
    ///
    /// # Example
    /// ```
    /// use cart_retrieval::features::Features;
    ///
    /// let items = Features::from_rows(vec![1.0, 2.0], 1)?;
    /// let items = items.with_id_list(vec!["dog".into(), "cat".into()])?;
    /// assert_eq!(items.id(1), "cat");
    /// # Ok::<(), cart_retrieval::Error>(())
    /// ```
    pub fn with_id_list(self, ids: Vec<String>) -> Result<Self> {
        self.with_item_ids(ItemIds::new(&ids)?)
    }

    /// Names the rows by ids that were checked before.
    ///
    /// # Errors
    /// [`Error::Ids`] when there is not one id per row.
    pub fn with_item_ids(self, ids: ItemIds) -> Result<Self> {
        self.named("the list of ids", ids)
    }

    fn named(mut self, subject: &str, ids: ItemIds) -> Result<Self> {
        if ids.len() != self.len {
            return Err(Error::ids(subject)
                .expected(format!("one id for each of {} rows", self.len))
                .found(format!("{} ids", ids.len()))
                .fix("use the ids that were saved with these features"));
        }
        self.ids = OnceLock::from(Arc::new(ids));
        self.given_ids = true;
        Ok(self)
    }

    /// Mean of the rows.
    ///
    /// # Shapes
    /// - returns: `[dim]`
    ///
    /// # Example
    /// ```
    /// use cart_retrieval::features::Features;
    ///
    /// let items = Features::from_rows(vec![1.0, 2.0, 3.0, 6.0], 2)?;
    /// assert_eq!(items.mean(), [2.0, 4.0]);
    /// # Ok::<(), cart_retrieval::Error>(())
    /// ```
    pub fn mean(&self) -> Vec<f32> {
        let mut mean = vec![0.0f64; self.dim()];
        for row in self.as_slice().chunks_exact(self.dim()) {
            for (sum, &value) in mean.iter_mut().zip(row) {
                *sum += f64::from(value) / self.len() as f64;
            }
        }
        mean.into_iter().map(|value| value as f32).collect()
    }

    /// Number of items, N.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no item; only an empty [`Features::select`] makes such a matrix.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Numbers per item, D.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Whether the numbers are read from a mapped file.
    pub fn is_mapped(&self) -> bool {
        self.buffer.is_mapped()
    }

    /// The numbers of one item, `[D]`.
    ///
    /// # Panics
    /// When `item` is out of range.
    pub fn row(&self, item: usize) -> &[f32] {
        self.rows(item..item + 1)
    }

    /// The numbers of consecutive items, `[range.len(), D]` row-major.
    ///
    /// # Panics
    /// When the range is out of range.
    ///
    /// # Example
    /// ```
    /// use cart_retrieval::features::Features;
    ///
    /// let items = Features::from_rows(vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 2)?;
    /// assert_eq!(items.rows(1..3), [3.0, 4.0, 5.0, 6.0]);
    /// # Ok::<(), cart_retrieval::Error>(())
    /// ```
    pub fn rows(&self, range: Range<usize>) -> &[f32] {
        &self.as_slice()[range.start * self.dim..range.end * self.dim]
    }

    /// All numbers, `[N, D]` row-major.
    pub fn as_slice(&self) -> &[f32] {
        &self.buffer
    }

    /// The id of an item.
    ///
    /// # Panics
    /// When `item` is out of range.
    pub fn id(&self, item: usize) -> &str {
        self.ids().get(item)
    }

    /// The row of an id.
    pub fn index_of(&self, id: &str) -> Option<usize> {
        self.ids().index_of(id)
    }

    /// The ids of all rows; numbered ones when none were given.
    pub fn ids(&self) -> &ItemIds {
        self.ids.get_or_init(|| Arc::new(ItemIds::numbered(self.len)))
    }

    /// Whether ids were given, rather than numbered.
    pub fn has_given_ids(&self) -> bool {
        self.given_ids
    }

    /// A copy of some rows, in the order given; items keep their ids.
    ///
    /// Without given ids, row 7 of `self` is still called `"7"` in the selection.
    ///
    /// # Panics
    /// When a row is out of range or named twice: ids are unique.
    ///
    /// # Example
    /// ```
    /// use cart_retrieval::features::Features;
    ///
    /// let items = Features::from_rows(vec![1.0, 2.0, 3.0], 1)?;
    /// let some = items.select(&[2, 0]);
    /// assert_eq!(some.as_slice(), [3.0, 1.0]);
    /// assert_eq!(some.id(0), "2");
    /// # Ok::<(), cart_retrieval::Error>(())
    /// ```
    pub fn select(&self, items: &[usize]) -> Self {
        let mut data = Vec::with_capacity(items.len() * self.dim);
        for &item in items {
            data.extend_from_slice(self.row(item));
        }
        let ids = match self.ids.get() {
            Some(ids) => ids.select(items),
            None => ItemIds::of_rows(items.iter().copied()),
        };
        Self {
            buffer: Arc::new(data.into()),
            len: items.len(),
            dim: self.dim,
            ids: OnceLock::from(Arc::new(ids)),
            given_ids: self.given_ids,
        }
    }

    /// A copy with every row divided by its L2 norm.
    ///
    /// All-zero rows stay zero and rows with NaN or infinities become NaN; [`Features::check`]
    /// names both.
    ///
    /// # Example
    /// ```
    /// use cart_retrieval::features::Features;
    ///
    /// let items = Features::from_rows(vec![3.0, 4.0, 0.0, 0.0], 2)?;
    /// assert_eq!(items.normalised().as_slice(), [0.6, 0.8, 0.0, 0.0]);
    /// # Ok::<(), cart_retrieval::Error>(())
    /// ```
    pub fn normalised(&self) -> Self {
        let mut data = self.as_slice().to_vec();
        data.par_chunks_mut(self.dim).for_each(normalise);
        self.holding(data)
    }

    /// The same matrix in memory, free of the file it was mapped from.
    pub fn in_memory(&self) -> Self {
        if self.is_mapped() { self.holding(self.as_slice().to_vec()) } else { self.clone() }
    }

    /// Writes the matrix as `.npy` (`f32`, row-major, little-endian), atomically.
    ///
    /// The ids are not part of it: see [`Features::save_ids`].
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be written; [`Error::Features`] when there is no row or
    /// the name does not end in `.npy`, as nothing would open the file again.
    pub fn save_npy(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let subject = || path.display().to_string();
        if self.is_empty() {
            let remedy = "select at least one item";
            return Err(Error::features(subject())
                .expected("at least one row to save")
                .found("none")
                .fix(remedy));
        }
        if !path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("npy")) {
            let (expected, found) = ("a name that ends in .npy", "another one");
            return Err(Error::features(subject())
                .expected(expected)
                .found(found)
                .fix("change the name"));
        }
        write_atomic(path, |file| {
            npy::write(file, self.as_slice(), self.dim)
                .map_err(|source| Error::io("write", path, source))
        })
    }

    /// Writes the ids, one per line, atomically.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be written.
    pub fn save_ids(&self, path: impl AsRef<Path>) -> Result<()> {
        self.ids().save(path)
    }

    /// The same items with other numbers.
    fn holding(&self, data: Vec<f32>) -> Self {
        Self { buffer: Arc::new(data.into()), ..self.clone() }
    }

    fn over(buffer: Array<f32>, dim: usize) -> Self {
        let len = buffer.len() / dim;
        Self { buffer: Arc::new(buffer), len, dim, ids: OnceLock::new(), given_ids: false }
    }
}

impl fmt::Debug for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Features")
            .field("len", &self.len)
            .field("dim", &self.dim)
            .field("mapped", &self.is_mapped())
            .field("given_ids", &self.given_ids)
            .finish_non_exhaustive()
    }
}
