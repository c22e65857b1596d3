//! Queries on their way into a search: the one place where host and device part.

use std::{borrow::Cow, sync::Arc};

use burn::tensor::backend::Backend;

use crate::{
    kernels::on_host,
    model::{Aligned, Cart, EncodedQueries},
    nn::{HostDecoder, HostMemory},
};

/// The decoder laid out for the host, where tensors lie there anyway.
pub(super) fn host_decoder<B: Backend>(
    model: &Cart<B>,
    device: &B::Device,
) -> Option<Arc<HostDecoder>> {
    on_host::<B>(device).then(|| Arc::new(HostDecoder::new(model.decoder(), false)))
}

/// Queries ready to be decoded, with their vectors where the network has them.
pub(super) struct Queries<'a, B: Backend> {
    pub(super) place: Place<'a, B>,
    pub(super) aligned: Option<Aligned>,
}

/// Where queries are decoded.
pub(super) enum Place<'a, B: Backend> {
    /// On their device, by the network's own modules.
    Device(Cow<'a, EncodedQueries<B>>),
    /// In the host's memory.
    Host { decoder: Arc<HostDecoder>, memories: Vec<HostMemory> },
}

impl<'a, B: Backend> Queries<'a, B> {
    /// Encoded queries, for a decoder in the host's memory where there is one.
    pub(super) fn new(
        encoded: Cow<'a, EncodedQueries<B>>,
        decoder: Option<Arc<HostDecoder>>,
    ) -> Self {
        let aligned = encoded.host_aligned();
        let place = match decoder {
            Some(decoder) => {
                let memories = decoder.memories(encoded.output());
                Place::Host { decoder, memories }
            }
            None => Place::Device(encoded),
        };
        Self { place, aligned }
    }

    /// Whether the decoder steps in the host's memory.
    pub(super) fn are_on_host(&self) -> bool {
        matches!(self.place, Place::Host { .. })
    }

    pub(super) fn len(&self) -> usize {
        match &self.place {
            Place::Device(encoded) => encoded.len(),
            Place::Host { memories, .. } => memories.len(),
        }
    }
}
