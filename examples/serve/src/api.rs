//! The routes that read: what is asked, what is answered.

use std::sync::Arc;

use axum::{
    Json,
    body::Bytes,
    extract::{
        FromRequest, Path, Query, Request, State,
        rejection::{PathRejection, QueryRejection},
    },
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use cart_retrieval::{
    Error,
    backend::LocalBackend,
    expert::Trie,
    metadata::{Condition, Fields},
    retrieve::{DriftThresholds, Hit},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{
    app::{App, CHANGE_BYTES, SEARCH_BYTES},
    batch::{Question, Unanswered},
    media, ranges,
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
            Unanswered::Full => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "too many queries are waiting; try again later",
            ),
            Unanswered::Ending => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "the service is shutting down")
            }
            Unanswered::Failed => Self::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "the search failed; the service's log says why",
            ),
            Unanswered::Refused(error) => error.into(),
        }
    }
}

impl From<QueryRejection> for Failure {
    fn from(rejection: QueryRejection) -> Self {
        Self::new(rejection.status(), rejection.body_text())
    }
}

/// A body of JSON, refused in our own words where it is none.
pub struct Body<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        let kind = request.headers().get(header::CONTENT_TYPE);
        let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let essence = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let is_json = essence == "application/json"
            || essence.starts_with("application/") && essence.ends_with("+json");
        if !is_json {
            let found = if kind.is_empty() { "none".to_string() } else { format!("{kind:?}") };
            return Err(Failure::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                format!("the Content-Type is {found}; send JSON as application/json"),
            ));
        }
        let bytes = Bytes::from_request(request, state).await.map_err(|rejection| {
            let message = match rejection.status() {
                StatusCode::PAYLOAD_TOO_LARGE => format!(
                    "the body is too long; at most {} KiB are read of a search and {} MiB of a \
                     change: send fewer items at a time",
                    SEARCH_BYTES >> 10,
                    CHANGE_BYTES >> 20
                ),
                _ => format!("the body cannot be read: {}; send it again", rejection.body_text()),
            };
            Failure::new(rejection.status(), message)
        })?;
        // Some editors put a byte order mark first; JSON knows none.
        let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&bytes);
        if bytes.trim_ascii().is_empty() {
            let message = "the body is empty; send a JSON object";
            return Err(Failure::new(StatusCode::BAD_REQUEST, message));
        }
        serde_json::from_slice(bytes).map(Self).map_err(|error| {
            let status = match error.classify() {
                serde_json::error::Category::Data => StatusCode::UNPROCESSABLE_ENTITY,
                _ => StatusCode::BAD_REQUEST,
            };
            Failure::new(status, format!("the body is not what is expected: {error}"))
        })
    }
}

/// Paths that there are not.
pub async fn not_found() -> Failure {
    let message = "there is no such path; docs/index.md lists those there are";
    Failure::new(StatusCode::NOT_FOUND, message)
}

/// Methods that a path does not have; the header `Allow` lists those it has.
pub async fn not_allowed() -> Failure {
    let message = "this path does not take that method; the header Allow lists those it takes";
    Failure::new(StatusCode::METHOD_NOT_ALLOWED, message)
}

pub type Answer<T> = Result<Json<T>, Failure>;
pub type Shared<B> = State<Arc<App<B>>>;

/// A search.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SearchRequest {
    query: String,
    top: Option<usize>,
    beam: Option<usize>,
    filter: Option<Value>,
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
    /// Words that the index does not know, and texts that are cut.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
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
    let SearchRequest { query, top, beam, filter } = request;
    let condition = filter.map(Condition::from_value).transpose()?;
    let bad = |message: String| Err(Failure::new(StatusCode::BAD_REQUEST, message));
    if query.trim().is_empty() {
        return bad("the query is blank; say what to look for".into());
    }
    if query.len() > LONGEST_QUERY {
        return bad(format!(
            "the query has {} bytes; at most {LONGEST_QUERY} are allowed",
            query.len()
        ));
    }
    let top = top.unwrap_or(10);
    let beam = beam.unwrap_or(app.live.snapshot().beam().width);
    if !(1..=MOST).contains(&top) || !(1..=MOST).contains(&beam) {
        return bad(format!("top and beam must be 1 to {MOST}, not {top} and {beam}"));
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
        let warnings = app.live.snapshot().tokenizer().check(&query)?.warnings();
        Ok(SearchAnswer { query, milliseconds, warnings, hits })
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
    let filter = filter.map(|text| Condition::parse(&text)).transpose()?.map(Value::from);
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
        let walk = app.live.snapshot().query(&q).explain(&id, 4)?;
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
            let item = index.index().identifier_map().of(entry);
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
    id: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, Failure> {
    let none = || {
        let message =
            "no candidate of that id has a file; ids are written as in answers, percent-encoded";
        Failure::new(StatusCode::NOT_FOUND, message)
    };
    let Path(id) = id.map_err(|_| none())?;
    let Json((path, kind)) = blocking(move || {
        let index = app.live.snapshot();
        let row = index.index().ids().index_of(&id).ok_or_else(none)?;
        let metadata = index.index().metadata().map(|known| known.get(row)).transpose()?;
        let path = app.file(&id, metadata.as_ref()).ok_or_else(none)?;
        let (_, kind) = media::kind(&path).ok_or_else(none)?;
        Ok((path, kind))
    })
    .await?;
    let served = ranges::serve(&path, request.method(), request.headers()).await;
    let mut response = served.map_err(|_| none())?;
    let headers = response.headers_mut();
    if headers.get(header::CONTENT_TYPE).is_none_or(|kind| kind != "application/json") {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    Ok(response)
}

/// `GET /health`
pub async fn health<B: LocalBackend>(State(app): Shared<B>) -> Result<&'static str, Failure> {
    if app.batcher.is_running() {
        return Ok("ok\n");
    }
    Err(Failure::new(StatusCode::SERVICE_UNAVAILABLE, "the service no longer answers queries"))
}

/// `GET /metrics`
pub async fn metrics<B: LocalBackend>(State(app): Shared<B>) -> Response {
    app.metrics.candidates.set(app.live.snapshot().index().ids().len() as i64);
    app.metrics.pending.set(app.live.pending().1 as i64);
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];
    (kind, app.metrics.text()).into_response()
}

/// A look into the index, in turn with others.
async fn looked<B: LocalBackend, T: Send + 'static>(
    app: Arc<App<B>>,
    look: impl FnOnce(&App<B>) -> Result<T, Failure> + Send + 'static,
) -> Answer<T> {
    let ending = |_| Failure::new(StatusCode::SERVICE_UNAVAILABLE, "the service is shutting down");
    let turn = app.looks.clone().acquire_owned().await.map_err(ending)?;
    blocking(move || {
        let _turn = turn;
        look(&app)
    })
    .await
}

/// Work that takes its time, on a thread of its own.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Answer<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map(Json),
        Err(_) => Err(Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "the work failed")),
    }
}
