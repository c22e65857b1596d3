//! Pretrained models from the Hugging Face Hub, through the cache that its other clients share.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use hf_hub::{
    Cache, Repo, RepoType,
    api::sync::{ApiBuilder, ApiError},
};

use super::{PretrainedText, blob::verify, settings, weights};
use crate::error::{Error, Result};

/// How often a transfer that breaks off is taken up again where it stopped; what was fetched is
/// kept for the next call, too.
const RETRIES: usize = 3;

/// How to reach the hub.
///
/// # Example
/// ```
/// use cart_retrieval::pretrained::HubOptions;
/// let options = HubOptions::default().with_cache("models").with_offline(true);
/// # let _ = options;
/// ```
#[derive(Debug, Clone, Default)]
pub struct HubOptions {
    cache: Option<PathBuf>,
    offline: bool,
    endpoint: Option<String>,
}

impl HubOptions {
    /// Keeps files in another folder than `$HF_HOME/hub` or `~/.cache/huggingface/hub`.
    pub fn with_cache(self, folder: impl AsRef<Path>) -> Self {
        Self { cache: Some(folder.as_ref().to_path_buf()), ..self }
    }

    /// Uses what the cache holds and never the network; also on where `HF_HUB_OFFLINE` is 1.
    pub fn with_offline(self, offline: bool) -> Self {
        Self { offline, ..self }
    }

    /// Asks another server than `$HF_ENDPOINT` or `https://huggingface.co`.
    pub fn with_endpoint(self, endpoint: impl Into<String>) -> Self {
        Self { endpoint: Some(endpoint.into()), ..self }
    }

    /// Fetches a model from the hub, or takes it from the cache, and gives its folder; for models
    /// of other kinds than [`PretrainedText::from_hub`] reads, whose rules for `repo` and
    /// `revision` hold.
    ///
    /// # Errors
    /// [`Error::Model`] when the hub cannot be reached, does not have the model or its files, or,
    /// offline, when the cache does not hold it; [`Error::Config`] for a name that is no name of a
    /// model or a revision.
    ///
    /// # Example
    /// ```no_run
    /// use cart_retrieval::pretrained::HubOptions;
    /// let folder = HubOptions::default().fetch("openai/clip-vit-base-patch32", "main")?;
    /// # Ok::<(), cart_retrieval::Error>(())
    /// ```
    pub fn fetch(&self, repo: &str, revision: &str) -> Result<PathBuf> {
        check_name("repo", repo, 2)?;
        check_name("revision", revision, usize::MAX)?;
        match self.is_offline() {
            true => cached(repo, revision, &self.cache()),
            false => fetched(repo, revision, self),
        }
    }

    fn is_offline(&self) -> bool {
        let set = std::env::var("HF_HUB_OFFLINE").unwrap_or_default().to_lowercase();
        self.offline || ["1", "true", "yes", "on"].contains(&set.as_str())
    }

    fn cache(&self) -> Cache {
        self.cache.clone().map_or_else(Cache::from_env, Cache::new)
    }
}

impl PretrainedText {
    /// Fetches a model from the hub, or takes it from the cache, and opens it.
    ///
    /// `revision` is a branch, a tag or a commit; the files of one call are of one commit. Only
    /// settings, tokenizer and safetensors weights are fetched. A transfer that breaks off goes on
    /// where it stopped, and large files are held to the SHA-256 that the hub knows them by.
    ///
    /// # Errors
    /// As [`PretrainedText::open`] and [`HubOptions::fetch`].
    ///
    /// # Example
    /// ```no_run
    /// use cart_retrieval::pretrained::{HubOptions, PretrainedText};
    /// let repo = "sentence-transformers/all-MiniLM-L6-v2";
    /// let pretrained = PretrainedText::from_hub(repo, "main", &HubOptions::default())?;
    /// # Ok::<(), cart_retrieval::Error>(())
    /// ```
    pub fn from_hub(repo: &str, revision: &str, options: &HubOptions) -> Result<Self> {
        Self::open(options.fetch(repo, revision)?)
    }
}

