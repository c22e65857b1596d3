//! Steps of the decoder for the prefixes of a search, on its device or in the host's memory.

use std::ops::Range;

use burn::tensor::{Int, Tensor, TensorData, backend::Backend};

use super::queries::{Place, Queries};
use crate::{
    model::{Cart, EncodedQueries},
    nn::{DecoderState, HostDecoder, HostMemory, HostState},
    trie::Node,
};

/// A prefix under consideration.
#[derive(Debug, Clone, Copy)]
pub(super) struct Beam {
    pub(super) node: Node,
    pub(super) score: f32,
    /// The token it ends with.
    pub(super) token: u16,
    /// The decoder row that its parent occupied.
    pub(super) parent: u32,
}

/// The decoder between two levels of a search.
pub(super) enum Steps<'a, B: Backend> {
    /// By the network's own modules. Queries are padded to as many beams each.
    Device { model: &'a Cart<B>, encoded: &'a EncodedQueries<B>, state: DecoderState<B> },
    /// On the host, nothing padded.
    Host { decoder: &'a HostDecoder, memories: &'a [HostMemory], state: HostState, parallel: bool },
}

/// Logits of a level.
pub(super) struct Logits {
    /// `[rows, size of the level]`
    pub(super) values: Vec<f32>,
    /// The row of the first prefix of every query.
    pub(super) first_rows: Vec<usize>,
}

impl<'a, B: Backend> Steps<'a, B> {
    /// The steps for some of the queries; on a device, for all of them.
    pub(super) fn new(
        model: &'a Cart<B>,
        queries: &'a Queries<'_, B>,
        some: Range<usize>,
        parallel: bool,
    ) -> Self {
        match &queries.place {
            Place::Host { decoder, memories } => {
                let state = decoder.start();
                Self::Host { decoder, memories: &memories[some], state, parallel }
            }
            Place::Device(encoded) => Self::Device { model, encoded, state: model.start() },
        }
    }

    /// Runs the decoder for the live prefixes of every query.
    pub(super) fn step(&mut self, live: &[Vec<Beam>]) -> Logits {
        match self {
            Self::Host { decoder, memories, state, parallel } => {
                let counts: Vec<usize> = live.iter().map(Vec::len).collect();
                let beams = || live.iter().flatten();
                let tokens: Vec<u16> = beams().map(|beam| beam.token).collect();
                let parents: Vec<u32> = beams().map(|beam| beam.parent).collect();
                let first_row = |sum: &mut usize, count: &usize| {
                    let first = *sum;
                    *sum += count;
                    Some(first)
                };
                let first_rows = counts.iter().scan(0, first_row).collect();
                let values = decoder.step(&counts, &tokens, &parents, memories, state, *parallel);
                Logits { values, first_rows }
            }
            Self::Device { model, encoded, state } => {
                let width = live.iter().map(Vec::len).max().unwrap_or(0);
                let tokens = (!state.is_first()).then(|| {
                    let rows = live.len() * width;
                    let mut tokens = Vec::with_capacity(rows);
                    let mut parents = Vec::with_capacity(rows);
                    for beams in live {
                        for slot in 0..width {
                            // A padded row continues some row that exists; nobody reads what comes out.
                            let beam = beams.get(slot).or(beams.first());
                            tokens.push(beam.map_or(0, |beam| i64::from(beam.token)));
                            parents.push(beam.map_or(0, |beam| i64::from(beam.parent)));
                        }
                    }
                    let device = encoded.device();
                    let tensor = |values| {
                        Tensor::<B, 1, Int>::from_data(TensorData::new(values, [rows]), &device)
                    };
                    state.reorder(&tensor(parents));
                    tensor(tokens)
                });
                let logits = model.step(encoded, tokens, state).into_data().convert::<f32>();
                let first_rows = (0..live.len()).map(|query| query * width).collect();
                Logits { values: logits.into_vec().unwrap_or_default(), first_rows }
            }
        }
    }
}
