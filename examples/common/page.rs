//! A page of results: one HTML file with its pictures, sounds and videos inside.

use std::{fmt::Write as _, fs, io::Read, path::Path};

use anyhow::{Context, Result, bail};
use base64::{Engine, engine::general_purpose::STANDARD};
use cart_media::to_gif;
use cart_procedural::{Clip, Drawn};
use cart_retrieval::members::write_bytes;

/// What is to be seen or heard.
#[derive(Debug, Clone)]
pub enum Media {
    /// A PNG file.
    Picture(Vec<u8>),
    /// A WAV file.
    Sound(Vec<u8>),
    /// An animated GIF file.
    Video(Vec<u8>),
}

impl Media {
    pub fn of(drawn: &Drawn) -> Result<Self> {
        Ok(match drawn {
            Drawn::Picture(picture) => Self::Picture(picture.to_png()?),
            Drawn::Sound(sound) => Self::Sound(sound.to_wav()?),
            Drawn::Frames(frames) => Self::Video(to_gif(frames, Clip::RATE)?),
            _ => bail!("pages cannot show this kind of media"),
        })
    }

    /// What it is called.
    fn name(&self) -> &'static str {
        match self {
            Self::Picture(_) => "picture",
            Self::Sound(_) => "sound",
            Self::Video(_) => "video",
        }
    }
}

/// One item in an answer.
#[derive(Debug, Clone)]
pub struct HitCard {
    pub id: String,
    pub score: f32,
    pub correct: bool,
    pub media: Media,
}

/// One query and its answer.
#[derive(Debug, Clone)]
pub struct QueryCard {
    pub query: String,
    /// Best first.
    pub hits: Vec<HitCard>,
    /// The right item; its score is not shown.
    pub target: Option<HitCard>,
}

/// A table of results: methods in rows, measures in columns.
#[derive(Debug, Clone, Default)]
pub struct Results {
    pub measures: Vec<String>,
    /// Each method with a value for each measure.
    pub rows: Vec<(String, Vec<String>)>,
}

/// Everything a page shows.
#[derive(Debug, Clone, Default)]
pub struct Page {
    pub title: String,
    pub summary: String,
    pub results: Results,
    /// A text table of the quantizer's health, shown as it is.
    pub health: String,
    /// The plot of the training, as [`super::plot::training_svg`] draws it: the only part that is
    /// not escaped.
    pub plot_svg: String,
    pub queries: Vec<QueryCard>,
}

impl Page {
    /// Writes the page; a reader sees the old file or the whole new one.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<()> {
        write(path.as_ref(), &self.html())
    }

    /// The page as text.
    pub fn html(&self) -> String {
        let mut html = String::new();
        self.push_results(&mut html);
        if !self.plot_svg.is_empty() {
            html.push_str("<section>\n<h2>Training</h2>\n<figure class=\"plot\">");
            html.push_str(&self.plot_svg);
            html.push_str("</figure>\n</section>\n");
        }
        if !self.health.is_empty() {
            let health = escaped(&self.health);
            html.push_str("<section>\n<h2>Health of the identifiers</h2>\n");
            push(&mut html, format_args!("<pre tabindex=\"0\">{health}</pre>\n</section>\n"));
        }
        if !self.queries.is_empty() {
            html.push_str("<section>\n<h2>Queries</h2>\n");
            self.queries.iter().for_each(|query| query.push(&mut html));
            html.push_str("</section>\n");
        }
        document(&self.title, &self.summary, "", &html)
    }

    fn push_results(&self, html: &mut String) {
        let Results { measures, rows } = &self.results;
        if rows.is_empty() {
            return;
        }
        html.push_str("<section>\n<h2>Results</h2>\n<table>\n<tr><th scope=\"col\">Method</th>");
        for measure in measures {
            push(html, format_args!("<th scope=\"col\">{}</th>", escaped(measure)));
        }
        html.push_str("</tr>\n");
        for (name, values) in rows {
            push(html, format_args!("<tr><th scope=\"row\">{}</th>", escaped(name)));
            for value in values {
                push(html, format_args!("<td>{}</td>", escaped(value)));
            }
            html.push_str("</tr>\n");
        }
        html.push_str("</table>\n</section>\n");
    }
}

