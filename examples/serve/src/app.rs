//! What the routes share, and what every request passes through.

use std::{
    net::IpAddr,
    path::Path,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use axum::{
    Router,
    extract::{DefaultBodyLimit, MatchedPath, Request, State},
    http::{HeaderMap, Method, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{delete, get, post, put},
};
use cart_retrieval::{backend::LocalBackend, retrieve::LiveRetriever};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout},
};

use super::{
    api::{self, Failure},
    batch::Batcher,
    changes,
    media::MediaFolder,
    metrics::Metrics,
    page,
};

/// Longest body of a search.
pub const SEARCH_BYTES: usize = 64 << 10;
/// Longest body of a change.
pub const CHANGE_BYTES: usize = 32 << 20;
/// Changes whose bodies are in memory at once.
const CHANGES: usize = 2;
/// Walks and prefixes that are made at once.
const LOOKS: usize = 8;

/// What a service bears.
#[derive(Debug, Clone)]
pub struct Limits {
    pub timeout: Duration,
    /// Queries that may wait.
    pub queue: usize,
    /// Queries searched together.
    pub batch: usize,
    /// Bytes of changes after which the index is compacted.
    pub compact: u64,
    pub read_only: bool,
}

/// A service.
pub struct App<B: LocalBackend> {
    pub live: Arc<LiveRetriever<B>>,
    pub batcher: Batcher,
    pub media: MediaFolder,
    pub metrics: Arc<Metrics>,
    pub limits: Limits,
    hosts: Vec<String>,
    /// Walks and prefixes wait for each other here, whether somebody still waits for them or not.
    pub looks: Arc<Semaphore>,
    changes: Arc<Semaphore>,
    /// Whether the index is being compacted.
    pub saving: AtomicBool,
}

/// The right to have the body of a change in memory, until the change is made.
pub type Turn = Arc<OwnedSemaphorePermit>;

impl<B: LocalBackend> App<B> {
    /// A service of an index; requests have to be addressed to one of the hosts, or to this
    /// machine.
    pub fn new(
        live: LiveRetriever<B>,
        media: &Path,
        hosts: Vec<String>,
        limits: Limits,
    ) -> Arc<Self> {
        let (live, metrics) = (Arc::new(live), Arc::new(Metrics::new()));
        let batcher = Batcher::start(live.clone(), metrics.clone(), limits.queue, limits.batch);
        let (looks, changes) = (Semaphore::new(LOOKS), Semaphore::new(CHANGES));
        Arc::new(Self {
            live,
            batcher,
            media: MediaFolder::open(media),
            metrics,
            limits,
            hosts,
            looks: looks.into(),
            changes: changes.into(),
            saving: AtomicBool::new(false),
        })
    }

    /// All routes.
    pub fn router(self: Arc<Self>) -> Router {
        let asked = Router::new()
            .route("/api/search", post(api::search::<B>).get(api::search_by_link::<B>))
            .route("/api/explain", get(api::explain::<B>))
            .route("/api/prefix", get(api::prefix::<B>))
            .route("/api/info", get(api::info::<B>))
            .route("/media/{id}", get(api::media::<B>))
            .route("/health", get(api::health::<B>))
            .route("/metrics", get(api::metrics::<B>))
            .layer(DefaultBodyLimit::max(SEARCH_BYTES));
        let changed = Router::new()
            .route("/api/items", post(changes::add::<B>))
            .route("/api/items", put(changes::update::<B>))
            .route("/api/items", delete(changes::remove::<B>))
            .route("/api/metadata", put(changes::describe::<B>))
            .route("/api/compact", post(changes::compact::<B>))
            .layer(DefaultBodyLimit::max(CHANGE_BYTES))
            // Not what is asked for in vain.
            .route_layer(middleware::from_fn_with_state(self.clone(), in_turn::<B>));
        Router::new()
            .merge(page::routes())
            .merge(asked)
            .merge(changed)
            .method_not_allowed_fallback(api::not_allowed)
            .fallback(api::not_found)
            .layer(middleware::from_fn_with_state(self.clone(), watched::<B>))
            .with_state(self)
    }

    /// Whether a request may be addressed to this host. A page of another site whose name was made
    /// to lead to this machine still asks for its own name.
    fn knows(&self, host: &str) -> bool {
        let local = ["localhost", "127.0.0.1", "::1"].contains(&name(host));
        local || self.hosts.iter().any(|known| known == name(host))
    }

    /// Whether a browser sends a request for a page of ours, or nobody says whose it is: pages of
    /// other sites can send some without asking first.
    fn is_own(&self, headers: &HeaderMap, host: &str) -> bool {
        let Some(origin) = headers.get(header::ORIGIN) else { return true };
        let from = origin.to_str().ok().and_then(|origin| Some(origin.split_once("://")?.1));
        // Other programs of this machine have its address too: only a name may differ from the one
        // that was asked.
        let named = |from: &str| name(from).parse::<IpAddr>().is_err();
        let known = |from: &str| self.hosts.iter().any(|known| known == name(from));
        from.is_some_and(|from| from == host || named(from) && known(from))
    }
}

/// A host without its port.
fn name(host: &str) -> &str {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    name.trim_start_matches('[').trim_end_matches(']')
}

/// Limits how many bodies of changes are read at once; a read-only service reads none.
async fn in_turn<B: LocalBackend>(
    State(app): State<Arc<App<B>>>,
    mut request: Request,
    next: Next,
) -> Response {
    if app.limits.read_only {
        let message = "this service takes no changes (--read-only); make them in the program that has \
            the index open for changes";
        let refused = Failure::new(StatusCode::FORBIDDEN, message);
        return refused.into_response();
    }
    match app.changes.clone().acquire_owned().await {
        Ok(turn) => {
            request.extensions_mut().insert::<Turn>(Arc::new(turn));
            next.run(request).await
        }
        Err(_) => Failure::new(StatusCode::SERVICE_UNAVAILABLE, "the service is shutting down")
            .into_response(),
    }
}

/// Counts requests, gives up those that take too long, and refuses those that are meant for others
/// or come from them.
async fn watched<B: LocalBackend>(
    State(app): State<Arc<App<B>>>,
    request: Request,
    next: Next,
) -> Response {
    let started = Instant::now();
    // Only routes that there are become a label.
    let matched = request.extensions().get::<MatchedPath>();
    let route = matched.map_or("unknown", MatchedPath::as_str).to_string();
    let headers = request.headers();
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let reads = [Method::GET, Method::HEAD].contains(request.method());
    let refusal = match (app.knows(host), reads || app.is_own(headers, host)) {
        (false, _) => {
            Some("this service does not answer to that host name; start it with --hosts NAME")
        }
        (true, false) => Some("this service takes no changes from pages of other sites"),
        (true, true) => None,
    };
    let response = match refusal {
        Some(why) => Failure::new(StatusCode::FORBIDDEN, why).into_response(),
        None => match timeout(app.limits.timeout, next.run(request)).await {
            Ok(response) => response,
            Err(_) => Failure::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "the request took too long; a change may have been made nevertheless",
            )
            .into_response(),
        },
    };
    app.metrics.answered(&route, response.status().as_u16(), started.elapsed());
    response
}
