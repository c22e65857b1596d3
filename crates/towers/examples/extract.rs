//! A data folder from files of media: pictures, sounds or videos of a folder, or those of a
//! published data set.
//!
//! ```sh
//! extract --media pictures --out my-data files --modality image --captions captions.jsonl
//! extract --media flickr30k-images --out flickr30k karpathy dataset_flickr30k.json
//! ```
//!
//! Features are the built-in descriptors, or with `--clip FOLDER`, `--clap FOLDER` or `--imagebind
//! FILE` those of a frozen encoder; `my-data` is then what `train` takes with `--data`.

#[macro_use]
extern crate cart_examples as common;

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use cart_media::{
    Descriptors, Extractor, MediaItem, Modality,
    extract::{ExtractConfig, ExtractProgress, Extracted, Extraction},
    formats::{ClipName, PublishedSet, audio_caps, clotho, karpathy, msr_vtt, msr_vtt_1k_a, msvd},
    media_below,
};
use cart_retrieval::{
    backend::{BackendTask, LocalBackend},
    cancel::Monitor,
    members::Outputs,
};
use cart_towers::{
    ClapExtractor, ClipExtractor, ImageBindConfig, ImageBindExtractor, PretrainedClap,
    PretrainedClip, PretrainedImageBind,
};
use clap::{Parser, Subcommand, ValueEnum};
use common::backend::Hardware;
use indicatif::{ProgressBar, ProgressStyle};

/// Stretches of a long sound that CLAP hears.
const STRETCHES: usize = 4;

/// Extracts features of media into a data folder
#[derive(Parser)]
struct Args {
    /// Folder of the media files
    #[arg(long)]
    media: PathBuf,
    /// Folder to write to
    #[arg(long)]
    out: PathBuf,
    /// Number of frames to use per video
    #[arg(long, default_value_t = 16)]
    frames: usize,
    /// Number of items per part; finished parts are kept when the program stops
    #[arg(long, default_value_t = 1024)]
    part: usize,
    #[command(flatten)]
    encoder: Encoder,
    #[command(flatten)]
    hardware: Hardware,
    /// Leaves out items of a data set whose files are missing, instead of refusing to start
    #[arg(long)]
    skip_missing: bool,
    #[command(subcommand)]
    source: Source,
}

