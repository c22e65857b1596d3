//! Settings of K-Means.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, ensure_in};

const DEFAULT: &str = "raise it, or leave the default";

/// Tokens are 16 bits wide.
pub(crate) const MOST_CODES: usize = 1 << 16;

/// How the first centres are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Init {
    /// Greedy k-means++: each centre is the best of several rows drawn by squared distance to the
    /// centres so far (Arthur and Vassilvitskii 2007).
    #[default]
    PlusPlus,
    /// Distinct rows drawn evenly. Faster, and usually worse.
    Random,
}

/// Settings of K-Means, with defaults for everything but the number of clusters.
///
/// # Example
/// ```
/// use cart_retrieval::{expert::Init, quantizer::KMeansConfig};
/// let config = KMeansConfig { seed: 7, restarts: 1, init: Init::Random, ..KMeansConfig::new(32) };
/// config.validate()?;
/// assert_eq!((config.k, config.seed), (32, 7));
/// # Ok::<(), cart_retrieval::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default = "KMeansConfig::without_k", deny_unknown_fields)]
pub struct KMeansConfig {
    /// Number of clusters K, 2 to 65536.
    pub k: usize,
    /// Random seed; the same seed gives the same centres on any number of threads.
    pub seed: u64,
    /// Number of fits from different first centres; the fit of minimum inertia is kept.
    pub restarts: usize,
    /// Maximum number of updates of the centres, or of passes over the rows with mini-batches.
    pub max_iterations: usize,
    /// Relative gain of inertia below which fitting stops.
    pub tolerance: f64,
    /// How the first centres are chosen.
    pub init: Init,
    /// Rows that k-means++ looks at, drawn evenly; `None` for 16 for each cluster, at least 8192.
    pub seeding_rows: Option<usize>,
    /// Rows of a mini-batch.
    pub batch_rows: usize,
    /// Rows that mini-batch fitting takes its first centres from; `None` for 64 for each cluster,
    /// at least 65536.
    pub sample_rows: Option<usize>,
}

impl KMeansConfig {
    /// What a file that leaves settings out starts from; [`validate`](Self::validate) misses `k`.
    fn without_k() -> Self {
        Self::new(0)
    }

    /// Defaults for `k` clusters.
    pub fn new(k: usize) -> Self {
        Self {
            k,
            seed: 0,
            restarts: 3,
            max_iterations: 50,
            tolerance: 1e-4,
            init: Init::default(),
            seeding_rows: None,
            batch_rows: 1 << 14,
            sample_rows: None,
        }
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// [`Error::Config`] naming the setting that is out of range.
    pub fn validate(&self) -> Result<()> {
        check_size("k", self.k)?;
        check_lloyd(self.restarts, self.max_iterations, self.tolerance)?;
        let counts = [
            ("batch_rows", Some(self.batch_rows), 1),
            ("seeding_rows", self.seeding_rows, self.k),
            ("sample_rows", self.sample_rows, self.k),
        ];
        counts.into_iter().try_for_each(|(name, value, least)| {
            let interval = format!("[{least}, inf)");
            ensure_in(name, value.unwrap_or(least) as f64, &interval, DEFAULT)
        })
    }

    /// Rows that k-means++ looks at.
    pub(crate) fn seeding_rows(&self) -> usize {
        self.seeding_rows.unwrap_or_else(|| (16 * self.k).max(1 << 13))
    }

    /// Rows that mini-batch fitting starts from.
    pub(crate) fn sample_rows(&self) -> usize {
        self.sample_rows.unwrap_or_else(|| (64 * self.k).max(1 << 16))
    }
}

/// Checks the numbers of codes of levels.
pub(crate) fn check_sizes(sizes: &[usize]) -> Result<()> {
    Error::config("sizes")
        .expected("at least one level")
        .found("none")
        .fix_if(sizes.is_empty(), "pass a size for each")?;
    sizes.iter().enumerate().try_for_each(|(i, &size)| check_size(&format!("sizes[{i}]"), size))
}

/// Checks a number of codes.
pub(crate) fn check_size(name: &str, size: usize) -> Result<()> {
    let found = match size {
        0 => "0".to_string(),
        1 => "a vocabulary of size 1, which cannot tell items apart".to_string(),
        2..=MOST_CODES => return Ok(()),
        _ => size.to_string(),
    };
    Err(Error::config(name)
        .expected(format!("2 to {MOST_CODES} codes (tokens are 16 bits)"))
        .found(found)
        .fix("choose a size in that range"))
}

/// Checks the settings that every K-Means in the library shares.
pub(crate) fn check_lloyd(restarts: usize, max_iterations: usize, tolerance: f64) -> Result<()> {
    ensure_in("restarts", restarts as f64, "[1, inf)", DEFAULT)?;
    ensure_in("max_iterations", max_iterations as f64, "[1, inf)", DEFAULT)?;
    ensure_in("tolerance", tolerance, "[0, inf)", "use 1e-4, or 0 to continue until nothing moves")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_settings_are_named() {
        let good = KMeansConfig::new(4);
        good.validate().unwrap();
        let bad = [
            (KMeansConfig::new(0), "k:"),
            (KMeansConfig::new(1), "vocabulary of size 1"),
            (KMeansConfig::new(65537), "65537"),
            (KMeansConfig { restarts: 0, ..good.clone() }, "restarts"),
            (KMeansConfig { max_iterations: 0, ..good.clone() }, "max_iterations"),
            (KMeansConfig { tolerance: -1.0, ..good.clone() }, "tolerance"),
            (KMeansConfig { tolerance: f64::NAN, ..good.clone() }, "tolerance"),
            (KMeansConfig { batch_rows: 0, ..good.clone() }, "batch_rows"),
            (KMeansConfig { seeding_rows: Some(3), ..good.clone() }, "seeding_rows"),
            (KMeansConfig { sample_rows: Some(3), ..good }, "sample_rows"),
        ];
        for (config, name) in bad {
            let error = config.validate().unwrap_err();
            assert!(matches!(error, Error::Config(_)));
            assert!(error.to_string().contains(name), "{error}");
        }
        KMeansConfig::new(65536).validate().unwrap();
    }

    #[test]
    fn files_need_only_k_and_refuse_typing_errors() {
        let config: KMeansConfig = serde_json::from_str(r#"{"k": 8}"#).unwrap();
        assert_eq!(config, KMeansConfig::new(8));
        let config: KMeansConfig =
            serde_json::from_str(r#"{"k": 8, "init": "random", "seeding_rows": 9}"#).unwrap();
        assert_eq!(
            config,
            KMeansConfig { init: Init::Random, seeding_rows: Some(9), ..KMeansConfig::new(8) }
        );
        assert!(serde_json::from_str::<KMeansConfig>(r#"{"k": 8, "sed": 1}"#).is_err());
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<KMeansConfig>(&text).unwrap(), config);
    }
}
