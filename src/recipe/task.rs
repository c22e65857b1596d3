//! Training data, candidates and queries that a recipe selects from a data folder.

use std::collections::HashSet;

use burn::tensor::backend::Backend;
use rand::{SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

use super::settings::{Recipe, TuningSettings};
use crate::{
    data::{CaptionFilter, DataFolder, ItemCaption, LeakAudit, words},
    decode::Filter,
    error::{Error, Result},
    eval::Ranking,
    features::Features,
    retrieve::Retriever,
};

/// Which captions of a recipe are the queries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The queries that are reported.
    Test,
    /// The queries for choosing settings.
    Tuning,
}

/// Training data, candidates and queries.
pub struct Task {
    /// Candidates to train on.
    pub items: Features,
    /// Captions to train on.
    pub train: Vec<ItemCaption>,
    /// Captions to choose the best model by.
    pub valid: Vec<ItemCaption>,
    /// Candidates to find.
    pub candidates: Features,
    /// The queries.
    pub queries: Vec<ItemCaption>,
    /// Where those candidates are in the training.
    pub asked: Asked,
    /// Queries among the training texts.
    pub leaks: LeakAudit,
}

/// The candidates to find, as the training knows them.
#[derive(Debug, Clone, PartialEq)]
pub enum Asked {
    /// All of the training's.
    All,
    /// Those rows of the training's: a split of which captioners know something.
    Part(Vec<usize>),
    /// None of them.
    Unseen,
}

/// Candidates that are added later, by their own rows.
pub struct Later {
    /// The candidates.
    pub items: Features,
    /// Their captions, which are not trained on.
    pub texts: Vec<ItemCaption>,
    /// Their queries.
    pub queries: Vec<ItemCaption>,
}

impl Task {
    /// Selects training data, candidates and queries from `data`.
    ///
    /// With splits, the train split is trained on with its captions, and queries are those of the
    /// queried split, whose items are the candidates. They belong to the training only where
    /// captioners have described items (`generated`); then with those captions alone.
    ///
    /// # Errors
    /// [`Error::Captions`] or [`Error::Splits`] when the data have no such captions or splits, and
    /// [`Error::Config`] for a part that the recipe does not have.
    pub fn new(recipe: &Recipe, data: &DataFolder, part: Part) -> Result<Self> {
        let ((train, train_table), (queries, queries_table)) = filters(recipe, part)?;
        let train = selected(data, train, train_table)?;
        let queries = if recipe.chooses_queries() && part == Part::Test {
            if recipe.holds_out() {
                unknown(selected(data, queries, queries_table)?, &train)
            } else {
                Vec::new()
            }
        } else {
            selected(data, queries, queries_table)?
        };
        let generated = generated(recipe, data)?;
        let valid = match (&recipe.validation, part) {
            (Some(filter), Part::Test) => selected(data, filter, "validation")?,
            _ => Vec::new(),
        };
        let audit = |train: &[ItemCaption], queries: &[ItemCaption]| {
            recipe.audit.run(train, queries, data.items.ids())
        };
        let Some(splits) = &recipe.splits else {
            let items = data.items.clone();
            let train = [train, generated].concat();
            return Ok(Self {
                leaks: audit(&train, &queries)?,
                candidates: items.clone(),
                items,
                train,
                valid,
                queries,
                asked: Asked::All,
            });
        };
        let mut known = split(data, &splits.train)?;
        let asked = match part {
            Part::Test => &splits.test,
            Part::Tuning => splits.tuning.as_ref().ok_or_else(|| no_part("[splits] tuning"))?,
        };
        let asked = split(data, asked)?;
        // Only captioners may describe items of other splits.
        let mut train = of_rows(&train, &known, data.items.len());
        let queries = of_rows(&queries, &asked, data.items.len());
        let place = if generated.is_empty() {
            Asked::Unseen
        } else {
            let first = known.len();
            known.extend(&asked);
            train.extend(of_rows(&generated, &known, data.items.len()));
            Asked::Part((first..known.len()).collect())
        };
        if train.is_empty() {
            return Err(none_of_split("train", &splits.train, "choose another split or captions"));
        }
        let valid = within(&valid, &known, data.items.len());
        if recipe.validation.is_some() && part == Part::Test && valid.is_empty() {
            let remedy = "choose others, or remove [validation] to keep the last model";
            return Err(none_of_split("validation", &splits.train, remedy));
        }
        Ok(Self {
            leaks: audit(&train, &queries)?,
            items: data.items.select(&known),
            train: within(&train, &known, data.items.len()),
            valid,
            candidates: data.items.select(&asked),
            queries: within(&queries, &asked, data.items.len()),
            asked: place,
        })
    }