/// A frozen encoder, for its features instead of descriptors
#[derive(clap::Args)]
#[group(multiple = false)]
struct Encoder {
    /// CLIP model folder in the Hugging Face layout: pictures and videos
    #[arg(long)]
    clip: Option<PathBuf>,
    /// CLAP model folder in the Hugging Face layout: sounds
    #[arg(long)]
    clap: Option<PathBuf>,
    /// imagebind_huge.pth (in a build with the feature pth), or its tensors as .safetensors: all
    /// media
    #[arg(long)]
    imagebind: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Source {
    /// All files of a kind below the folder; their ids are their paths
    Files {
        /// Kind of media
        #[arg(long)]
        modality: Kind,
        /// Ids without the files' extensions
        #[arg(long)]
        stems: bool,
        /// Captions to write next to the features; the file is not changed
        #[arg(long)]
        captions: Option<PathBuf>,
    },
    /// Flickr8K, Flickr30K or MS-COCO in Karpathy's JSON
    Karpathy {
        /// dataset_flickr30k.json or dataset_coco.json
        annotations: PathBuf,
    },
    /// MSR-VTT, in the 1k-A split when its lists are given
    MsrVtt {
        /// train_val_videodatainfo.json and test_videodatainfo.json, or MSRVTT_data.json
        #[arg(required = true)]
        annotations: Vec<PathBuf>,
        /// MSRVTT_train.9k.csv
        #[arg(long, requires = "test")]
        train: Option<PathBuf>,
        /// MSRVTT_JSFUSION_test.csv
        #[arg(long, requires = "train")]
        test: Option<PathBuf>,
    },
    /// MSVD
    Msvd {
        /// AllVideoDescriptions.txt, or the corpus as .csv
        descriptions: PathBuf,
        /// Lists of clips, as train=train_list.txt
        #[arg(long = "list", required = true)]
        lists: Vec<String>,
    },
    /// Clotho
    Clotho {
        /// Tables of captions with split and folder, as
        /// train=development=clotho_captions_development.csv
        #[arg(required = true)]
        tables: Vec<String>,
    },
    /// AudioCaps
    AudioCaps {
        /// Tables of captions, as train=train.csv
        #[arg(required = true)]
        tables: Vec<String>,
        /// How the files are named
        #[arg(long, default_value = "id-and-start")]
        names: Names,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    Image,
    Audio,
    Video,
}

#[derive(Clone, Copy, ValueEnum)]
enum Names {
    /// YOUTUBEID_START.wav
    IdAndStart,
    /// YYOUTUBEID.wav
    YAndId,
    /// YOUTUBEID.wav of the whole video
    Whole,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let stop = common::stop_on_ctrl_c()?;
    args.outputs().check()?;
    let job = args.job()?;
    let items = &job.items;
    println!("{} items", items.len());
    let extraction = job.extraction(&args);
    for unknown in extraction.check()? {
        let (file, entries, first) = (unknown.file.display(), unknown.entries, &unknown.ids[0]);
        eprintln!(
            "ignored: {entries} entries of {file} with {} unknown ids; the first is `{first}`",
            unknown.ids.len()
        );
    }
    let bar = ProgressBar::new(items.len() as u64);
    bar.set_style(ProgressStyle::with_template("{bar:40} {pos}/{len} {per_sec} {msg}")?);
    let monitor = Monitor::new().with_stop(&stop).with_progress(|progress: ExtractProgress| {
        bar.set_position(progress.done as u64);
        if progress.failed > 0 {
            bar.set_message(format!("{} failed", progress.failed));
        }
    });
    let config = ExtractConfig { part: args.part };
    let Encoder { clip, clap, imagebind } = &args.encoder;
    let made = if clip.is_some() || clap.is_some() || imagebind.is_some() {
        let (extraction, config, monitor) = (&extraction, &config, &monitor);
        args.hardware.run(ByEncoder { args: &args, extraction, config, monitor })?
    } else {
        let descriptors = Descriptors { frames: args.frames, ..Descriptors::default() };
        extraction.run(&descriptors, &config, &monitor)?
    };
    bar.finish_and_clear();
    if made.unchanged {
        println!(
            "{} is complete from an earlier run: {} items; nothing was changed",
            args.out.display(),
            made.items
        );
    } else {
        println!(
            "{} items in {}, {} from an earlier run",
            made.items,
            args.out.display(),
            made.resumed
        );
    }
    if made.captions_left_out > 0 {
        println!("{} captions of items without features left out", made.captions_left_out);
    }
    if !made.failed.is_empty() {
        println!(
            "{} items without features, listed in {}",
            made.failed.len(),
            args.out.join("left-out.jsonl").display()
        );
    }
    for failure in &made.failed {
        eprintln!("left out: {}: {}", failure.id, failure.message);
    }
    Ok(())
}

/// An extraction by a frozen encoder, on whatever backend.
struct ByEncoder<'a, 'm> {
    args: &'a Args,
    extraction: &'a Extraction<'a>,
    config: &'a ExtractConfig,
    monitor: &'a Monitor<'m, ExtractProgress>,
}

impl BackendTask for ByEncoder<'_, '_> {
    type Output = Result<Extracted>;

    fn run<B: LocalBackend>(self, device: B::Device) -> Result<Extracted> {
        println!("{}", common::hardware::<B>(&device));
        let Self { args, extraction, config, monitor } = self;
        let extractor = args.encoder.load::<B>(args.frames, device)?;
        Ok(extraction.run(extractor.as_ref(), config, monitor)?)
    }
}

impl Encoder {
    /// The encoder that was asked for.
    fn load<B: LocalBackend>(
        &self,
        frames: usize,
        device: B::Device,
    ) -> Result<Box<dyn Extractor>> {
        let name = |path: &PathBuf| path.display().to_string();
        let (extractor, loaded): (Box<dyn Extractor>, _) = match self {
            Self { clip: Some(folder), .. } => {
                let pretrained = PretrainedClip::open(folder)?;
                let (clip, loaded) = pretrained.load::<B>(&device)?;
                let shape = pretrained.config().clone();
                (Box::new(ClipExtractor::new(clip, shape, name(folder), frames, device)), loaded)
            }
            Self { clap: Some(folder), .. } => {
                let pretrained = PretrainedClap::open(folder)?;
                let (clap, loaded) = pretrained.load::<B>(&device)?;
                let shape = pretrained.config().clone();
                let extractor = ClapExtractor::new(clap, shape, name(folder), STRETCHES, device)?;
                (Box::new(extractor), loaded)
            }
            Self { imagebind: Some(path), .. } => {
                let pretrained = PretrainedImageBind::open(path, ImageBindConfig::huge())?;
                let (towers, loaded) = pretrained.load::<B>(&device)?;
                let shape = pretrained.config().clone();
                (Box::new(ImageBindExtractor::new(towers, shape, name(path), device)?), loaded)
            }
            _ => bail!("no encoder was named"),
        };
        println!("{loaded}");
        Ok(extractor)
    }
}

/// What is extracted, and what is written with it.
struct Job {
    items: Vec<MediaItem>,
    captions: Option<PathBuf>,
    set: Option<PublishedSet>,
}

impl Job {
    fn extraction<'a>(&'a self, args: &Args) -> Extraction<'a> {
        let extraction = Extraction::new(&self.items, &args.media, &args.out);
        match (&self.captions, &self.set) {
            (Some(captions), _) => extraction.with_captions(captions),
            (None, Some(set)) => extraction.with_set(set),
            (None, None) => extraction,
        }
    }
}

