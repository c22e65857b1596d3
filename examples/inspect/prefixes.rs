//! The items of prefixes: a contact sheet.

use anyhow::{Context, Result, ensure};
use cart_retrieval::{expert::Node, index::CandidateIndex};

use crate::{
    View,
    common::page::{document, escaped, push},
};

/// A prefix from text: tokens with hyphens between.
fn parse(text: &str) -> Result<Vec<u16>> {
    let token = |part: &str| part.parse::<u16>().ok();
    text.split('-').map(token).collect::<Option<Vec<u16>>>().with_context(|| {
        format!("{text:?}: expected the beginning of an identifier, such as 12 or 12-3")
    })
}

fn shown(tokens: &[u16]) -> String {
    tokens.iter().map(u16::to_string).collect::<Vec<_>>().join("-")
}

/// The prefixes asked for; without any, the fullest of the first level.
fn chosen(
    index: &CandidateIndex,
    asked: &[String],
    clusters: usize,
) -> Result<Vec<(Vec<u16>, Node)>> {
    let trie = index.trie();
    if !asked.is_empty() {
        let find = |text: &String| {
            let prefix = parse(text)?;
            ensure!(
                prefix.len() <= trie.levels(),
                "{text}: the identifiers of this index have {} tokens",
                trie.levels()
            );
            let node = trie.find(&prefix);
            let node =
                node.with_context(|| format!("no identifier of this index begins with {text}"))?;
            Ok((prefix, node))
        };
        return asked.iter().map(find).collect();
    }
    let mut all: Vec<(Vec<u16>, Node)> =
        trie.children(trie.root()).map(|(token, node)| (vec![token], node)).collect();
    all.sort_by_key(|(prefix, node)| (usize::MAX - node.count(), prefix[0]));
    all.truncate(clusters);
    Ok(all)
}

/// The page.
pub fn page(view: &View<'_>, asked: &[String], clusters: usize, most: usize) -> Result<String> {
    let index = view.index;
    let (trie, ids) = (index.trie(), index.ids());
    let mut body = String::new();
    for (prefix, node) in chosen(index, asked, clusters)? {
        let name = shown(&prefix);
        let children: Vec<(u16, Node)> = trie.children(node).collect();
        push(&mut body, format_args!("<section>\n<h2>{name} <small>{} candidates", node.count()));
        if let (Some(groups), [token]) = (index.groups(), prefix.as_slice()) {
            push(&mut body, format_args!(", {}", escaped(&groups[usize::from(*token)])));
        }
        body.push_str("</small></h2>\n");
        if children.len() > 1 {
            let mut fullest = children.clone();
            fullest.sort_by_key(|(token, node)| (usize::MAX - node.count(), *token));
            let named = fullest
                .iter()
                .take(12)
                .map(|(token, node)| format!("{name}-{token} ({})", node.count()));
            let named = named.collect::<Vec<_>>().join(", ");
            let more = if children.len() > 12 { ", ..." } else { "" };
            push(
                &mut body,
                format_args!(
                    "<p class=\"lead\">{} prefixes below: {named}{more}</p>\n",
                    children.len()
                ),
            );
        }
        body.push_str("<div class=\"sheet\">\n");
        for &entry in trie.items(node).iter().take(most) {
            let item = index.identifier_map().of(entry);
            let below = [trie.identifier_of(entry)?.to_string(), view.caption(item).to_string()];
            let below: Vec<String> = below.into_iter().filter(|line| !line.is_empty()).collect();
            view.gallery.figure(&mut body, "", ids.get(item as usize), "", &below)?;
        }
        body.push_str("</div>\n");
        if node.count() > most {
            push(&mut body, format_args!("<p>and {} more (--most)</p>\n", node.count() - most));
        }
        body.push_str("</section>\n");
    }
    let with_files = view.gallery.count(ids.iter());
    let summary = format!(
        "{} candidates, identifiers of {} tokens; {with_files} have a file in the media folder.",
        ids.len(),
        trie.levels()
    );
    Ok(document("Candidates by prefix", &summary, crate::STYLE, &body))
}