/// Refuses names that lead out of the cache.
fn check_name(what: &str, name: &str, parts: usize) -> Result<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let fine = |part: &str| !part.is_empty() && !part.starts_with('.') && part.chars().all(plain);
    if name.split('/').all(fine) && name.split('/').count() <= parts && !name.contains("..") {
        return Ok(());
    }
    Err(Error::config(what)
        .expected("a name like sentence-transformers/all-MiniLM-L6-v2, or a revision like main")
        .found(format!("{name:?}"))
        .fix("copy it from the model's page; for a folder on disk, call open instead"))
}

fn repository(repo: &str, revision: &str) -> Repo {
    Repo::with_revision(repo.to_string(), RepoType::Model, revision.to_string())
}

/// The folder of a revision in the cache.
fn cached(repo: &str, revision: &str, cache: &Cache) -> Result<PathBuf> {
    let reference = repository(repo, revision);
    let place = cache.path().join(reference.folder_name());
    let commit = std::fs::read_to_string(place.join("refs").join(revision));
    let commit = commit.map_or_else(|_| revision.to_string(), |commit| commit.trim().to_string());
    check_name("commit in the cache", &commit, 1)?;
    let folder = cache.repo(reference).pointer_path(&commit);
    if folder.is_dir() {
        return Ok(folder);
    }
    Err(Error::model(format!("{repo}, revision {revision}")).expected(format!("to be in the cache {} in offline mode", cache.path().display())).found("nothing").fix("fetch it once without the offline mode, copy a filled cache there, or call open on a folder \
         with the model"))
}

/// The folder of a revision in the cache, after fetching what is not there.
fn fetched(repo: &str, revision: &str, options: &HubOptions) -> Result<PathBuf> {
    let subject = format!("{repo}, revision {revision}");
    let failed = |error: ApiError| {
        Error::model(&subject).expected("an answer of the Hugging Face Hub with this model").found(error.to_string()).fix("check name and network; without a network, call open on a folder with the model, or turn the \
             offline mode on with a filled cache")
    };
    let cache = options.cache();
    let mut builder = ApiBuilder::from_env()
        .with_cache_dir(cache.path().clone())
        .with_progress(false)
        .with_retries(RETRIES);
    if let Some(endpoint) = &options.endpoint {
        builder = builder.with_endpoint(endpoint.trim_end_matches('/').to_string());
    }
    let api = builder.build().map_err(failed)?;
    let info = api.repo(repository(repo, revision)).info().map_err(failed)?;
    check_name("commit of the hub", &info.sha, 1)?;
    // By its commit, so that all files are of one, even if the branch moves on meanwhile.
    let files = api.repo(repository(repo, &info.sha));
    let has = |name: &str| info.siblings.iter().any(|file| file.rfilename == name);
    let fixed = ["config.json", "tokenizer.json", settings::PREPROCESSOR, settings::PROCESSOR];
    let of_others = settings::SENTENCE_FILES.into_iter().chain(settings::TOKENIZER_FILES);
    let small: BTreeSet<&str> = fixed.into_iter().chain(of_others).collect();
    let pooling = |name: &str| name.ends_with("_Pooling/config.json");
    for file in &info.siblings {
        let name = file.rfilename.as_str();
        if small.contains(name) || pooling(name) {
            verify(&files.get(name).map_err(failed)?)?;
        }
    }
    if has(weights::SINGLE) {
        verify(&files.get(weights::SINGLE).map_err(failed)?)?;
    } else if has(weights::INDEX) {
        let index = files.get(weights::INDEX).map_err(failed)?;
        for name in weights::file_names(&index)? {
            verify(&files.get(&name).map_err(failed)?)?;
        }
    }
    let reference = cache.repo(repository(repo, revision));
    reference
        .create_ref(&info.sha)
        .map_err(|e| Error::io("write", cache.path().join("refs"), e))?;
    Ok(reference.pointer_path(&info.sha))
}
