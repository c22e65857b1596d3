//! The files of the items, put into a page or linked from it.

use std::{
    collections::HashMap,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use base64::{Engine, engine::general_purpose::STANDARD};
use cart_retrieval::media::{Modality, media_below};

use crate::common::page::{escaped, push};

/// Pictures, sounds and videos by the names of their items.
pub struct Gallery {
    files: HashMap<String, PathBuf>,
    link: bool,
}

impl Gallery {
    /// The media below a folder, or none. An item's file is the one of its id, with an extension behind it or without; the
    /// first picture of a folder of that name stands for a video in frames.
    pub fn open(folder: Option<&Path>, link: bool) -> Result<Self> {
        let mut files = HashMap::new();
        let Some(folder) = folder else {
            return Ok(Self { files, link });
        };
        let folder = fs::canonicalize(folder)
            .with_context(|| format!("cannot open the media folder {}", folder.display()))?;
        let all = [Modality::Image, Modality::Audio, Modality::Video];
        for item in media_below(&folder, &all)?.0 {
            let path = Path::new(&item.id);
            let whole = path.with_extension("");
            let mut names = vec![item.id.clone()];
            names.extend(whole.to_str().map(String::from));
            for part in [path.file_name(), whole.file_name(), path.parent().map(Path::as_os_str)] {
                names.extend(part.and_then(|part| part.to_str()).map(String::from));
            }
            for name in names.into_iter().filter(|name| !name.is_empty()) {
                files.entry(name).or_insert_with(|| folder.join(&item.id));
            }
        }
        Ok(Self { files, link })
    }

    /// How many of some ids have a file.
    pub fn count<'a>(&self, ids: impl Iterator<Item = &'a str>) -> usize {
        ids.filter(|id| self.files.contains_key(*id)).count()
    }

    /// A figure of an item: its file, if there is one, a heading, lines below.
    pub fn figure(
        &self,
        html: &mut String,
        class: &str,
        id: &str,
        top: &str,
        below: &[String],
    ) -> Result<()> {
        push(html, format_args!("<figure class=\"{class}\">"));
        if !top.is_empty() {
            push(html, format_args!("<b>{}</b>", escaped(top)));
        }
        if let Some(path) = self.files.get(id) {
            self.element(html, id, path)?;
        }
        push(html, format_args!("<figcaption><span class=\"id\">{}</span>", escaped(id)));
        for line in below {
            push(html, format_args!("<br>{}", escaped(line)));
        }
        html.push_str("</figcaption></figure>\n");
        Ok(())
    }

    fn element(&self, html: &mut String, id: &str, path: &Path) -> Result<()> {
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
        let extension = extension.to_ascii_lowercase();
        let kind = match extension.as_str() {
            "wav" | "flac" | "mp3" | "ogg" => "audio",
            "mp4" | "avi" | "mkv" | "webm" | "mov" | "m4v" | "mpg" => "video",
            _ => "image",
        };
        let name = escaped(id);
        match kind {
            "image" => push(html, format_args!("<img alt=\"{name}\" loading=\"lazy\" src=\"")),
            _ => {
                let open =
                    format_args!("<{kind} controls preload=\"none\" aria-label=\"{name}\" src=\"");
                push(html, open);
            }
        }
        if self.link {
            html.push_str("file://");
            encode(html, path);
        } else {
            let bytes =
                fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
            let subtype = match extension.as_str() {
                "jpg" => "jpeg",
                "mp3" | "mpg" => "mpeg",
                "m4v" => "mp4",
                other => other,
            };
            push(html, format_args!("data:{kind}/{subtype};base64,"));
            STANDARD.encode_string(bytes, html);
        }
        html.push('"');
        html.push('>');
        if kind != "image" {
            push(html, format_args!("</{kind}>"));
        }
        Ok(())
    }
}

/// A path as part of an address.
fn encode(html: &mut String, path: &Path) {
    for byte in path.to_string_lossy().bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' | b'~' => {
                html.push(char::from(byte));
            }
            // Writing to a string cannot fail.
            _ => drop(write!(html, "%{byte:02X}")),
        }
    }
}
