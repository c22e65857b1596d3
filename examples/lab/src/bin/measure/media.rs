//! Files of media and frozen encoders: what an extraction spends its time on.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use burn::tensor::backend::Backend;
use cart_media::{
    Descriptors, Extractor, Filter, MediaItem, MelBank, MelConfig, Modality, Picture, Sound,
    media_below,
};
use cart_retrieval::expert::{Activation, WeightInit};
use cart_towers::ClipVisionConfig;
use clap::{Args, ValueEnum};
use rayon::prelude::*;
use serde_json::{Value, json};

use crate::{
    Common,
    report::{repeat, times},
};

/// Mean and deviation of red, green and blue, those of CLIP.
const MEAN: [f32; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
const DEVIATION: [f32; 3] = [0.268_629_55, 0.261_302_6, 0.275_777_1];

/// What is done to each file.
#[derive(Clone, Copy, ValueEnum)]
enum Work {
    /// A picture decoded and prepared for CLIP: shorter side 224, middle cut out, normalised.
    Pictures,
    /// A sound decoded, at 48 kHz, with its log-mel spectrogram for CLAP.
    Sounds,
    /// The built-in descriptors of pictures.
    PictureDescriptors,
    /// The built-in descriptors of sounds.
    SoundDescriptors,
    /// The built-in descriptors of videos.
    VideoDescriptors,
}

/// Files of media.
#[derive(Args, Clone)]
pub struct MediaArgs {
    /// Folder of the files
    folder: PathBuf,
    /// What to do with each
    #[arg(long, value_enum)]
    work: Work,
}

/// Reads all files of a folder, on all threads.
pub fn media<B: Backend>(args: &MediaArgs, common: &Common, device: &B::Device) -> Result<Value> {
    let modality = match args.work {
        Work::Pictures | Work::PictureDescriptors => Modality::Image,
        Work::Sounds | Work::SoundDescriptors => Modality::Audio,
        Work::VideoDescriptors => Modality::Video,
    };
    let items = media_below(&args.folder, &[modality])?.items;
    ensure!(!items.is_empty(), "{}: no files of that kind", args.folder.display());
    let bank = MelBank::new(MelConfig::clap())?;
    let one = |item: &MediaItem| -> Result<f64> {
        let path = args.folder.join(&item.path);
        let values = match args.work {
            Work::Pictures => {
                let picture = Picture::open(path)?.shorter_side(224, Filter::Bicubic)?;
                picture.center_crop(224, 224)?.normalised(MEAN, DEVIATION)
            }
            Work::Sounds => bank.spectrogram(&Sound::open(path)?)?.values().to_vec(),
            _ => {
                let one = std::slice::from_ref(item);
                let mut found = Descriptors::default().extract(&args.folder, one);
                found.pop().context("an answer for the item")??
            }
        };
        Ok(values.iter().map(|&value| f64::from(value)).sum())
    };
    let mut sum = 0.0;
    let seconds = repeat::<B>(common, device, |_| {
        sum = items.par_iter().map(one).sum::<Result<f64>>()?;
        Ok(())
    })?;
    let mut line = times(&seconds, items.len() as f64);
    line.insert("measure".into(), json!("media"));
    line.insert("items".into(), json!(items.len()));
    line.insert("checksum".into(), json!(sum));
    Ok(Value::Object(line))
}

/// CLIP's image tower with random weights.
#[derive(Args, Clone)]
pub struct ClipArgs {
    /// Pictures per batch
    #[arg(long, default_value_t = 32)]
    batch: usize,
    /// Side of a patch: 32 or 16
    #[arg(long, default_value_t = 32)]
    patch: usize,
    /// Width, 64 times the number of heads
    #[arg(long, default_value_t = 768)]
    width: usize,
    /// Layers
    #[arg(long, default_value_t = 12)]
    layers: usize,
}

/// Times the tower on prepared pictures.
pub fn clip<B: Backend>(args: &ClipArgs, common: &Common, device: &B::Device) -> Result<Value> {
    let config = ClipVisionConfig {
        image_size: 224,
        patch_size: args.patch,
        d_model: args.width,
        d_ff: 4 * args.width,
        n_heads: args.width / 64,
        n_layers: args.layers,
        activation: Activation::QuickGelu,
        norm_epsilon: 1e-5,
    };
    config.validate()?;
    let mut init = WeightInit::new(common.seed);
    let tower = config.init::<B>(&mut init, device);
    let pixels = init.normal::<B, 4>([args.batch, 3, 224, 224], 1.0, device).val();
    let mut found = 0;
    let seconds = repeat::<B>(common, device, |_| {
        found = tower.forward(pixels.clone()).into_data().iter::<f32>().count();
        Ok(())
    })?;
    let mut line = times(&seconds, args.batch as f64);
    line.insert("measure".into(), json!("clip"));
    line.insert("numbers".into(), json!(found));
    line.insert(
        "settings".into(),
        json!({ "batch": args.batch, "patch": args.patch, "width": args.width, "layers": args.layers }),
    );
    Ok(Value::Object(line))
}