    /// Applies the recipe's audit of queries among the training texts, and returns its warnings.
    ///
    /// # Errors
    /// As [`LeakAudit::ensure`].
    pub fn check_leaks(&self, recipe: &Recipe) -> Result<Vec<String>> {
        self.leaks.ensure(&recipe.audit).map_err(|error| error.within("[audit] of the recipe"))
    }

    /// The reason why there are no queries, if there are none.
    pub fn nothing_to_ask(&self, recipe: &Recipe) -> Option<&'static str> {
        if !self.queries.is_empty() {
            return None;
        }
        Some(match (recipe.chooses_queries(), recipe.holds_out()) {
            (true, false) => {
                "no queries: every candidate has one caption, which the index was trained on, so \
                 that a query with it would measure memorisation; give some candidates a second \
                 caption, which is then held out as a query, or select other captions in \
                 [queries] of a recipe"
            }
            (true, true) => {
                "no queries: the held-out captions have the same words as other captions of their \
                 candidates; give candidates captions that differ"
            }
            (false, _) => "no queries: check [queries] and [splits] of the recipe",
        })
    }

    /// Training texts of the candidates, by their places among them.
    pub fn texts(&self) -> Vec<ItemCaption> {
        match &self.asked {
            Asked::All => self.train.clone(),
            Asked::Part(rows) => within(&self.train, rows, self.items.len()),
            Asked::Unseen => Vec::new(),
        }
    }

    /// How the training knows the candidates, for reports.
    pub fn known(&self) -> &'static str {
        match self.asked {
            Asked::All => "seen",
            Asked::Part(_) => "described",
            Asked::Unseen => "unseen",
        }
    }

    /// Keeps a share of the candidates, drawn by a seed, for later: nothing of theirs is trained
    /// on.
    pub fn hold_back(self, share: f64, seed: u64) -> Result<(Self, Later)> {
        Error::config("[splits] of the recipe")
            .expected("no splits when candidates are held back")
            .found("splits")
            .fix_if(self.asked != Asked::All, "give a recipe without [splits]")?;
        let n = self.items.len();
        let mut rows: Vec<usize> = (0..n).collect();
        rows.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
        let later = rows.split_off(n - (share * n as f64).round() as usize);
        Error::config("share of candidates to hold back")
            .expected(format!(
                "a share that leaves at least two of {n} candidates now and one for later"
            ))
            .found(share.to_string())
            .fix_if(rows.len() < 2 || later.is_empty(), "choose another share")?;
        let part = |captions: &[ItemCaption], rows: &[usize]| within(captions, rows, n);
        let now = Self {
            items: self.items.select(&rows),
            candidates: self.items.select(&rows),
            train: part(&self.train, &rows),
            valid: part(&self.valid, &rows),
            queries: part(&self.queries, &rows),
            asked: Asked::All,
            leaks: self.leaks,
        };
        let later = Later {
            items: self.items.select(&later),
            texts: part(&self.train, &later),
            queries: part(&self.queries, &later),
        };
        Ok((now, later))
    }

    pub(super) fn over_here<B: Backend>(
        &self,
        retriever: Retriever<B>,
        recipe: &Recipe,
    ) -> Result<Retriever<B>> {
        match self.asked {
            Asked::All | Asked::Part(_) => Ok(retriever),
            Asked::Unseen => over(retriever, &self.candidates, recipe),
        }
    }

    /// Refuses an index that was not trained on the candidates of this task.
    ///
    /// # Errors
    /// [`Error::Index`] saying so.
    pub fn ensure_trained_by<B: Backend>(&self, retriever: &Retriever<B>) -> Result<()> {
        if retriever.index().ids().iter().eq(self.items.ids().iter()) {
            return Ok(());
        }
        Err(Error::index("candidates of the index")
            .expected(format!("the {} candidates that the recipe trains on", self.items.len()))
            .found("others")
            .fix("evaluate the index with the data and the recipe that it was trained with"))
    }

    /// Candidates that answer some texts, among those of an index made by [`Task::over`].
    pub fn rankings<B: Backend>(
        &self,
        retriever: &Retriever<B>,
        texts: &[impl AsRef<str>],
        top: usize,
    ) -> Result<Vec<Ranking>> {
        let search = retriever.query(texts).top(top.min(self.candidates.len()));
        let (Asked::Part(rows), Some(filter)) = (&self.asked, self.filter(retriever)) else {
            return search.rankings();
        };
        let place = places(rows, self.items.len());
        let mut found = search.filter(&filter).rankings()?;
        for item in found.iter_mut().flat_map(|ranking| &mut ranking.items) {
            *item = place[*item as usize].ok_or_else(|| {
                Error::query("answers of the queried split")
                    .expected("candidates of the split")
                    .found("another one")
                    .fix("report this: the filter let it through")
            })?;
        }
        Ok(found)
    }

    /// What lets an index made by [`Task::over`] answer with the candidates alone, where it has
    /// others too.
    pub fn filter<B: Backend>(&self, retriever: &Retriever<B>) -> Option<Filter> {
        let Asked::Part(rows) = &self.asked else {
            return None;
        };
        let place = places(rows, self.items.len());
        Some(retriever.index().filter(|item| place[item as usize].is_some()))
    }

    /// The items of the index that are some of the candidates.
    pub fn of_index(&self, candidates: &[u32]) -> Vec<u32> {
        match &self.asked {
            Asked::Part(rows) => candidates.iter().map(|&at| rows[at as usize] as u32).collect(),
            Asked::All | Asked::Unseen => candidates.to_vec(),
        }
    }
}

