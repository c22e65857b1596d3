//! The files of the items, put into a page or linked from it.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use cart_media::MediaFiles;

use crate::common::page::{escaped, push};

/// Pictures, sounds and videos of the items.
pub struct Gallery {
    files: Option<MediaFiles>,
    link: bool,
}

impl Gallery {
    /// The media below a folder, or none; `data` is the data folder, which may list the items'
    /// files.
    pub fn open(folder: Option<&Path>, data: Option<&Path>, link: bool) -> Result<Self> {
        let Some(folder) = folder else {
            return Ok(Self { files: None, link });
        };
        ensure!(folder.is_dir(), "{} is not a folder of media", folder.display());
        let parent = folder.parent().unwrap_or(folder);
        let lists = [parent, folder, data.unwrap_or(folder)];
        Ok(Self { files: Some(MediaFiles::open(folder, &lists)?), link })
    }

    /// The file of an item.
    fn file(&self, id: &str) -> Option<PathBuf> {
        self.files.as_ref()?.find(id).found()
    }

    /// How many of some ids have a file.
    pub fn count<'a>(&self, ids: impl Iterator<Item = &'a str>) -> usize {
        ids.filter(|id| self.file(id).is_some()).count()
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
        if let Some(path) = self.file(id) {
            self.element(html, id, &path)?;
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
            "wav" | "wave" | "flac" | "mp3" | "ogg" | "oga" | "opus" | "m4a" | "aac" | "aif"
            | "aiff" | "caf" | "wma" => "audio",
            "mp4" | "avi" | "mkv" | "webm" | "mov" | "m4v" | "mpg" | "mpeg" | "ts" | "m2ts"
            | "wmv" | "3gp" | "flv" | "ogv" => "video",
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
                "jpg" | "jpe" | "jfif" => "jpeg",
                "tif" => "tiff",
                "mp3" | "mpg" => "mpeg",
                "m4a" | "m4v" => "mp4",
                "oga" | "opus" | "ogv" => "ogg",
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
