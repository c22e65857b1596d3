//! The worst queries: the right candidate's rank, and where the beam lost it.

use anyhow::{Result, ensure};
use cart_retrieval::{
    backend::LocalBackend,
    prelude::*,
    recipe::{Judge, Task},
    retrieve::CandidateTrace,
};
use rayon::prelude::*;

use crate::{
    View,
    common::page::{document, escaped, push},
};

/// Most candidates that all are scored for a shown query.
const SCORED: usize = 20_000;

/// Options of the page.
pub struct Options {
    /// Most queries to follow.
    pub queries: usize,
    /// Queries to show.
    pub show: usize,
    /// Answers to show of each.
    pub top: usize,
}

/// A query and the way of its right candidate through the beam.
struct Followed {
    text: String,
    trace: CandidateTrace,
    /// The best place of a right candidate, others of the same text included.
    rank: Option<usize>,
}

impl Followed {
    /// Worse ones first: lost early, by much; then found late.
    fn order(&self) -> (usize, f32) {
        match (self.rank, self.trace.lost_at) {
            (Some(rank), _) => (usize::MAX - rank, 0.0),
            (None, Some(level)) => (level, self.gap()),
            (None, None) => (usize::MAX / 2, 0.0),
        }
    }

    /// Score less the cut, at the level of the loss.
    fn gap(&self) -> f32 {
        let level = self.trace.lost_at.map(|at| &self.trace.levels[at]);
        level.and_then(|level| Some(level.score - level.cut?)).unwrap_or(0.0)
    }
}

/// The page.
pub fn page<B: LocalBackend>(
    view: &View<'_>,
    retriever: &Retriever<B>,
    task: &Task,
    options: &Options,
) -> Result<String> {
    let judge = Judge::new(task);
    ensure!(!judge.texts.is_empty(), "no queries: check the recipe's filters and splits");
    let filter = task.filter(retriever);
    let step = judge.texts.len().div_ceil(options.queries.max(1));
    let chosen: Vec<usize> = (0..judge.texts.len()).step_by(step).collect();
    let follow = |&query: &usize| -> Result<Followed> {
        let text = &judge.texts[query];
        let relevant = task.of_index(&judge.relevant[query]);
        let item = task.of_index(&[task.queries[query].item])[0];
        let query = retriever.query(text);
        let query = match &filter {
            Some(filter) => query.filter(filter),
            None => query,
        };
        let trace = query.trace(retriever.index().ids().get(item as usize))?;
        let rank = trace.hits.iter().position(|hit| relevant.contains(&hit.item));
        Ok(Followed { text: text.clone(), trace, rank })
    };
    let mut all = chosen.par_iter().map(follow).collect::<Result<Vec<Followed>>>()?;
    let mut body = String::new();
    overview(&mut body, &all, retriever);
    all.sort_by(|a, b| {
        let ((a, of_a), (b, of_b)) = (a.order(), b.order());
        a.cmp(&b).then(of_a.total_cmp(&of_b))
    });
    body.push_str("<section>\n<h2>The worst queries</h2>\n");
    for followed in all.iter().take(options.show).filter(|followed| followed.rank != Some(0)) {
        card(&mut body, view, retriever, followed, options)?;
    }
    body.push_str("</section>\n");
    let beam = retriever.beam();
    let summary = format!(
        "{} of {} queries, {} candidates, a beam of {} prefixes.",
        all.len(),
        judge.texts.len(),
        task.candidates.len(),
        beam.width
    );
    Ok(document("Queries that miss", &summary, crate::STYLE, &body))
}

/// How many are found where, and lost where.
fn overview<B: LocalBackend>(html: &mut String, all: &[Followed], retriever: &Retriever<B>) {
    let levels = retriever.index().trie().levels();
    let share = |count: usize| 100.0 * count as f64 / all.len() as f64;
    let mut lines = Vec::new();
    for (name, ranks) in
        [("found first", 0..1), ("found at 2 to 10", 1..10), ("found after 10", 10..usize::MAX)]
    {
        let found = |followed: &&Followed| followed.rank.is_some_and(|rank| ranks.contains(&rank));
        lines.push((name.to_string(), all.iter().filter(found).count()));
    }
    for level in 0..levels {
        let lost =
            |followed: &&Followed| followed.rank.is_none() && followed.trace.lost_at == Some(level);
        lines.push((format!("lost at level {}", level + 1), all.iter().filter(lost).count()));
    }
    html.push_str(
        "<section>\n<h2>What happens to the right candidate</h2>\n<table class=\"all\">\n",
    );
    for (name, count) in lines {
        let bar = share(count);
        push(
            html,
            format_args!(
                "<tr><th scope=\"row\">{name}</th><td>{count}</td><td>{bar:.1} %</td><td class=\"bar\">\
                 <span style=\"width:{bar:.1}%\"></span></td></tr>\n"
            ),
        );
    }
    html.push_str("</table>\n</section>\n");
}

