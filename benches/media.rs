//! Extraction from files, by kind of media: `cargo bench -p cart-benches --bench media`.
//!
//! Files are drawn by the library into a temporary folder: PNG of 224 x 224, WAV of some seconds at
//! 16 kHz, folders of frames.

use std::{hint::black_box, time::Duration};

use cart_media::{Descriptors, Extractor, Filter, MelBank, MelConfig, Picture, Sound};
use cart_procedural::{
    Benchmark, Clips, ClipsConfig, Scenes, ScenesConfig, Sounds, SoundsConfig, write_benchmark,
};
use cart_retrieval::cancel::Monitor;
use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use rayon::prelude::*;

/// Files of each kind.
const ITEMS: usize = 256;

fn descriptors(c: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let benchmarks: [Box<dyn Benchmark>; 3] = [
        Box::new(Scenes::generate(&ScenesConfig::new(ITEMS).with_size(224)).expect("scenes")),
        Box::new(Sounds::generate(&SoundsConfig::new(ITEMS)).expect("sounds")),
        Box::new(Clips::generate(&ClipsConfig::new(ITEMS)).expect("clips")),
    ];
    let mut group = c.benchmark_group("descriptors from files");
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    group.warm_up_time(Duration::from_millis(500)).throughput(Throughput::Elements(ITEMS as u64));
    for benchmark in &benchmarks {
        let name = benchmark.modality().to_string();
        let out = folder.path().join(&name);
        let written = write_benchmark(&**benchmark, &out, &Monitor::new()).expect("files");
        group.bench_function(&name, |b| {
            b.iter(|| {
                let rows =
                    Descriptors::default().extract(&written.media, black_box(&written.items));
                assert!(rows.iter().all(Result::is_ok));
            });
        });
    }
    group.finish();
}

/// What encoders read: decoded, resized or resampled, normalised or as a spectrogram.
fn preparation(c: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let scenes = Scenes::generate(&ScenesConfig::new(ITEMS).with_size(512)).expect("scenes");
    let sounds = Sounds::generate(&SoundsConfig::new(ITEMS)).expect("sounds");
    let write = |benchmark: &dyn Benchmark, name: &str| {
        write_benchmark(benchmark, folder.path().join(name), &Monitor::new()).expect("files")
    };
    let (pictures, sounds) = (write(&scenes, "pictures"), write(&sounds, "sounds"));
    let bank = MelBank::new(MelConfig::clap()).expect("a preset");
    let mut group = c.benchmark_group("preparation from files");
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    group.warm_up_time(Duration::from_millis(500)).throughput(Throughput::Elements(ITEMS as u64));
    group.bench_function("pictures of 512 x 512 for CLIP", |b| {
        b.iter(|| {
            pictures.items.par_iter().for_each(|item| {
                let picture = Picture::open(pictures.media.join(&item.path)).expect("a picture");
                let resized = picture.shorter_side(224, Filter::Bicubic).expect("a size");
                let cut = resized.center_crop(224, 224).expect("a size");
                black_box(cut.normalised([0.5; 3], [0.25; 3]));
            });
        });
    });
    group.bench_function("sounds at 48 kHz for CLAP", |b| {
        b.iter(|| {
            sounds.items.par_iter().for_each(|item| {
                let sound = Sound::open(sounds.media.join(&item.path)).expect("a sound");
                black_box(bank.spectrogram(&sound).expect("frames"));
            });
        });
    });
    group.finish();
}

criterion_group!(benches, descriptors, preparation);
criterion_main!(benches);
