//! How the tokens of every level are used: a heat map a level.

use anyhow::Result;
use cart_retrieval::{expert::Node, index::CandidateIndex};

use crate::common::page::{document, escaped, push};

/// Most cells of a heat map; larger levels have several tokens a cell.
const CELLS: usize = 1024;
/// Cells in a line, and the side of one.
const COLUMNS: usize = 32;
const SIDE: usize = 20;

/// The page.
pub fn page(index: &CandidateIndex) -> Result<String> {
    let trie = index.trie();
    let (vocabulary, levels) = (trie.vocabulary(), trie.levels());
    let mut counts: Vec<Vec<usize>> =
        vocabulary.sizes().iter().map(|&size| vec![0; size]).collect();
    for tokens in trie.identifiers().rows() {
        for (counts, &token) in counts.iter_mut().zip(tokens) {
            counts[usize::from(token)] += 1;
        }
    }
    let mut body = String::from("<section>\n<h2>Health of the identifiers</h2>\n");
    let health = escaped(&index.health().to_string());
    push(&mut body, format_args!("<pre tabindex=\"0\">{health}</pre>\n</section>\n"));

    body.push_str("<section>\n<h2>Prefixes</h2>\n<div class=\"wide\"><table class=\"all\">\n<tr>");
    for head in ["level", "tokens", "used", "prefixes", "alone", "largest", "mean children"] {
        push(&mut body, format_args!("<th scope=\"col\">{head}</th>"));
    }
    body.push_str("</tr>\n");
    let mut nodes = vec![trie.root()];
    for (level, counts) in counts.iter().enumerate() {
        let below: Vec<Node> =
            nodes.iter().flat_map(|&node| trie.children(node).map(|(_, child)| child)).collect();
        let used = counts.iter().filter(|&&count| count > 0).count();
        let alone = below.iter().filter(|node| node.count() == 1).count();
        let most = below.iter().map(|node| node.count()).max().unwrap_or(0);
        push(
            &mut body,
            format_args!(
                "<tr><th scope=\"row\">{}</th><td>{}</td><td>{used}</td><td>{}</td><td>{alone}</td><td>{most}</td>\
                 <td>{:.2}</td></tr>\n",
                name(index, level),
                vocabulary.size(level),
                below.len(),
                below.len() as f64 / nodes.len().max(1) as f64
            ),
        );
        nodes = below;
    }
    body.push_str(
        "</table></div>\n<p class=\"lead\">Prefixes: how many exist. Alone: how many of them have \
         a single candidate. ",
    );
    body.push_str("Largest: candidates of the largest prefix.</p>\n</section>\n");

    for (level, counts) in counts.iter().enumerate() {
        push(&mut body, format_args!("<section>\n<h2>{}</h2>\n", name(index, level)));
        heat_map(&mut body, counts, trie.len());
        body.push_str("</section>\n");
    }
    let summary = format!(
        "{} candidates, identifiers of {levels} tokens. A cell is a token; a stronger colour \
         means more candidates. Crossed cells are tokens that no candidate has.",
        trie.len()
    );
    Ok(document("Use of the tokens", &summary, crate::STYLE, &body))
}

/// What a level is called.
fn name(index: &CandidateIndex, level: usize) -> String {
    let first = usize::from(index.groups().is_some());
    match level {
        level if level < first => "Group".to_string(),
        level if level == first => "Coarse token".to_string(),
        level if level + 1 == index.trie().levels() => "Unique token".to_string(),
        level => format!("Fine token {}", level - first),
    }
}

fn heat_map(html: &mut String, counts: &[usize], items: usize) {
    let of_cell = counts.len().div_ceil(CELLS);
    let cells: Vec<usize> = counts.chunks(of_cell).map(|chunk| chunk.iter().sum()).collect();
    let most = cells.iter().copied().max().unwrap_or(0).max(1);
    let used = counts.iter().filter(|&&count| count > 0).count();
    let mut fullest: Vec<usize> = (0..counts.len()).collect();
    fullest.sort_by_key(|&token| (usize::MAX - counts[token], token));
    let fullest: Vec<String> = fullest
        .iter()
        .take(8)
        .filter(|&&token| counts[token] > 0)
        .map(|&token| format!("{token} ({})", counts[token]))
        .collect();
    let even = items as f64 / counts.len() as f64;
    push(
        html,
        format_args!(
            "<p class=\"lead\">{used} of {} used; {even:.1} candidates each if spread evenly. \
             Largest: {}.</p>\n",
            counts.len(),
            fullest.join(", ")
        ),
    );
    let columns = cells.len().min(COLUMNS);
    let (width, height) = (columns * SIDE, cells.len().div_ceil(COLUMNS) * SIDE);
    push(
        html,
        format_args!(
            "<svg class=\"heat\" role=\"img\" aria-label=\"use of {} tokens\" viewBox=\"0 0 {width} {height}\" \
             style=\"max-width:{width}px\">\n",
            counts.len()
        ),
    );
    for (at, &count) in cells.iter().enumerate() {
        let (x, y) = (at % COLUMNS * SIDE, at / COLUMNS * SIDE);
        let first = at * of_cell;
        let last = (first + of_cell).min(counts.len()) - 1;
        let tokens = if first == last {
            format!("token {first}")
        } else {
            format!("tokens {first} to {last}")
        };
        let (inner, title) = (SIDE - 2, format!("{tokens}: {count} candidates"));
        let class = if count == 0 { "none" } else { "some" };
        // Roots tell small counts apart.
        let share = (count as f64 / most as f64).sqrt();
        push(
            html,
            format_args!(
                "<rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"{inner}\" height=\"{inner}\" rx=\"3\" \
                 fill-opacity=\"{:.2}\"><title>{title}</title></rect>",
                0.1 + 0.9 * share
            ),
        );
        if count == 0 {
            let (a, b, c, d) = (x + 5, y + 5, x + inner - 5, y + inner - 5);
            push(
                html,
                format_args!("<path class=\"cross\" d=\"M{a} {b}L{c} {d}M{a} {d}L{c} {b}\"/>"),
            );
        }
        html.push('\n');
    }
    html.push_str("</svg>\n");
}
