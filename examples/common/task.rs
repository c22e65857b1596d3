//! What a recipe makes of a data folder: what to train on, what to find, what to ask.

use std::{collections::HashSet, path::Path};

use anyhow::{Context, Result, anyhow, bail, ensure};
use cart_retrieval::{
    backend::LocalBackend,
    data::{DataFolder, LeakAudit, words},
    decode::{Filter, Filters},
    eval::Ranking,
    prelude::*,
};
use rand::{SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

use super::recipe::{Automatic, Part, Recipe};

/// What to train on, what to find, and what to ask.
pub struct Task {
    /// Candidates of the training.
    pub items: Features,
    pub train: Vec<ItemCaption>,
    pub valid: Vec<ItemCaption>,
    /// Candidates to find.
    pub candidates: Features,
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

/// Candidates that come later, by their own rows.
pub struct Later {
    pub items: Features,
    /// What would have been trained on.
    pub texts: Vec<ItemCaption>,
    pub queries: Vec<ItemCaption>,
}

impl Task {
    /// Reads `data`, which was opened from `folder`, as a recipe says.
    ///
    /// With splits, the train split is trained on with its captions, and queries are those of the
    /// asked split, whose items are the candidates. They belong to the training only where
    /// captioners have described items (`generated`); then with those captions alone.
    pub fn new(recipe: &Recipe, folder: &Path, data: &DataFolder, part: Part) -> Result<Self> {
        ensure!(
            !matches!(recipe.automatic, Automatic::Open(_)),
            "an automatic recipe whose sizes do not follow the data yet: call Recipe::for_data"
        );
        let (train, queries) = recipe.filters(part)?;
        let tables = match (part, &recipe.tuning) {
            (Part::Tuning, Some(_)) => ("tuning.train", "tuning.queries"),
            _ => ("train", "queries"),
        };
        let train = selected(data, train, tables.0)?;
        let queries = match recipe.fitted() {
            Some(fitted) if !fitted.asks => Vec::new(),
            Some(_) => unknown(selected(data, queries, tables.1)?, &train),
            None => selected(data, queries, tables.1)?,
        };
        let mut generated = Vec::new();
        for file in &recipe.generated {
            let captions = data.generated(folder.join(file)).with_context(|| {
                format!(
                    "captions of a captioner, which the recipe names: the example `caption` writes them, and \
                     without `generated` in the recipe there are none ({})",
                    file.display()
                )
            })?;
            generated.extend(captions);
        }
        for caption in &mut generated {
            caption.weight *= recipe.generated_weight;
        }
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
        let Some(of) = &data.splits else {
            bail!(
                "the recipe's [splits]: expected splits.json in {}, found none; write one, or \
                 take a recipe without [splits] \
                 (examples/recipes/any.toml takes any captions)",
                folder.display()
            );
        };
        let rows = |name: &str| -> Result<Vec<usize>> {
            let rows = of
                .indices(name, |id| data.items.index_of(id))
                .map_err(|error| anyhow!("the recipe's [splits]: {error}"))?;
            Ok(rows.into_iter().map(|row| row as usize).collect())
        };
        let mut known = rows(&splits.train)?;
        let asked = match part {
            Part::Test => &splits.test,
            Part::Tuning => {
                splits.tuning.as_ref().context("the recipe's [splits] name no tuning split")?
            }
        };
        let asked = rows(asked)?;
        // Texts of the other splits are nobody's business, those of captioners excepted.
        let mut train = of_rows(&train, &known, data.items.len());
        let queries = of_rows(&queries, &asked, data.items.len());
        let place = match generated.is_empty() {
            true => Asked::Unseen,
            false => {
                let first = known.len();
                known.extend(&asked);
                train.extend(of_rows(&generated, &known, data.items.len()));
                Asked::Part((first..known.len()).collect())
            }
        };
        ensure!(
            !train.is_empty(),
            "the recipe's [train] and [splits]: expected captions of items of the split `{}`, \
             found none; choose \
             another split or other captions",
            splits.train
        );
        let valid = within(&valid, &known, data.items.len());
        ensure!(
            recipe.validation.is_none() || part == Part::Tuning || !valid.is_empty(),
            "the recipe's [validation]: expected captions of items of the split `{}`, found none; \
             choose others, or \
             remove [validation] to keep the last model",
            splits.train
        );
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

    /// Prints how many queries the training texts give away, and refuses what the recipe refuses.
    pub fn check_leaks(&self, recipe: &Recipe) -> Result<()> {
        println!("{}", self.leaks);
        let found = self.leaks.ensure(&recipe.audit).context("the recipe's [audit]")?;
        for warning in found {
            eprintln!("audit: {warning}");
        }
        Ok(())
    }

    /// Why there is nothing to ask, where there is not.
    pub fn nothing_to_ask(&self, recipe: &Recipe) -> Option<&'static str> {
        match recipe.fitted() {
            _ if !self.queries.is_empty() => None,
            Some(fitted) if !fitted.asks => Some(
                "nothing to ask: every candidate has one caption, which the index was trained on, \
                 and asking with it would \
                 measure memory; give some candidates a second caption, which is then held out, \
                 or name other \
                 captions in the recipe's [queries]",
            ),
            Some(_) => Some(
                "nothing to ask: the captions that are held out have the words of others of their \
                 candidate; give \
                 candidates captions that differ",
            ),
            None => Some("nothing to ask: check the recipe's [queries] and [splits]"),
        }
    }

    /// Training texts of the candidates, by their places among them.
    pub fn texts(&self) -> Vec<ItemCaption> {
        match &self.asked {
            Asked::All => self.train.clone(),
            Asked::Part(rows) => within(&self.train, rows, self.items.len()),
            Asked::Unseen => Vec::new(),
        }
    }

    /// How the candidates are known, in a word.
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
        if self.asked != Asked::All {
            bail!(
                "only candidates that are all trained on can come later: give a recipe without [splits]"
            );
        }
        let n = self.items.len();
        let mut rows: Vec<usize> = (0..n).collect();
        rows.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
        let later = rows.split_off(n - (share * n as f64).round() as usize);
        if rows.len() < 2 || later.is_empty() {
            bail!("a share of {share} of {n} candidates leaves none for now, or for later");
        }
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

    /// The index of the training over the candidates, where they are none of the training's.
    pub fn over<B: LocalBackend>(
        &self,
        retriever: Retriever<B>,
        recipe: &Recipe,
    ) -> Result<Retriever<B>> {
        match self.asked {
            Asked::All | Asked::Part(_) => Ok(retriever),
            Asked::Unseen => over(retriever, &self.candidates, recipe),
        }
    }

    /// Candidates that answer some texts, among those of an index made by [`Task::over`].
    pub fn rankings<B: LocalBackend>(
        &self,
        retriever: &Retriever<B>,
        texts: &[impl AsRef<str>],
        top: usize,
    ) -> Result<Vec<Ranking>> {
        let search = retriever.search_all(texts).top(top.min(self.candidates.len()));
        let (Asked::Part(rows), Some(filter)) = (&self.asked, self.filter(retriever)) else {
            return Ok(search.rankings()?);
        };
        let mut place = vec![None; self.items.len()];
        for (at, &row) in rows.iter().enumerate() {
            place[row] = Some(at as u32);
        }
        let mut found = search.filters(Filters::Same(&filter)).rankings()?;
        for item in found.iter_mut().flat_map(|ranking| &mut ranking.items) {
            *item = place[*item as usize].context("an answer that the filter does not allow")?;
        }
        Ok(found)
    }

    /// What lets an index made by [`Task::over`] answer with the candidates alone, where it has
    /// others too.
    pub fn filter<B: LocalBackend>(&self, retriever: &Retriever<B>) -> Option<Filter> {
        let Asked::Part(rows) = &self.asked else {
            return None;
        };
        let mut asked = vec![false; self.items.len()];
        rows.iter().for_each(|&row| asked[row] = true);
        Some(retriever.index().filter(|item| asked[item as usize]))
    }

    /// The items of the index that are some of the candidates.
    pub fn of_index(&self, candidates: &[u32]) -> Vec<u32> {
        match &self.asked {
            Asked::Part(rows) => candidates.iter().map(|&at| rows[at as usize] as u32).collect(),
            Asked::All | Asked::Unseen => candidates.to_vec(),
        }
    }
}

/// The captions that a table of the recipe chooses.
fn selected(data: &DataFolder, filter: &CaptionFilter, table: &str) -> Result<Vec<ItemCaption>> {
    data.select(filter).map_err(|error| {
        anyhow!(
            "the recipe's [{table}]: {error} (the recipe is meant for other captions; \
             examples/recipes/any.toml takes any)"
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

/// The captions of some rows.
fn of_rows(captions: &[ItemCaption], rows: &[usize], of: usize) -> Vec<ItemCaption> {
    let mut wanted = vec![false; of];
    rows.iter().for_each(|&row| wanted[row] = true);
    captions.iter().filter(|caption| wanted[caption.item as usize]).cloned().collect()
}

/// The captions of some rows, with the places of those rows in the list.
fn within(captions: &[ItemCaption], rows: &[usize], of: usize) -> Vec<ItemCaption> {
    let mut place = vec![None; of];
    for (at, &row) in rows.iter().enumerate() {
        place[row] = Some(at as u32);
    }
    let renumbered = |caption: &ItemCaption| {
        place[caption.item as usize].map(|item| ItemCaption { item, ..caption.clone() })
    };
    captions.iter().filter_map(renumbered).collect()
}

/// The index over other candidates, by their features alone.
fn over<B: LocalBackend>(
    retriever: Retriever<B>,
    items: &Features,
    recipe: &Recipe,
) -> Result<Retriever<B>> {
    let vectors = match retriever.space() {
        Some(space) => space.embed(items, None)?,
        None => items.clone(),
    };
    let several = recipe.identifiers.config();
    let index = retriever.quantizer().assign_several(&vectors, None, &several)?;
    let index = match retriever.index().geometry() {
        Some(_) => index.with_vectors(vectors)?,
        None => index,
    };
    Ok(retriever.with_candidates(index)?)
}