/// A whole page: its head, a title, a summary in a sentence, and a body that is HTML already.
pub fn document(title: &str, summary: &str, style: &str, body: &str) -> String {
    let mut html = String::new();
    let title = escaped(title);
    html.push_str("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
    html.push_str(GENERATOR);
    html.push_str("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
    push(
        &mut html,
        format_args!("<title>{title}</title>\n<style>{STYLE}{style}</style>\n</head>\n"),
    );
    push(&mut html, format_args!("<body>\n<main>\n<h1>{title}</h1>\n"));
    if !summary.is_empty() {
        push(&mut html, format_args!("<p class=\"lead\">{}</p>\n", escaped(summary)));
    }
    html.push_str(body);
    html.push_str("</main>\n</body>\n</html>\n");
    html
}

/// What tells pages of these programs from others.
const GENERATOR: &str = "<meta name=\"generator\" content=\"cart-retrieval\">\n";

/// Whether a file is a page of these programs.
pub fn is_ours(path: &Path) -> bool {
    let head = |file: fs::File| {
        let mut head = Vec::new();
        file.take(1024).read_to_end(&mut head).map(|_| head)
    };
    let head = fs::File::open(path).and_then(head).unwrap_or_default();
    head.windows(GENERATOR.len()).any(|window| window == GENERATOR.as_bytes())
}

/// Writes a page; a reader sees the old file or the whole new one.
pub fn write(path: &Path, html: &str) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)
            .with_context(|| format!("cannot create the folder {}", folder.display()))?;
    }
    write_bytes(path, html.as_bytes()).with_context(|| {
        format!("cannot write the page {}; check the folder and its space", path.display())
    })
}

impl QueryCard {
    fn push(&self, html: &mut String) {
        let rank = self.hits.iter().position(|hit| hit.correct);
        let (class, verdict) = match rank {
            Some(0) => ("right", "found first".to_string()),
            Some(rank) => ("late", format!("found at rank {}", rank + 1)),
            None => ("wrong", "not found".to_string()),
        };
        let query = escaped(&self.query);
        push(html, format_args!("<article class=\"{class}\">\n<h3>\u{201c}{query}\u{201d} "));
        push(html, format_args!("<span class=\"verdict\">{verdict}</span></h3>\n"));
        html.push_str("<div class=\"row\">\n");
        if let Some(target) = &self.target {
            let alt = format!("the right {}, {}", target.media.name(), target.id);
            figure(html, "target", &target.media, &alt, "wanted", &target.id, "");
        }
        html.push_str("<ol>\n");
        for (i, hit) in self.hits.iter().enumerate() {
            let (class, word) =
                if hit.correct { ("hit right", "right") } else { ("hit wrong", "wrong") };
            let mark = if hit.correct { "\u{2713}" } else { "\u{2717}" };
            let alt = format!("hit {}, {}, {word}", i + 1, hit.id);
            let heading = format!("{} {mark} {word}", i + 1);
            let score = format!("{:.3}", hit.score);
            html.push_str("<li>");
            figure(html, class, &hit.media, &alt, &heading, &hit.id, &score);
            html.push_str("</li>\n");
        }
        html.push_str("</ol>\n</div>\n</article>\n");
    }
}

