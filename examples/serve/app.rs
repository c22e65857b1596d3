//! What the routes share, and what every request passes through.

use std::{path::Path, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request, State},
    http::{StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{delete, get, post, put},
};
use cart_retrieval::{backend::LocalBackend, retrieve::LiveRetriever};
use tokio::time::{Instant, timeout};

use super::{
    api::{self, Failure},
    batch::Batcher,
    media::MediaFolder,
    metrics::Metrics,
    page,
};

/// Longest body of a search.
const SEARCH_BYTES: usize = 64 << 10;
/// Longest body of a change.
const CHANGE_BYTES: usize = 64 << 20;

/// What a service bears.
#[derive(Debug, Clone)]
pub struct Limits {
    pub timeout: Duration,
    /// Queries that may wait.
    pub queue: usize,
    /// Queries searched together.
    pub batch: usize,
    /// Bytes of changes after which the index is saved anew.
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
}

impl<B: LocalBackend> App<B> {
    /// A service of an index; requests have to be addressed to one of the hosts, or to this machine.
    pub fn new(
        live: LiveRetriever<B>,
        media: &Path,
        hosts: Vec<String>,
        limits: Limits,
    ) -> Arc<Self> {
        let (live, metrics) = (Arc::new(live), Arc::new(Metrics::new()));
        let batcher = Batcher::start(live.clone(), metrics.clone(), limits.queue, limits.batch);
        Arc::new(Self { live, batcher, media: MediaFolder::open(media), metrics, limits, hosts })
    }

    /// All routes.
    pub fn router(self: Arc<Self>) -> Router {
        let asked = Router::new()
            .route("/api/search", post(api::search::<B>).get(api::search_by_link::<B>))
            .route("/api/explain", get(api::explain::<B>))
            .route("/api/prefix", get(api::prefix::<B>))
            .route("/api/info", get(api::info::<B>))
            .route("/media/{id}", get(api::media::<B>))
            .route("/health", get(api::health))
            .route("/metrics", get(api::metrics::<B>))
            .layer(DefaultBodyLimit::max(SEARCH_BYTES));
        let changed = Router::new()
            .route("/api/items", post(api::add::<B>))
            .route("/api/items", put(api::update::<B>))
            .route("/api/items", delete(api::remove::<B>))
            .route("/api/metadata", put(api::describe::<B>))
            .route("/api/compact", post(api::compact::<B>))
            .layer(DefaultBodyLimit::max(CHANGE_BYTES));
        Router::new()
            .merge(page::routes())
            .merge(asked)
            .merge(changed)
            .layer(middleware::from_fn_with_state(self.clone(), watched::<B>))
            .with_state(self)
    }

    /// Whether a request may be addressed to this host. A page of another site whose name was made to lead to this
    /// machine still asks for its own name.
    fn knows(&self, host: &str) -> bool {
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
            _ => host,
        };
        let name = name.trim_start_matches('[').trim_end_matches(']');
        let local = ["localhost", "127.0.0.1", "::1"].contains(&name);
        local || self.hosts.iter().any(|known| known == name)
    }
}

/// Counts requests, gives up those that take too long, and refuses those that are meant for others.
async fn watched<B: LocalBackend>(
    State(app): State<Arc<App<B>>>,
    request: Request,
    next: Next,
) -> Response {
    let started = Instant::now();
    let path = request.uri().path();
    let route = match path.split('/').nth(1) {
        Some("media") => "/media".to_string(),
        Some("api" | "health" | "metrics") => path.to_string(),
        _ => "/".to_string(),
    };
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let response = match host.is_some_and(|host| app.knows(host)) {
        false => Failure::new(
            StatusCode::FORBIDDEN,
            "this service does not answer to that host name; start it with --hosts NAME",
        )
        .into_response(),
        true => match timeout(app.limits.timeout, next.run(request)).await {
            Ok(response) => response,
            Err(_) => Failure::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "the request took too long; a change may have been made all the same",
            )
            .into_response(),
        },
    };
    // Only routes that there are become a label.
    let route = if response.status() == StatusCode::NOT_FOUND { "unknown" } else { &route };
    app.metrics.answered(route, response.status().as_u16(), started.elapsed());
    response
}
