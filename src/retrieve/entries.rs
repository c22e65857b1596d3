//! Candidates out of entries, where candidates have several identifiers.

use burn::tensor::backend::Backend;

use super::Retriever;
use crate::{
    decode::{Answer, BeamConfig, Exact, Explanation, SearchSpace},
    error::Result,
    model::EncodedQueries,
    trie::{Filter, Filters},
};

impl<B: Backend> Retriever<B> {
    /// The best entry of every candidate that a beam finds, best first. Where entries of the same candidates fill a query's
    /// beam, it is decoded again with one twice as wide, until there are as many candidates as the beam has places or no more
    /// are allowed.
    ///
    /// `search` answers some of the queries, by their numbers, with the filter of each.
    pub(super) fn distinct(
        &self,
        queries: usize,
        beam: &BeamConfig,
        filters: Filters<'_>,
        search: impl Fn(&[usize], SearchSpace<'_>, &BeamConfig) -> Result<Vec<Vec<Answer>>>,
    ) -> Result<Vec<Vec<Answer>>> {
        let owners = self.index.owners();
        filters.check(self.index.trie().len(), queries)?;
        let mut all = vec![Vec::new(); queries];
        let mut open: Vec<usize> = (0..queries).collect();
        let mut wider = beam.clone();
        loop {
            let each: Vec<Option<&Filter>> = open.iter().map(|&query| filters.of(query)).collect();
            let space = self.search_space().with_filters(Filters::Each(&each));
            let found = search(&open, space, &wider)?;
            let mut again = Vec::new();
            for (&query, mut answers) in open.iter().zip(found) {
                let exhausted = answers.len() < wider.width;
                owners.distinct(&mut answers, |answer| answer.item);
                if answers.len() < beam.width && !exhausted && !owners.are_single() {
                    again.push(query);
                }
                answers.truncate(beam.width);
                all[query] = answers;
            }
            if again.is_empty() {
                return Ok(all);
            }
            (open, wider.width) = (again, 2 * wider.width);
        }
    }

    /// Candidates in the place of entries, each with the score of its best.
    pub(super) fn candidates(&self, mut answers: Vec<Answer>) -> Vec<Answer> {
        let owners = self.index.owners();
        owners.distinct(&mut answers, |answer| answer.item);
        answers.iter_mut().for_each(|answer| answer.item = owners.of(answer.item));
        answers
    }

    /// The `top` best candidates, proven where the entries among which they are the best are.
    pub(super) fn exact_candidates(
        &self,
        top: usize,
        budget: usize,
        mut search: impl FnMut(usize) -> Result<Exact>,
    ) -> Result<Exact> {
        let (mut wanted, mut prefixes) = (top, 0);
        loop {
            let exact = search(wanted)?;
            prefixes += exact.prefixes;
            let all = exact.answers.len() < wanted;
            let mut answers = self.candidates(exact.answers);
            let enough = answers.len() >= top || all;
            if enough || wanted >= budget {
                answers.truncate(top);
                return Ok(Exact { answers, proven: exact.proven && enough, prefixes });
            }
            wanted = (2 * wanted).min(budget);
        }
    }

    /// The explanation of a candidate's best entry.
    pub(super) fn explain_best(
        &self,
        encoded: &EncodedQueries<B>,
        item: u32,
        runners_up: usize,
    ) -> Result<Explanation> {
        let space = self.search_space();
        let of = |entry| self.engine.explain(encoded, space, &self.beam, entry, runners_up);
        let mut best = of(item)?;
        for entry in self.index.owners().entries_of(&[item]).into_iter().skip(1) {
            let other = of(entry)?;
            if other.score > best.score {
                best = Explanation { item, ..other };
            }
        }
        Ok(best)
    }
}
