//! Queries that arrive at the same time are searched in one batch.
//!
//! One thread takes the waiting queries, up to a limit, and searches them as one batch. Meanwhile
//! the next batch gathers. A single query is searched at once.

use std::{
    collections::{BTreeMap, HashMap},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use cart_retrieval::{
    Result,
    backend::LocalBackend,
    decode::{Filter, Filters},
    metadata::Condition,
    retrieve::{Hit, LiveRetriever, Retriever},
};
use tokio::sync::{
    mpsc::{self, error::TrySendError},
    oneshot,
};

use super::metrics::Metrics;

/// Filters that are kept while the index stays the same.
const FILTERS: usize = 64;

/// What is asked.
#[derive(Debug, Clone)]
pub struct Question {
    pub query: String,
    pub top: usize,
    pub beam: usize,
    pub condition: Option<Condition>,
}

struct Job {
    question: Question,
    reply: oneshot::Sender<Result<Vec<Hit>>>,
}

/// A job, and what its condition allows.
type Filtered = (Job, Option<Arc<Filter>>);

/// Why a question was not answered.
#[derive(Debug)]
pub enum Unanswered {
    /// Too many wait.
    Full,
    /// The service is ending.
    Ending,
    /// The search panicked.
    Failed,
    /// The library refused it.
    Refused(cart_retrieval::Error),
}

/// Where questions go.
#[derive(Clone)]
pub struct Batcher {
    jobs: mpsc::Sender<Job>,
    metrics: Arc<Metrics>,
}

impl Batcher {
    /// Starts the thread; it ends when the last of these is gone.
    pub fn start<B: LocalBackend>(
        live: Arc<LiveRetriever<B>>,
        metrics: Arc<Metrics>,
        queue: usize,
        most: usize,
    ) -> Self {
        let (jobs, mut waiting) = mpsc::channel::<Job>(queue);
        let counted = metrics.clone();
        std::thread::spawn(move || {
            let mut filters = Kept::default();
            let mut batch = Vec::with_capacity(most);
            while waiting.blocking_recv_many(&mut batch, most) > 0 {
                counted.waiting.set(waiting.len() as i64);
                // Nobody waits for these any more.
                batch.retain(|job| !job.reply.is_closed());
                if batch.is_empty() {
                    continue;
                }
                counted.batches.observe(batch.len() as f64);
                let search = || answer(&live.snapshot(), &mut filters, batch.drain(..));
                // One bad batch is no reason to answer nothing any more; its askers are told.
                if catch_unwind(AssertUnwindSafe(search)).is_err() {
                    batch.clear();
                    filters = Kept::default();
                }
            }
        });
        Self { jobs, metrics }
    }

    /// The answers to a question.
    pub async fn ask(&self, question: Question) -> std::result::Result<Vec<Hit>, Unanswered> {
        let (reply, answer) = oneshot::channel();
        self.jobs.try_send(Job { question, reply }).map_err(|error| match error {
            TrySendError::Full(_) => Unanswered::Full,
            TrySendError::Closed(_) => Unanswered::Ending,
        })?;
        let waiting = self.jobs.max_capacity() - self.jobs.capacity();
        self.metrics.waiting.set(waiting as i64);
        answer.await.map_err(|_| Unanswered::Failed)?.map_err(Unanswered::Refused)
    }

    /// Whether questions are answered.
    pub fn is_running(&self) -> bool {
        !self.jobs.is_closed()
    }
}

/// Filters of the index as it is.
struct Kept<B: LocalBackend> {
    of: Option<Arc<Retriever<B>>>,
    filters: HashMap<String, Arc<Filter>>,
}

impl<B: LocalBackend> Default for Kept<B> {
    fn default() -> Self {
        Self { of: None, filters: HashMap::new() }
    }
}

impl<B: LocalBackend> Kept<B> {
    fn filter(&mut self, index: &Arc<Retriever<B>>, condition: &Condition) -> Result<Arc<Filter>> {
        if self.of.as_ref().is_none_or(|of| !Arc::ptr_eq(of, index)) {
            self.filters.clear();
            self.of = Some(index.clone());
        }
        let key = serde_json::Value::from(condition.clone()).to_string();
        if let Some(filter) = self.filters.get(&key) {
            return Ok(filter.clone());
        }
        let filter = Arc::new(index.index().filter_where(condition)?);
        if self.filters.len() == FILTERS {
            self.filters.clear();
        }
        self.filters.insert(key, filter.clone());
        Ok(filter)
    }
}

/// Answers jobs, those with the same beam together.
fn answer<B: LocalBackend>(
    index: &Arc<Retriever<B>>,
    filters: &mut Kept<B>,
    jobs: impl Iterator<Item = Job>,
) {
    let mut groups: BTreeMap<usize, Vec<Filtered>> = BTreeMap::new();
    for job in jobs {
        let condition = job.question.condition.as_ref();
        match condition.map(|condition| filters.filter(index, condition)).transpose() {
            Ok(filter) => {
                // The beam is at least as wide as what is asked for.
                let beam = job.question.beam.max(job.question.top);
                groups.entry(beam).or_default().push((job, filter));
            }
            Err(error) => drop(job.reply.send(Err(error))),
        }
    }
    for (beam, group) in groups {
        let queries: Vec<&str> = group.iter().map(|(job, _)| job.question.query.as_str()).collect();
        let each: Vec<Option<&Filter>> =
            group.iter().map(|(_, filter)| filter.as_deref()).collect();
        let top = group.iter().map(|(job, _)| job.question.top).max().unwrap_or(1);
        let all = index.query(&queries).top(top).beam(beam).filters(Filters::Each(&each)).run();
        match all {
            Ok(all) => {
                for ((job, _), mut hits) in group.into_iter().zip(all) {
                    hits.truncate(job.question.top);
                    let _ = job.reply.send(Ok(hits));
                }
            }
            // One bad query is no reason to refuse the others.
            Err(_) => {
                for (job, filter) in group {
                    let mut search =
                        index.query(&job.question.query).top(job.question.top).beam(beam);
                    if let Some(filter) = &filter {
                        search = search.filter(filter);
                    }
                    let _ = job.reply.send(search.run());
                }
            }
        }
    }
}
