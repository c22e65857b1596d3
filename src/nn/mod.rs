//! Neural modules, generic over a burn backend: attention with a reorderable cache, text encoders
//! that return every layer's output, coarse and fine fusion, the identifier decoder.

mod absorbed;
pub(crate) mod activation;
pub(crate) mod alignment;
pub(crate) mod attention;
mod average;
mod cpu;
pub(crate) mod decoder;
pub(crate) mod dropout;
pub(crate) mod feed_forward;
mod fork;
pub(crate) mod fusion;
pub(crate) mod init;
pub(crate) mod projection;
pub(crate) mod text;
pub(crate) mod words;

pub(crate) use activation::{Activation, gelu};
pub use alignment::AlignmentConfig;
pub(crate) use alignment::{AlignmentHead, AlignmentInput, GuideBatch, GuideSource};
pub(crate) use attention::{
    Attention, AttentionConfig, KeyValue, SelfCache, causal_bias, padding_bias,
};
pub(crate) use average::{averaged, beginning};
pub(crate) use cpu::{CpuDecoder, CpuMemory, CpuState};
pub(crate) use decoder::{Decoder, DecoderConfig, DecoderLayer, DecoderState, Memory};
pub(crate) use dropout::Dropout;
pub(crate) use dropout::with_noise;
pub(crate) use feed_forward::{FeedForward, FeedForwardConfig};
pub(crate) use fork::{fork, on_forks};
pub use fusion::FusionMode;
pub(crate) use fusion::{CoarseFusion, FineFusion, FusionConfig, GatedAttention};
pub(crate) use init::WeightInit;
pub(crate) use init::widened;
pub(crate) use projection::{ProjectionShape, QueryProjection};
pub use text::TextEncoder;
pub(crate) use text::TextEncoderConfig;
#[cfg(test)]
pub(crate) use text::families;
pub(crate) use text::{
    BertConfig, ClipTextConfig, EncoderOutput, EncoderPrefix, Pooling, ScratchEncoderConfig,
    T5Config,
};
pub(crate) use words::LexicalHead;
pub(crate) use words::unit;
