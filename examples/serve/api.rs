//! The routes: what comes in, what goes out.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering},
};

use axum::{
    Extension, Json,
    extract::{
        FromRequest, Path, Query, Request, State,
        rejection::{JsonRejection, QueryRejection},
    },
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use cart_retrieval::{
    Error,
    backend::LocalBackend,
    data::ItemCaption,
    features::Features,
    metadata::{Condition, Fields},
    retrieve::{Arrivals, DriftThresholds, Hit, LiveRetriever, Retriever},
    trie::Trie,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tower::ServiceExt;
use tower_http::services::ServeFile;

use super::{
    app::{App, Turn},
    batch::{Question, Unanswered},
    media,
};

/// Most answers, and widest beam, of a search.
const MOST: usize = 1000;
/// Longest query, in bytes.
const LONGEST_QUERY: usize = 4096;
/// Most candidates that a prefix shows.
const MOST_SHOWN: usize = 200;

/// A request that is answered with an error.
#[derive(Debug)]
pub struct Failure {
    status: StatusCode,
    message: String,
}

impl Failure {
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(json!({ "error": self.message }))).into_response();
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let status = match error {
            Error::Io { .. } | Error::Model(_) | Error::Device(_) => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
            _ => StatusCode::BAD_REQUEST,
        };
        Self::new(status, error.to_string())
    }
}

impl From<Unanswered> for Failure {
    fn from(unanswered: Unanswered) -> Self {
        match unanswered {
            Unanswered::Full => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "too many queries wait; ask again later")
            }
            Unanswered::Ending => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "the service is ending")
            }
            Unanswered::Failed => {
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "the search failed; its log says why")
            }
            Unanswered::Refused(error) => error.into(),
        }
    }
}

impl From<JsonRejection> for Failure {
    fn from(rejection: JsonRejection) -> Self {
        Self::new(rejection.status(), rejection.body_text())
    }
}

impl From<QueryRejection> for Failure {
    fn from(rejection: QueryRejection) -> Self {
        Self::new(rejection.status(), rejection.body_text())
    }
}

/// A body of JSON, refused in our own words where it is none.
pub struct Body<T>(T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        Ok(Self(Json::from_request(request, state).await?.0))
    }
}

type Answer<T> = Result<Json<T>, Failure>;
type Shared<B> = State<Arc<App<B>>>;

/// A search.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SearchRequest {
    query: String,
    top: Option<usize>,
    beam: Option<usize>,
    filter: Option<Condition>,
}

/// The same in a link; the filter is JSON.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SearchLink {
    q: String,
    top: Option<usize>,
    beam: Option<usize>,
    filter: Option<String>,
}

/// A candidate with what shows it.
#[derive(Debug, Serialize)]
pub struct Shown {
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    score: Option<f32>,
    identifier: Vec<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<Fields>,
    /// image, audio or video; absent where there is no file.
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
}

#[derive(Debug, Serialize)]
pub struct SearchAnswer {
    query: String,
    milliseconds: f64,
    hits: Vec<Shown>,
}

impl<B: LocalBackend> App<B> {
    fn shown(&self, hit: Hit) -> Shown {
        let Hit { id, score, identifier, metadata, .. } = hit;
        let kind = self.kind(&id, metadata.as_ref());
        let identifier = identifier.tokens().to_vec();
        Shown { id, score: Some(score), identifier, metadata, kind }
    }

    fn file(&self, id: &str, metadata: Option<&Fields>) -> Option<std::path::PathBuf> {
        let named = metadata.and_then(|fields| fields.get("file")).and_then(Value::as_str);
        self.media.find(id, named)
    }

    fn kind(&self, id: &str, metadata: Option<&Fields>) -> Option<&'static str> {
        Some(media::kind(&self.file(id, metadata)?)?.0)
    }
}

