//! Matrices of features: `.npy`, `.npz`, `.safetensors`, by the first byte.
#![no_main]

mod scratch;

use cart_retrieval::features::{Features, ShardedFeatures};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((&kind, bytes)) = bytes.split_first() else { return };
    let name = ["m.npy", "m.npz", "m.safetensors"][usize::from(kind) % 3];
    let path = scratch::file(name, bytes);
    let shards = ShardedFeatures::open(&[&path]);
    let Ok(items) = Features::open(&path) else { return };
    assert_eq!(items.as_slice().len(), items.len() * items.dim());
    let _ = items.check();
    if let Ok(shards) = shards {
        assert_eq!((shards.len(), shards.dim()), (items.len(), items.dim()));
    }
    let again = scratch::path("again.npy");
    items.save_npy(&again).expect("space for a file");
    let again = Features::open(&again).expect("its own file");
    assert!(
        again
            .as_slice()
            .iter()
            .map(|x| x.to_bits())
            .eq(items.as_slice().iter().map(|x| x.to_bits()))
    );
});