fn card<B: LocalBackend>(
    html: &mut String,
    view: &View<'_>,
    retriever: &Retriever<B>,
    followed: &Followed,
    options: &Options,
) -> Result<()> {
    let Followed { text, trace, rank } = followed;
    let (ids, trie) = (retriever.index().ids(), retriever.index().trie());
    let (class, verdict) = match (rank, trace.lost_at) {
        (Some(rank), _) => ("late", format!("found at rank {}", rank + 1)),
        (None, Some(level)) => {
            ("wrong", format!("lost at level {} of {}", level + 1, trie.levels()))
        }
        (None, None) => ("wrong", "not found".to_string()),
    };
    push(html, format_args!("<article class=\"{class}\">\n<h3>\u{201c}{}\u{201d} ", escaped(text)));
    push(html, format_args!("<span class=\"verdict\">{verdict}</span></h3>\n"));
    let id = ids.get(trace.item as usize);
    let explanation = retriever.query(text).explain(id, 3)?;
    html.push_str("<div class=\"wide\"><table class=\"all\">\n<tr>");
    for head in [
        "level",
        "token",
        "log-probability",
        "score of the prefix",
        "place",
        "cut",
        "more probable here",
    ] {
        push(html, format_args!("<th scope=\"col\">{head}</th>"));
    }
    html.push_str("</tr>\n");
    for (at, level) in trace.levels.iter().enumerate() {
        let own = &explanation.levels[at];
        let better: Vec<String> = own
            .runners_up
            .iter()
            .filter(|other| other.1 > own.log_probability)
            .map(|(token, score)| format!("{token} ({score:.2})"))
            .collect();
        let more = if own.better > better.len() { ", ..." } else { "" };
        let cut = level.cut.map_or("none".to_string(), |cut| format!("{cut:.2}"));
        push(
            html,
            format_args!(
                "<tr class=\"{}\"><th scope=\"row\">{}</th><td>{}</td><td>{:.2}</td><td>{:.2}</td><td>{} of {}</td><td>{cut}</td>\
                 <td>{}{more}</td></tr>\n",
                if level.kept { "kept" } else { "lost" },
                at + 1,
                level.token,
                own.log_probability,
                level.score,
                level.better + 1,
                level.prefixes,
                better.join(", ")
            ),
        );
    }
    html.push_str("</table></div>\n");
    if rank.is_none() && trie.len() <= SCORED {
        let scored = retriever.query(text).scores()?;
        if let Some(place) = scored.iter().position(|hit| hit.item == trace.item) {
            push(
                html,
                format_args!(
                    "<p class=\"lead\">An exhaustive search ranks it {} of {}, with a score of \
                     {:.2}; the best score is {:.2}.</p>\n",
                    place + 1,
                    scored.len(),
                    scored[place].score,
                    scored[0].score
                ),
            );
        }
    }
    html.push_str("<div class=\"row\">\n");
    let lines = |item: u32, score: Option<f32>| -> Result<Vec<String>> {
        let mut lines = vec![trie.identifier_of(item)?.to_string()];
        lines.extend(score.map(|score| format!("{score:.3}")));
        let caption = view.caption(item);
        lines.extend((!caption.is_empty()).then(|| caption.to_string()));
        Ok(lines)
    };
    view.gallery.figure(
        html,
        "target",
        id,
        "wanted",
        &lines(trace.item, Some(explanation.score))?,
    )?;
    html.push_str("<ol>\n");
    for (at, answer) in trace.hits.iter().take(options.top).enumerate() {
        let right = answer.item == trace.item;
        let class = if right { "hit right" } else { "hit wrong" };
        let top = format!("{}{}", at + 1, if right { " \u{2713}" } else { "" });
        html.push_str("<li>");
        let id = ids.get(answer.item as usize);
        view.gallery.figure(html, class, id, &top, &lines(answer.item, Some(answer.score))?)?;
        html.push_str("</li>\n");
    }
    html.push_str("</ol>\n</div>\n</article>\n");
    Ok(())
}
