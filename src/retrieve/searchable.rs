//! Backends for which this crate compiles the search itself.

use std::path::Path;

use burn::tensor::backend::Backend;

use super::{LiveRetriever, NewCandidates, Retriever, folder};
use crate::{align::TextVectors, data::ItemCaption, error::Result};

/// Declares a trait whose methods have default bodies, and implements it for the backends of the
/// cargo features with bodies of their own. Those are compiled here, not where they are called.
macro_rules! compiled_here {
    (
        $(#[$doc:meta])*
        trait $name:ident: $base:path;
        $(fn $method:ident($($argument:ident: $kind:ty),* $(,)?) -> $output:ty { $body:expr })*
    ) => {
        $(#[$doc])*
        pub trait $name: $base {
            $(
                #[doc(hidden)]
                #[allow(missing_docs, clippy::missing_errors_doc)]
                fn $method($($argument: $kind),*) -> $output { $body }
            )*
        }
        $crate::retrieve::compiled_here!(
            @for "cuda" burn::backend::Cuda, "flex" burn::backend::Flex,
            "ndarray" burn::backend::NdArray, "tch" burn::backend::LibTorch,
            "wgpu" burn::backend::Wgpu;
            $name { $(fn $method($($argument: $kind),*) -> $output { $body })* }
        );
    };
    (@for $($feature:literal $backend:ty),*; $name:ident $methods:tt) => {
        $(
            $crate::retrieve::compiled_here!(@one $feature $backend; $name $methods);
        )*
    };
    (
        @one $feature:literal $backend:ty;
        $name:ident
        { $(fn $method:ident($($argument:ident: $kind:ty),*) -> $output:ty { $body:expr })* }
    ) => {
        #[cfg(feature = $feature)]
        impl $name for $backend {
            $(fn $method($($argument: $kind),*) -> $output { $body })*
        }
    };
}
pub(crate) use compiled_here;

compiled_here! {
    /// A backend that an index can be searched on.
    ///
    /// All backends of the cargo features are: this crate compiles loading, search and changes for
    /// them, and a program only links that. For another backend of burn,
    /// `impl Searchable for MyBackend {}` compiles it in the crate that has this line.
    trait Searchable: Backend;

    fn load_retriever(folder: &Path, device: &Self::Device) -> Result<Retriever<Self>> {
        folder::load(folder, device)
    }
    fn save_retriever(retriever: &Retriever<Self>, folder: &Path) -> Result<()> {
        folder::save(retriever, folder)
    }
    fn embed_captions(retriever: &Retriever<Self>, captions: &[ItemCaption]) -> Result<TextVectors> {
        retriever.embed_here(captions)
    }
    fn open_live(
        folder: &Path,
        device: &Self::Device,
        read_only: bool
    ) -> Result<LiveRetriever<Self>> {
        LiveRetriever::open_here(folder, device, read_only)
    }
    fn refresh_live(live: &LiveRetriever<Self>) -> Result<bool> {
        live.refresh_here()
    }
    fn add_to_live(live: &LiveRetriever<Self>, new: &NewCandidates<'_>, update: bool) -> Result<()> {
        live.add_here(new, update)
    }
    fn compact_live(live: &LiveRetriever<Self>) -> Result<()> {
        live.compact_here()
    }
}

impl<B: Searchable> Retriever<B> {
    /// Vectors of captions by the text encoder, and by their words where these count: an input of
    /// [`TextSpaceMap::embed`](crate::align::TextSpaceMap::embed) in addition to features.
    ///
    /// # Errors
    /// As [`TextEmbedder::embed`](crate::align::TextEmbedder::embed).
    pub fn embed_texts(&self, captions: &[ItemCaption]) -> Result<TextVectors> {
        B::embed_captions(self, captions)
    }

    /// Loads an index with the changes since it was saved.
    ///
    /// Trie, vectors and metadata are memory-mapped, so that a large index loads at once; saving
    /// another index to the folder leaves this one unchanged. Files of candidates beyond 32 MiB are
    /// checked by length and structure, all others by checksum; [`verify`](super::verify) reads
    /// everything.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) for a missing file, [`Error::Index`](crate::Error::Index) for a changed one or another format, and
    /// [`Error::Model`](crate::Error::Model) for weights that do not fit.
    pub fn load(folder: impl AsRef<Path>, device: &B::Device) -> Result<Self> {
        B::load_retriever(folder.as_ref(), device)
    }

    /// Saves the index to a folder, in one step as seen from outside.
    ///
    /// # Errors
    /// As [`Retriever::check_folder`]; [`Error::Index`](crate::Error::Index) while a
    /// [`LiveRetriever`](super::LiveRetriever) changes the index that is there; [`Error::Io`](crate::Error::Io) when
    /// a file cannot be written (the folder then holds the index that was there before, or all of
    /// this one).
    pub fn save(&self, folder: impl AsRef<Path>) -> Result<()> {
        B::save_retriever(self, folder.as_ref())
    }

    /// Checks that an index can be saved to a folder: that it does not exist, is empty, or holds an
    /// index already. Call it before a long training.
    ///
    /// # Errors
    /// [`Error::Index`](crate::Error::Index) when something else is there,
    /// [`Error::Io`](crate::Error::Io) when it cannot be read.
    pub fn check_folder(folder: impl AsRef<Path>) -> Result<()> {
        folder::check_folder(folder.as_ref())
    }
}

impl<B: Searchable> LiveRetriever<B> {
    /// Opens an index folder for changes, with those since it was saved.
    ///
    /// # Errors
    /// As [`Retriever::load`]; [`Error::Index`](crate::Error::Index) while another one has it open,
    /// [`Error::Io`](crate::Error::Io) when it cannot be written to.
    pub fn open(folder: impl AsRef<Path>, device: &B::Device) -> Result<Self> {
        B::open_live(folder.as_ref(), device, false)
    }

    /// Opens an index folder to search it only, with the changes since it was saved. Nothing is
    /// locked or written, so any number of programs can do this, next to one that changes the
    /// folder, and where it cannot be written to. [`LiveRetriever::refresh`] follows the changes of
    /// others; changes made here are refused.
    ///
    /// # Errors
    /// As [`Retriever::load`].
    pub fn open_read_only(folder: impl AsRef<Path>, device: &B::Device) -> Result<Self> {
        B::open_live(folder.as_ref(), device, true)
    }

    /// Loads the folder again if another program has changed it since it was read, and says whether
    /// it was. Searches go on meanwhile. An index that is open for changes is always as its folder.
    ///
    /// # Errors
    /// As [`Retriever::load`]; the index then stays as it is.
    pub fn refresh(&self) -> Result<bool> {
        B::refresh_live(self)
    }

    /// Adds candidates; either all of them or, with an error, none.
    ///
    /// # Errors
    /// [`Error::Ids`](crate::Error::Ids) for an id that is there already;
    /// [`Error::Features`](crate::Error::Features) for features of another width, NaN or zeros;
    /// [`Error::Identifier`](crate::Error::Identifier) where every identifier is in use, or for
    /// groups that are not the index's; [`Error::Metadata`](crate::Error::Metadata) when there is
    /// not one object for each; [`Error::Io`](crate::Error::Io) when the change cannot be written.
    pub fn add(&self, new: &NewCandidates<'_>) -> Result<()> {
        B::add_to_live(self, new, false)
    }

    /// Replaces features, metadata and captions of candidates; either of all of them or, with an
    /// error, of none. They get new identifiers and move to the end of the rows.
    ///
    /// # Errors
    /// As [`LiveRetriever::add`], and [`Error::Ids`](crate::Error::Ids) for an id that is not
    /// there.
    pub fn update(&self, new: &NewCandidates<'_>) -> Result<()> {
        B::add_to_live(self, new, true)
    }

    /// Saves the index with all changes, and starts an empty file of changes. Searches go on;
    /// changes wait.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) when a file cannot be written. No change is lost: the folder
    /// holds the index and its changes as before, or the new index. Where not even that can be
    /// told, further changes are refused until a compaction succeeds.
    pub fn compact(&self) -> Result<()> {
        B::compact_live(self)
    }
}
