//! Neural modules, generic over a burn backend: attention with a reorderable cache, a text encoder
//! that returns every layer's output, coarse and fine fusion, the identifier decoder.

mod activation;
mod attention;
mod decoder;
mod dropout;
mod encoder;
mod feed_forward;
mod folded;
mod fusion;
mod init;

pub use activation::gelu;
pub use attention::{Attention, AttentionConfig, KeyValue, SelfCache, causal_bias, padding_bias};
pub use decoder::{Decoder, DecoderConfig, DecoderLayer, DecoderState, Memory};
pub use dropout::Dropout;
pub(crate) use dropout::{on_host, with_noise};
pub use encoder::{EncoderLayer, EncoderOutput, EncoderPrefix, TextEncoder, TextEncoderConfig};
pub use feed_forward::FeedForward;
pub use fusion::{CoarseFusion, FineFusion, FusionConfig, FusionMode, GatedAttention};
pub use init::WeightInit;
pub(crate) use init::widened;
