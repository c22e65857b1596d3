//! Neural modules, generic over a burn backend: attention with a reorderable cache, text encoders
//! that return every layer's output, coarse and fine fusion, the identifier decoder.

mod activation;
mod alignment;
mod attention;
mod average;
mod cpu;
mod decoder;
mod dropout;
mod feed_forward;
mod folded;
mod fork;
mod fusion;
pub(crate) mod init;
mod projection;
pub(crate) mod text;
pub(crate) mod words;

pub use activation::{Activation, gelu};
pub use alignment::{AlignmentConfig, AlignmentHead, AlignmentInput, GuideBatch, GuideSource};
pub use attention::{Attention, AttentionConfig, KeyValue, SelfCache, causal_bias, padding_bias};
pub(crate) use average::{averaged, beginning};
pub(crate) use cpu::{CpuDecoder, CpuMemory, CpuState};
pub use decoder::{Decoder, DecoderConfig, DecoderLayer, DecoderState, Memory};
pub use dropout::Dropout;
pub(crate) use dropout::with_noise;
pub use feed_forward::{FeedForward, FeedForwardConfig};
pub(crate) use fork::{fork, on_forks};
pub use fusion::{CoarseFusion, FineFusion, FusionConfig, FusionMode, GatedAttention};
pub use init::WeightInit;
pub(crate) use init::widened;
pub use projection::{ProjectionShape, QueryProjection};
#[cfg(test)]
pub(crate) use text::families;
pub use text::{
    BertConfig, BertEncoder, ClipLayer, ClipTextConfig, ClipTextEncoder, EncoderOutput,
    EncoderPrefix, Pooling, ScratchEncoder, ScratchEncoderConfig, T5Config, T5Encoder,
    T5FeedForward, T5Layer, TextEncoder, TextEncoderConfig,
};
pub use words::LexicalHead;
pub(crate) use words::unit;
