//! What the crates of this workspace share with the library; no promise of stability.

pub use crate::{
    backend::run::{BackendWork, run_work},
    data::ordering::drop_words,
    error::ensure_in,
    eval::metrics::name_query,
    features::ids::breaks_lines,
    kernels::{
        matmul::{Layout, dots},
        vector::{dot, normalise},
    },
    nn::{
        init::apply,
        text::family::{check_sizes, layer_params},
        words::unit,
    },
    pretrained::{
        fill::fill,
        names::{
            BERT_EMBEDDINGS, BERT_LAYER, BERT_NORMS, CLIP_LAYER, CLIP_TEXT, Modules, Names, Parts,
        },
        weights::Weights,
    },
    storage::{
        held::{count, ensure_held},
        lock::FileLock,
    },
};

/// Failures of the disk, for tests.
#[cfg(feature = "faults")]
pub mod faults {
    pub use crate::storage::faults::{Fault, inject};
}

/// The system calls that change files.
pub mod fs {
    pub use crate::storage::fs::{
        create_dir_all, hard_link, remove_dir_all, remove_file, sync_folder,
    };
}

/// Settings files of pretrained models.
pub mod settings {
    pub use crate::pretrained::settings::{
        fields::{Fields, GENERAL, Rule, Table, followed, harmless, only, refused},
        file::{PREPROCESSOR, PROCESSOR, Settings, brief},
        text::{BERT_FIELDS, CLIP, ROBERTA_FIELDS, clip_text, roberta_config, tower},
    };
}

/// Names of shards in a folder.
pub mod shard_names {
    pub use crate::features::shard_names::{FEATURES, find};
}

pub use crate::storage::{
    atomic::write_atomic,
    limited::read_limited,
    outputs::Outputs,
    sha256::{Sha256Writer, hex, sha256_file},
    tensors::{NamedTensors, load_module},
    write_bytes,
};
