//! The procedural benchmarks as a program's options name them.

use std::fmt;

use anyhow::Result;
use cart_procedural::{Benchmark, Clips, ClipsConfig, Scenes, ScenesConfig, Sounds, SoundsConfig};
use cart_retrieval::prelude::*;
use clap::ValueEnum;
use rayon::prelude::*;

/// What to draw.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Pictures of coloured shapes.
    Image,
    /// Sounds of tones and noises.
    Audio,
    /// Videos of moving shapes.
    Video,
}

impl Kind {
    pub const ALL: [Self; 3] = [Self::Image, Self::Audio, Self::Video];

    /// A benchmark; `most` is the most objects in a picture, events in a sound, shapes in a video.
    pub fn benchmark(self, items: usize, most: usize, seed: u64) -> Result<Box<dyn Benchmark>> {
        Ok(match self {
            Self::Image => Box::new(Scenes::generate(
                &ScenesConfig::new(items).with_max_objects(most).with_seed(seed),
            )?),
            Self::Audio => Box::new(Sounds::generate(
                &SoundsConfig::new(items).with_max_events(most).with_seed(seed),
            )?),
            Self::Video => Box::new(Clips::generate(
                &ClipsConfig::new(items).with_max_shapes(most).with_seed(seed),
            )?),
        })
    }

    /// What its items are called.
    pub fn plural(self) -> &'static str {
        match self {
            Self::Image => "pictures",
            Self::Audio => "sounds",
            Self::Video => "videos",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Image => "image",
            Self::Audio => "audio",
            Self::Video => "video",
        })
    }
}

/// How many items' other drawings are nearest to the item: what the features can tell apart.
pub fn told_apart(benchmark: &dyn Benchmark, items: &Features) -> Result<usize> {
    let nearest = |query: &[f32]| {
        let distance = |item: usize| -> f32 {
            items.row(item).iter().zip(query).map(|(a, b)| (a - b) * (a - b)).sum()
        };
        (0..items.len()).map(|item| (item, distance(item))).min_by(|a, b| a.1.total_cmp(&b.1))
    };
    let right = |item: usize| -> Result<usize> {
        let again = benchmark.draw(item, 1).features()?;
        Ok(usize::from(nearest(&again).is_some_and(|(found, _)| found == item)))
    };
    (0..items.len()).into_par_iter().map(right).sum()
}