/// The candidates to train on and their captions, renumbered: what settings follow from.
pub(super) fn selection(
    recipe: &Recipe,
    data: &DataFolder,
) -> Result<(Features, Vec<ItemCaption>)> {
    let mut train = selected(data, &recipe.train, "train")?;
    let n = data.items.len();
    let Some(splits) = &recipe.splits else {
        train.extend(generated(recipe, data)?);
        return Ok((data.items.clone(), train));
    };
    let mut known = split(data, &splits.train)?;
    train = of_rows(&train, &known, n);
    if !recipe.generated.is_empty() {
        known.extend(split(data, &splits.test)?);
        train.extend(of_rows(&generated(recipe, data)?, &known, n));
    }
    Ok((data.items.select(&known), within(&train, &known, n)))
}

/// A caption filter and the table that it comes from.
type Named<'a> = (&'a CaptionFilter, &'static str);

/// Captions to train on and to query with.
fn filters(recipe: &Recipe, part: Part) -> Result<(Named<'_>, Named<'_>)> {
    match (part, &recipe.tuning) {
        (Part::Tuning, Some(TuningSettings { train, queries })) => {
            Ok(((train, "tuning.train"), (queries, "tuning.queries")))
        }
        (Part::Tuning, None) if recipe.splits.is_none() => Err(no_part("[tuning]")),
        _ => Ok(((&recipe.train, "train"), (&recipe.queries, "queries"))),
    }
}

fn no_part(table: &str) -> Error {
    Error::config(format!("{table} of the recipe"))
        .expected("captions to choose settings by")
        .found("no tuning split and no tuning captions")
        .fix("add [tuning] with train and queries, or `tuning` to [splits]")
}