impl Args {
    /// What is read and written, apart from the files in the folder.
    fn outputs(&self) -> Outputs {
        let Encoder { clip, clap, imagebind } = &self.encoder;
        let outputs = Outputs::new().reads(clip).reads(clap).reads(imagebind).fills([&self.out]);
        if let Source::Files { captions, .. } = &self.source {
            return outputs.reads(captions).reads_below([&self.media]);
        }
        let outputs = outputs.reads([&self.media]);
        match &self.source {
            Source::Files { captions, .. } => outputs.reads(captions),
            Source::Karpathy { annotations } => outputs.reads([annotations]),
            Source::MsrVtt { annotations, train, test } => {
                outputs.reads(annotations).reads(train).reads(test)
            }
            Source::Msvd { descriptions, .. } => outputs.reads([descriptions]),
            // Their readers say which of several files is missing.
            Source::Clotho { .. } | Source::AudioCaps { .. } => outputs,
        }
    }

    /// The items to extract, and the captions and splits that go with them.
    fn job(&self) -> Result<Job> {
        let mut set = match &self.source {
            Source::Files { modality, stems, captions } => {
                let modality = match modality {
                    Kind::Image => Modality::Image,
                    Kind::Audio => Modality::Audio,
                    Kind::Video => Modality::Video,
                };
                let mut found = media_below(&self.media, &[modality])?;
                if *stems {
                    found = found.with_stems();
                }
                for left_out in &found.left_out {
                    // Debug shows control characters, and bytes that are not UTF-8, as escapes.
                    eprintln!("left out: {:?}: {}", left_out.path, left_out.reason);
                }
                for kind in &found.other_kinds {
                    let (count, advice) = (kind.count, &kind.advice);
                    match kind.extension.as_str() {
                        "" => eprintln!("not read: {count} files without an extension: {advice}"),
                        extension => eprintln!("not read: {count} files of .{extension}: {advice}"),
                    }
                }
                return Ok(Job { items: found.items, captions: captions.clone(), set: None });
            }
            Source::Karpathy { annotations } => karpathy(annotations)?,
            Source::MsrVtt { annotations, train: Some(train), test: Some(test) } => {
                msr_vtt_1k_a(annotations, train, test)?
            }
            Source::MsrVtt { annotations, .. } => msr_vtt(annotations)?,
            Source::Msvd { descriptions, lists } => {
                let list = |list| pair(list, "train=train_list.txt");
                let lists = lists.iter().map(|l| list(l)).collect::<Result<Vec<_>>>()?;
                msvd(descriptions, &lists)?
            }
            Source::Clotho { tables } => {
                let table = |text: &String| -> Result<(String, String, String)> {
                    let example = "train=development=clotho_captions_development.csv";
                    let (split, rest) = pair(text, example)?;
                    let (folder, file) = pair(rest, example)?;
                    Ok((split.into(), folder.into(), file.into()))
                };
                let tables = tables.iter().map(table).collect::<Result<Vec<_>>>()?;
                let tables: Vec<(&str, &str, &str)> =
                    tables.iter().map(|(s, d, f)| (s.as_str(), d.as_str(), f.as_str())).collect();
                clotho(&tables)?
            }
            Source::AudioCaps { tables, names } => {
                let table = |table| pair(table, "train=train.csv");
                let tables = tables.iter().map(|t| table(t)).collect::<Result<Vec<_>>>()?;
                audio_caps(
                    &tables,
                    match names {
                        Names::IdAndStart => ClipName::IdAndStart,
                        Names::YAndId => ClipName::YAndId,
                        Names::Whole => ClipName::Whole,
                    },
                )?
            }
        };
        self.check(&mut set)?;
        Ok(Job { items: set.items().to_vec(), captions: None, set: Some(set) })
    }

    /// Checks the files of a set.
    fn check(&self, set: &mut PublishedSet) -> Result<()> {
        for what in set.left_out() {
            eprintln!("left out: {what}");
        }
        if self.skip_missing {
            let gone = set.retain_media(&self.media)?;
            if !gone.is_empty() {
                eprintln!("left out: {} items whose files are missing", gone.len());
            }
            return Ok(());
        }
        set.check_media(&self.media).context("--skip-missing leaves these out")
    }
}

/// `name=value`, as in an example.
fn pair<'a>(text: &'a str, example: &str) -> Result<(&'a str, &'a str)> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() && !value.is_empty() => Ok((name, value)),
        _ => bail!("{text:?}: expected something like {example}"),
    }
}