fn figure(
    html: &mut String,
    class: &str,
    media: &Media,
    alt: &str,
    top: &str,
    id: &str,
    score: &str,
) {
    let (alt, top, id) = (escaped(alt), escaped(top), escaped(id));
    push(html, format_args!("<figure class=\"{class}\"><b>{top}</b>"));
    let (before, bytes, after) = match media {
        Media::Picture(png) => (format!("<img alt=\"{alt}\" src=\"data:image/png"), png, "\">"),
        Media::Video(gif) => (format!("<img alt=\"{alt}\" src=\"data:image/gif"), gif, "\">"),
        Media::Sound(wav) => {
            let open = "<audio controls preload=\"none\"";
            (format!("{open} aria-label=\"{alt}\" src=\"data:audio/wav"), wav, "\"></audio>")
        }
    };
    push(html, format_args!("{before};base64,"));
    STANDARD.encode_string(bytes, html);
    push(html, format_args!("{after}<figcaption>{id}<br>{score}</figcaption></figure>\n"));
}

pub fn push(html: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = html.write_fmt(text);
}

/// Text that is safe between tags and in quoted attributes.
pub fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            other => safe.push(other),
        }
    }
    safe
}

const STYLE: &str = "
:root { color-scheme: light dark; --ink: #1d2127; --soft: #5a626d; --page: #f6f7f9; --card: #fff;
  --line: #d9dde3; --right: #12734b; --wrong: #b3261e; --late: #8a5a00; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8eaed; --soft: #a4acb8; --page: #14171b;
  --card: #1e2227; --line: #363c45; --right: #5fd19f; --wrong: #ff8f86; --late: #f0bd5b; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif; }
main { max-width: 1000px; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .5rem; }
h2 { font-size: 1.2rem; margin: 2.25rem 0 .75rem; }
h3 { font-size: 1rem; font-weight: 600; margin: 0 0 .75rem; overflow-wrap: anywhere; }
.lead { color: var(--soft); margin: 0; max-width: 70ch; }
table { border-collapse: collapse; background: var(--card); border: 1px solid var(--line);
  border-radius: 10px; overflow: hidden; }
th, td { padding: .45rem 1rem; border-bottom: 1px solid var(--line); text-align: left; }
tr:last-child > * { border-bottom: 0; }
th { font-weight: 500; color: var(--soft); }
td { font-variant-numeric: tabular-nums; text-align: right; font-weight: 600; }
pre { background: var(--card); border: 1px solid var(--line); border-radius: 10px; margin: 0;
  padding: 1rem; overflow-x: auto; font: .85rem/1.45 ui-monospace, Menlo, Consolas, monospace; }
figure { margin: 0; }
.plot { background: #fff; border: 1px solid var(--line); border-radius: 10px; padding: .5rem; }
.plot svg { display: block; }
article { background: var(--card); border: 1px solid var(--line); border-left: 5px solid var(--late);
  border-radius: 10px; padding: 1rem 1.1rem; margin-bottom: 1rem; }
article.right { border-left-color: var(--right); }
article.wrong { border-left-color: var(--wrong); }
.verdict { color: var(--late); font-weight: 500; white-space: nowrap; margin-left: .5rem; }
article.right .verdict { color: var(--right); }
article.wrong .verdict { color: var(--wrong); }
.row { display: flex; flex-wrap: wrap; gap: 1rem 1.5rem; }
ol { list-style: none; margin: 0; padding: 0; display: flex; flex-wrap: wrap; gap: 1rem; }
.row figure { width: 116px; font-size: .8rem; color: var(--soft); }
.row b { display: block; font-weight: 600; margin-bottom: .25rem; }
.row img { display: block; width: 116px; height: 116px; object-fit: contain; border-radius: 8px;
  border: 3px solid var(--line); background: #8884; }
.row figure:has(audio) { width: 176px; }
.row audio { display: block; width: 176px; height: 40px; border-radius: 8px;
  outline: 3px solid var(--line); }
.target audio { outline: 3px dashed var(--soft); }
.hit.right audio { outline-color: var(--right); }
.target b { color: var(--ink); }
.target img { border: 3px dashed var(--soft); }
.hit.right img { border-color: var(--right); }
.hit.right b { color: var(--right); }
.hit.wrong img { border-color: var(--wrong); }
.hit.wrong b { color: var(--wrong); }
figcaption { margin-top: .25rem; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
";