fn none_of_split(table: &str, split: &str, remedy: &str) -> Error {
    let subject = format!("[{table}] and [splits] of the recipe");
    Error::captions(subject)
        .expected(format!("captions of items of the split `{split}`"))
        .found("none")
        .fix(remedy)
}

/// Rows of a split.
fn split(data: &DataFolder, name: &str) -> Result<Vec<usize>> {
    let Some(splits) = &data.splits else {
        return Err(Error::splits("[splits] of the recipe")
            .expected(format!("splits.json in {}", data.folder().display()))
            .found("none")
            .fix(
                "write one, or remove [splits]: without a recipe, all candidates are trained on",
            ));
    };
    let rows = splits
        .indices(name, |id| data.items.index_of(id))
        .map_err(|error| error.within("[splits] of the recipe"))?;
    Ok(rows.into_iter().map(|row| row as usize).collect())
}

/// Captions of captioners, with the recipe's weight.
fn generated(recipe: &Recipe, data: &DataFolder) -> Result<Vec<ItemCaption>> {
    let mut all = Vec::new();
    for file in &recipe.generated {
        let path = data.folder().join(file);
        if !path.is_file() {
            return Err(Error::captions("generated captions of the recipe")
                .expected(format!("a file {}", path.display()))
                .found("none")
                .fix(
                    "write it with the example `caption`, or remove `generated` from the recipe",
                ));
        }
        all.extend(data.generated(path)?);
    }
    for caption in &mut all {
        caption.weight *= recipe.generated_weight;
    }
    Ok(all)
}

/// The captions that a table of the recipe selects.
fn selected(data: &DataFolder, filter: &CaptionFilter, table: &str) -> Result<Vec<ItemCaption>> {
    data.select(filter).map_err(|error| {
        error.within(format!("[{table}] of the recipe")).or_else(
            "the recipe is meant for other captions; without a recipe, all captions are used",
        )
    })
}

/// The queries that are not, word for word, a training text of their own item.
fn unknown(mut queries: Vec<ItemCaption>, train: &[ItemCaption]) -> Vec<ItemCaption> {
    let key = |caption: &ItemCaption| (caption.item, words(&caption.text).collect::<Vec<_>>());
    let known: HashSet<_> = train.iter().map(key).collect();
    queries.retain(|query| !known.contains(&key(query)));
    queries
}

/// Where each of so many rows lies among these.
fn places(rows: &[usize], of: usize) -> Vec<Option<u32>> {
    let mut places = vec![None; of];
    rows.iter().zip(0..).for_each(|(&row, place)| places[row] = Some(place));
    places
}

/// The captions of some rows.
fn of_rows(captions: &[ItemCaption], rows: &[usize], of: usize) -> Vec<ItemCaption> {
    let place = places(rows, of);
    captions.iter().filter(|caption| place[caption.item as usize].is_some()).cloned().collect()
}

/// The captions of some rows, with the places of those rows in the list.
fn within(captions: &[ItemCaption], rows: &[usize], of: usize) -> Vec<ItemCaption> {
    let place = places(rows, of);
    let renumbered = |caption: &ItemCaption| {
        place[caption.item as usize].map(|item| ItemCaption { item, ..caption.clone() })
    };
    captions.iter().filter_map(renumbered).collect()
}

/// The index over other candidates, by their features alone.
fn over<B: Backend>(
    retriever: Retriever<B>,
    items: &Features,
    recipe: &Recipe,
) -> Result<Retriever<B>> {
    let vectors = match retriever.space() {
        Some(space) => space.embed(items, None)?,
        None => items.clone(),
    };
    let several = recipe.identifiers.config();
    let index = retriever.quantizer().assign(&vectors).several(several).run()?;
    let index = match retriever.index().prefix_stats() {
        Some(_) => index.with_vectors(vectors)?,
        None => index,
    };
    retriever.with_candidates(index)
}