/// Checks sizes before anything is done.
fn question<B: LocalBackend>(app: &App<B>, request: SearchRequest) -> Result<Question, Failure> {
    let SearchRequest { query, top, beam, filter: condition } = request;
    let bad = |message: String| Err(Failure::new(StatusCode::BAD_REQUEST, message));
    if query.trim().is_empty() {
        return bad("the query is blank; say what to look for".into());
    }
    if query.len() > LONGEST_QUERY {
        return bad(format!(
            "the query has {} bytes where at most {LONGEST_QUERY} are read",
            query.len()
        ));
    }
    let top = top.unwrap_or(10);
    let beam = beam.unwrap_or(app.live.snapshot().beam().width);
    if !(1..=MOST).contains(&top) || !(1..=MOST).contains(&beam) {
        return bad(format!("top and beam have to be 1 to {MOST}, not {top} and {beam}"));
    }
    Ok(Question { query, top, beam, condition })
}

async fn answered<B: LocalBackend>(
    app: Arc<App<B>>,
    request: SearchRequest,
) -> Answer<SearchAnswer> {
    let started = std::time::Instant::now();
    let question = question(&app, request)?;
    let query = question.query.clone();
    let hits = app.batcher.ask(question).await?;
    let milliseconds = started.elapsed().as_secs_f64() * 1e3;
    // Files are looked for, which may take its time.
    blocking(move || {
        let hits = hits.into_iter().map(|hit| app.shown(hit)).collect();
        Ok(SearchAnswer { query, milliseconds, hits })
    })
    .await
}

/// `POST /api/search`
pub async fn search<B: LocalBackend>(
    State(app): Shared<B>,
    Body(request): Body<SearchRequest>,
) -> Answer<SearchAnswer> {
    answered(app, request).await
}

