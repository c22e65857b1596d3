//! The routes that change the index.

use std::{
    collections::HashMap,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering},
};

use axum::{Extension, extract::State, http::StatusCode};
use cart_retrieval::{
    backend::LocalBackend,
    data::ItemCaption,
    expert::canonical_id,
    features::{Features, ItemIds},
    metadata::Fields,
    retrieve::{LiveRetriever, NewCandidates, Retriever},
};
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::{Value, json};

use super::{
    api::{Answer, Body, Failure, Shared, blocking},
    app::{App, Turn},
};

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
    changed(app, turn, move |live| {
        refuse_twins(&new.items, live.snapshot().index().ids())?;
        arrivals(new.items, |arrivals| live.add(arrivals))
    })
    .await
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
    change: impl FnOnce(&NewCandidates<'_>) -> cart_retrieval::Result<()>,
) -> Result<(), Failure> {
    let bad = |message: String| Failure::new(StatusCode::BAD_REQUEST, message);
    let first = items.first().ok_or_else(|| bad("there are no items; send at least one".into()))?;
    let dim = first.features.len();
    if let Some(item) = items.iter().find(|item| item.features.len() != dim) {
        return Err(bad(format!(
            "features of {:?}: {} numbers where the first item has {dim}",
            item.id,
            item.features.len()
        )));
    }
    let grouped = items.iter().filter(|item| item.group.is_some()).count();
    if let Some(item) = items.iter().find(|item| item.group.is_none()).filter(|_| grouped > 0) {
        return Err(bad(format!(
            "{grouped} of {} items have a group and {:?} has none; give the group of every item, \
             or of none",
            items.len(),
            item.id
        )));
    }
    for item in &items {
        // Blank ids and control characters are refused by the library.
        let printable = !item.id.trim().is_empty() && !item.id.contains(char::is_control);
        if printable && item.id.trim() != item.id {
            return Err(bad(format!(
                "the id {:?} has white space at its ends; write {:?}",
                item.id,
                item.id.trim()
            )));
        }
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
    let mut arrivals =
        NewCandidates::new(&features).with_metadata(&metadata).with_captions(&captions);
    if let Some(groups) = &groups {
        arrivals = arrivals.with_groups(groups);
    }
    Ok(change(&arrivals)?)
}

/// Refuses new ids that look like those of other candidates and are not the same.
fn refuse_twins(items: &[NewItem], known: &ItemIds) -> Result<(), Failure> {
    let mut new: HashMap<String, &str> = HashMap::new();
    for NewItem { id, .. } in items {
        let before = new.insert(canonical_id(id), id).filter(|before| before != id);
        if let Some(twin) = before.or_else(|| known.twin(id)) {
            let (id, twin) = (id.escape_default(), twin.escape_default());
            return Err(Failure::new(
                StatusCode::BAD_REQUEST,
                format!(
                    "the id \"{id}\" looks like the existing \"{twin}\": they differ in spaces, \
                     invisible characters or Unicode normalisation; use the same spelling to \
                     update that candidate (PUT), or another id for a new one"
                ),
            ));
        }
    }
    Ok(())
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
    if gone.ids.is_empty() {
        return Err(Failure::new(StatusCode::BAD_REQUEST, "there are no ids; name what to remove"));
    }
    changed(app, turn, move |live| Ok(live.remove(&gone.ids)?)).await
}

/// Objects by id, as they are written: an id that is given twice is seen.
pub struct Described(Vec<(String, Fields)>);

impl<'de> Deserialize<'de> for Described {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Described;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with an object for each id")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Described, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Described(entries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

/// `PUT /api/metadata`: objects by id.
pub async fn describe<B: LocalBackend>(
    State(app): Shared<B>,
    Extension(turn): Extension<Turn>,
    Body(Described(described)): Body<Described>,
) -> Answer<Value> {
    if described.is_empty() {
        let message = "there are no ids; send an object with the metadata of each id";
        return Err(Failure::new(StatusCode::BAD_REQUEST, message));
    }
    changed(app, turn, move |live| Ok(live.describe(described)?)).await
}

/// `POST /api/compact`: saves the index with all changes.
pub async fn compact<B: LocalBackend>(
    State(app): Shared<B>,
    Extension(turn): Extension<Turn>,
) -> Answer<Value> {
    changed(app, turn, |live| Ok(live.compact()?)).await
}

/// Makes a change, and compacts the index once many changes have gathered.
async fn changed<B: LocalBackend>(
    app: Arc<App<B>>,
    turn: Turn,
    change: impl FnOnce(&LiveRetriever<B>) -> Result<(), Failure> + Send + 'static,
) -> Answer<Value> {
    let made = app.clone();
    let answer = blocking(move || {
        // Kept until the change is made, even if the client has gone.
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
                eprintln!("the index could not be compacted: {error}");
            }
        });
    }
    Ok(answer)
}
