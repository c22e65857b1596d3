//! Weights in the format of PyTorch, by the first byte: a whole file, or the list of tensors of an
//! archive with one part of zeros.
#![no_main]

mod scratch;

use std::io::{Cursor, Write};

use burn::backend::Flex;
use cart_media::towers::{ImageBindConfig, PretrainedImageBind};
use libfuzzer_sys::fuzz_target;
use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

/// An archive as `torch.save` writes it.
fn archive(pickle: &[u8]) -> zip::result::ZipResult<Vec<u8>> {
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    for (name, bytes) in
        [("data.pkl", pickle), ("byteorder", b"little"), ("data/0", &[0; 64]), ("version", b"3\n")]
    {
        archive.start_file(format!("archive/{name}"), stored)?;
        archive.write_all(bytes)?;
    }
    Ok(archive.finish()?.into_inner())
}

fuzz_target!(|bytes: &[u8]| {
    let Some((&kind, bytes)) = bytes.split_first() else { return };
    let path = if kind % 2 == 0 {
        scratch::file("weights.pth", bytes)
    } else {
        scratch::file("weights.pth", &archive(bytes).expect("an archive in memory"))
    };
    let weights = PretrainedImageBind::open(path, ImageBindConfig::huge()).expect("its own sizes");
    // No input is long enough for the whole network.
    assert!(weights.load::<Flex>(&Default::default()).is_err());
});