/// `GET /api/search?q=..`
pub async fn search_by_link<B: LocalBackend>(
    State(app): Shared<B>,
    link: Result<Query<SearchLink>, QueryRejection>,
) -> Answer<SearchAnswer> {
    let Query(SearchLink { q: query, top, beam, filter }) = link?;
    let filter = filter.map(|text| Condition::parse(&text)).transpose()?;
    answered(app, SearchRequest { query, top, beam, filter }).await
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExplainLink {
    q: String,
    id: String,
}

/// `GET /api/explain?q=..&id=..`: how a query walks down to a candidate.
pub async fn explain<B: LocalBackend>(
    State(app): Shared<B>,
    link: Result<Query<ExplainLink>, QueryRejection>,
) -> Answer<Value> {
    let Query(ExplainLink { q, id }) = link?;
    if q.len() > LONGEST_QUERY {
        return Err(Failure::new(StatusCode::BAD_REQUEST, "the query is too long"));
    }
    looked(app, move |app| {
        let walk = app.live.snapshot().explain(&q, &id, 4)?;
        Ok(serde_json::to_value(walk).unwrap_or_default())
    })
    .await
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrefixLink {
    /// Tokens with `-` between; none for all candidates.
    #[serde(default)]
    tokens: String,
    limit: Option<usize>,
}

#[derive(Debug, Serialize)]
pub struct PrefixAnswer {
    count: usize,
    items: Vec<Shown>,
}

/// `GET /api/prefix?tokens=3-17`: candidates whose identifiers start with these tokens.
pub async fn prefix<B: LocalBackend>(
    State(app): Shared<B>,
    link: Result<Query<PrefixLink>, QueryRejection>,
) -> Answer<PrefixAnswer> {
    let Query(PrefixLink { tokens, limit }) = link?;
    let tokens: Result<Vec<u16>, _> =
        tokens.split('-').filter(|token| !token.is_empty()).map(str::parse).collect();
    let tokens = tokens.map_err(|_| {
        Failure::new(StatusCode::BAD_REQUEST, "tokens are numbers with - between, as in 3-17")
    })?;
    looked(app, move |app| {
        let index = app.live.snapshot();
        let trie: &Trie = index.index().trie();
        let Some(node) = trie.find(&tokens) else {
            return Ok(PrefixAnswer { count: 0, items: Vec::new() });
        };
        // Spread evenly over the prefix, so that they show all of it.
        let items = trie.items(node);
        let limit = limit.unwrap_or(24).clamp(1, MOST_SHOWN).min(items.len());
        let shown = |place: usize| -> Result<Shown, Failure> {
            let entry = items[place * items.len() / limit];
            let item = index.index().owners().of(entry);
            let id = index.index().ids().get(item as usize).to_string();
            let metadata = index.index().metadata().map(|known| known.get(item as usize));
            let metadata = metadata.transpose()?;
            let kind = app.kind(&id, metadata.as_ref());
            let identifier = trie.identifier_of(entry)?.tokens().to_vec();
            Ok(Shown { id, score: None, identifier, metadata, kind })
        };
        let items = (0..limit).map(shown).collect::<Result<_, Failure>>()?;
        Ok(PrefixAnswer { count: node.count(), items })
    })
    .await
}

/// `GET /api/info`: the index, and how far it has come from its quantizer.
pub async fn info<B: LocalBackend>(State(app): Shared<B>) -> Answer<Value> {
    let index = app.live.snapshot();
    let drift = index.drift(&DriftThresholds::default())?;
    let (changes, bytes) = app.live.pending();
    Ok(Json(json!({
        "candidates": index.index().ids().len(),
        "levels": index.index().vocabulary().sizes(),
        "groups": index.index().groups(),
        "beam": index.beam(),
        "text_encoder": index.model().encoder().family(),
        "has_metadata": index.index().metadata().is_some(),
        "read_only": app.limits.read_only,
        "pending": { "changes": changes, "bytes": bytes },
        "drift": drift,
    })))
}

/// `GET /media/{id}`
pub async fn media<B: LocalBackend>(
    State(app): Shared<B>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Failure> {
    let Json((path, kind)) = blocking(move || {
        let index = app.live.snapshot();
        let none = || Failure::new(StatusCode::NOT_FOUND, "no candidate of that id has a file");
        let row = index.index().ids().index_of(&id).ok_or_else(none)?;
        let metadata = index.index().metadata().map(|known| known.get(row)).transpose()?;
        let path = app.file(&id, metadata.as_ref()).ok_or_else(none)?;
        let (_, kind) = media::kind(&path).ok_or_else(none)?;
        Ok((path, kind))
    })
    .await?;
    let mut response = match ServeFile::new(&path).oneshot(request).await {
        Ok(response) => response.into_response(),
        Err(never) => match never {},
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    Ok(response)
}

/// `GET /health`
pub async fn health<B: LocalBackend>(State(app): Shared<B>) -> Result<&'static str, Failure> {
    match app.batcher.is_running() {
        true => Ok("ok\n"),
        false => {
            Err(Failure::new(StatusCode::SERVICE_UNAVAILABLE, "queries are not answered any more"))
        }
    }
}

/// `GET /metrics`
pub async fn metrics<B: LocalBackend>(State(app): Shared<B>) -> Response {
    app.metrics.candidates.set(app.live.snapshot().index().ids().len() as i64);
    app.metrics.pending.set(app.live.pending().1 as i64);
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];
    (kind, app.metrics.text()).into_response()
}

/// A candidate to add.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewItem {
    id: String,
    features: Vec<f32>,
    #[serde(default)]
    metadata: Fields,
    #[serde(default)]
    captions: Vec<String>,
    group: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewItems {
    items: Vec<NewItem>,
}

/// `POST /api/items`
pub async fn add<B: LocalBackend>(
    State(app): Shared<B>,
    Extension(turn): Extension<Turn>,
    Body(new): Body<NewItems>,
) -> Answer<Value> {
    changed(app, turn, move |live| arrivals(new.items, |arrivals| live.add(arrivals))).await
}

/// `PUT /api/items`
pub async fn update<B: LocalBackend>(
    State(app): Shared<B>,
    Extension(turn): Extension<Turn>,
    Body(new): Body<NewItems>,
) -> Answer<Value> {
    changed(app, turn, move |live| arrivals(new.items, |arrivals| live.update(arrivals))).await
}

fn arrivals(
    items: Vec<NewItem>,
    change: impl FnOnce(&Arrivals<'_>) -> cart_retrieval::Result<()>,
) -> Result<(), Failure> {
    let bad = |message: String| Failure::new(StatusCode::BAD_REQUEST, message);
    let dim = items.first().ok_or_else(|| bad("there are no items".into()))?.features.len();
    if let Some(item) = items.iter().find(|item| item.features.len() != dim) {
        return Err(bad(format!(
            "features of {:?}: {} numbers where the first item has {dim}",
            item.id,
            item.features.len()
        )));
    }
    let groups: Option<Vec<String>> = items.iter().map(|item| item.group.clone()).collect();
    let (mut rows, mut ids, mut metadata, mut captions) = (vec![], vec![], vec![], vec![]);
    for (at, item) in items.into_iter().enumerate() {
        rows.extend(item.features);
        ids.push(item.id);
        metadata.push(item.metadata);
        let caption = |text| ItemCaption { item: at as u32, text, weight: 1.0 };
        captions.extend(item.captions.into_iter().map(caption));
    }
    let features = Features::from_rows(rows, dim)?.with_id_list(ids)?;
    let mut arrivals = Arrivals::new(&features).with_metadata(&metadata).with_captions(&captions);
    if let Some(groups) = &groups {
        arrivals = arrivals.with_groups(groups);
    }
    Ok(change(&arrivals)?)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ids {
    ids: Vec<String>,
}

/// `DELETE /api/items`
pub async fn remove<B: LocalBackend>(
    State(app): Shared<B>,
    Extension(turn): Extension<Turn>,
    Body(gone): Body<Ids>,
) -> Answer<Value> {
    changed(app, turn, move |live| Ok(live.remove(&gone.ids)?)).await
}

/// `PUT /api/metadata`: objects by id.
pub async fn describe<B: LocalBackend>(
    State(app): Shared<B>,
    Extension(turn): Extension<Turn>,
    Body(described): Body<std::collections::BTreeMap<String, Fields>>,
) -> Answer<Value> {
    changed(app, turn, move |live| Ok(live.describe(described.into_iter().collect())?)).await
}

/// `POST /api/compact`: saves the index with all changes.
pub async fn compact<B: LocalBackend>(
    State(app): Shared<B>,
    Extension(turn): Extension<Turn>,
) -> Answer<Value> {
    changed(app, turn, |live| Ok(live.compact()?)).await
}

/// Makes a change, and saves the index anew where many have gathered.
async fn changed<B: LocalBackend>(
    app: Arc<App<B>>,
    turn: Turn,
    change: impl FnOnce(&LiveRetriever<B>) -> Result<(), Failure> + Send + 'static,
) -> Answer<Value> {
    let made = app.clone();
    let answer = blocking(move || {
        // Kept until the change is made, though nobody may wait for it any more.
        let _turn = turn;
        change(&made.live)?;
        made.metrics.changes.inc();
        let index: Arc<Retriever<B>> = made.live.snapshot();
        Ok(json!({ "candidates": index.index().ids().len() }))
    })
    .await?;
    let many = app.live.pending().1 > app.limits.compact;
    if many && !app.saving.swap(true, Ordering::AcqRel) {
        tokio::task::spawn_blocking(move || {
            let saved = catch_unwind(AssertUnwindSafe(|| app.live.compact()));
            app.saving.store(false, Ordering::Release);
            if let Ok(Err(error)) = saved {
                eprintln!("the index could not be saved anew: {error}");
            }
        });
    }
    Ok(answer)
}

/// A look into the index, in turn with others.
async fn looked<B: LocalBackend, T: Send + 'static>(
    app: Arc<App<B>>,
    look: impl FnOnce(&App<B>) -> Result<T, Failure> + Send + 'static,
) -> Answer<T> {
    let ending = |_| Failure::new(StatusCode::SERVICE_UNAVAILABLE, "the service is ending");
    let turn = app.looks.clone().acquire_owned().await.map_err(ending)?;
    blocking(move || {
        let _turn = turn;
        look(&app)
    })
    .await
}

/// Work that takes its time, on a thread of its own.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Answer<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map(Json),
        Err(_) => Err(Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "the work failed")),
    }
}
