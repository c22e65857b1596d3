//! Encoded queries and the decoder's steps over them: the one place where CPU and device part.

use std::{ops::Range, sync::Arc};

use burn::tensor::{Int, Tensor, TensorData, backend::Backend};

use crate::{
    index::{TextTokens, TokenSpace},
    model::Cart,
    nn::{
        AlignmentHead, CpuDecoder, CpuMemory, CpuState, Decoder, DecoderState, EncoderOutput,
        Memory,
    },
    trie::Node,
};

/// Queries, encoded once for any number of searches: made by
/// [`Engine::encode`](super::Engine::encode).
///
/// They hold what the decoder reads, on the engine's device or laid out for the CPU, and the
/// queries' vectors in the space of the candidates where the network has an alignment.
#[derive(Debug, Clone)]
pub struct EncodedQueries<B: Backend> {
    memory: QueryMemory<B>,
    vectors: Option<QueryVectors>,
    tokens: Option<Vec<TextTokens>>,
}

/// Queries in the space of the candidates.
#[derive(Debug, Clone, PartialEq)]
pub struct QueryVectors {
    /// Vectors of length 1, `[queries, D]`.
    pub vectors: Vec<f32>,
    /// Factors of their cosines, `[levels]`.
    pub scales: Vec<f32>,
}

/// Keys and values that the decoder attends to.
#[derive(Debug, Clone)]
enum QueryMemory<B: Backend> {
    /// Of all queries, padded, for the network's own modules.
    Device { memory: Memory<B>, queries: usize, device: B::Device },
    /// Of each query.
    Cpu { decoder: Arc<CpuDecoder>, memories: Vec<CpuMemory> },
}

impl<B: Backend> EncodedQueries<B> {
    /// What the encoder made of queries, with their vectors in the space of the candidates,
    /// `[queries, D]`, for the CPU if there is a decoder for it.
    pub(super) fn new(
        model: &Cart<B>,
        output: &EncoderOutput<B>,
        vectors: Option<Tensor<B, 2>>,
        cpu: Option<Arc<CpuDecoder>>,
    ) -> Self {
        let numbers = |data: TensorData| data.iter::<f32>().collect();
        let scales = model.alignment().map(AlignmentHead::scales);
        let vectors = vectors.zip(scales).map(|(vectors, scales)| QueryVectors {
            vectors: numbers(vectors.to_data()),
            scales: numbers(scales.to_data()),
        });
        let memory = match cpu {
            Some(decoder) => {
                let memories = decoder.memories(output);
                QueryMemory::Cpu { decoder, memories }
            }
            None => QueryMemory::Device {
                memory: model.decoder().memory(output),
                queries: output.bias.dims()[0],
                device: output.bias.device(),
            },
        };
        Self { memory, vectors, tokens: None }
    }

    /// No query yet, to be decoded on the CPU.
    pub(super) fn none(decoder: Arc<CpuDecoder>) -> Self {
        Self {
            memory: QueryMemory::Cpu { decoder, memories: Vec::new() },
            vectors: None,
            tokens: None,
        }
    }

    /// Appends the first `count` of others. Both must be for the CPU.
    pub(super) fn append(&mut self, others: Self, count: usize) {
        let total = others.len();
        let (QueryMemory::Cpu { memories, .. }, QueryMemory::Cpu { memories: new, .. }) =
            (&mut self.memory, others.memory)
        else {
            unreachable!("queries on a device are encoded as one batch");
        };
        memories.extend(new.into_iter().take(count));
        if let Some(new) = others.tokens {
            self.tokens.get_or_insert_default().extend(new.into_iter().take(count));
        }
        if let Some(mut new) = others.vectors {
            new.vectors.truncate(new.vectors.len() / total * count);
            match &mut self.vectors {
                Some(own) => own.vectors.append(&mut new.vectors),
                none => *none = Some(new),
            }
        }
    }

    /// Number of queries.
    pub fn len(&self) -> usize {
        match &self.memory {
            QueryMemory::Device { queries, .. } => *queries,
            QueryMemory::Cpu { memories, .. } => memories.len(),
        }
    }

    /// Whether there is no query.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Queries in the space of the candidates; absent where the network has no alignment.
    pub fn vectors(&self) -> Option<&QueryVectors> {
        self.vectors.as_ref()
    }

    /// Adds the tokens of the queries, for late interaction; `output` is what the encoder made of
    /// them.
    pub(super) fn with_tokens(
        mut self,
        space: &TokenSpace,
        tokens: Tensor<B, 2, Int>,
        output: &EncoderOutput<B>,
    ) -> Self {
        self.tokens = Some(output.reduced(space, tokens));
        self
    }

    /// The tokens of the queries, where an index compares them.
    pub(super) fn tokens(&self) -> Option<&[TextTokens]> {
        self.tokens.as_deref()
    }

    /// Whether the decoder steps on the CPU, where parts of the queries can be searched in
    /// parallel.
    pub(super) fn are_on_cpu(&self) -> bool {
        matches!(self.memory, QueryMemory::Cpu { .. })
    }

    /// The decoder's steps for some of the queries; on a device, for all of them.
    pub(super) fn steps<'a>(
        &'a self,
        model: &'a Cart<B>,
        some: Range<usize>,
        parallel: bool,
    ) -> Steps<'a, B> {
        match &self.memory {
            QueryMemory::Cpu { decoder, memories } => {
                let state = decoder.start();
                Steps::Cpu { decoder, memories: &memories[some], state, parallel }
            }
            QueryMemory::Device { memory, queries, device } => {
                let (decoder, state) = (model.decoder(), model.decoder().start());
                Steps::Device { decoder, memory, queries: *queries, device, state }
            }
        }
    }
}

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

impl Beam {
    /// The empty prefix.
    pub(super) fn root(node: Node) -> Self {
        Self { node, score: 0.0, token: 0, parent: 0 }
    }
}

/// The decoder between two levels of a search.
pub(super) enum Steps<'a, B: Backend> {
    /// By the network's own modules. Queries are padded to as many beams each.
    Device {
        decoder: &'a Decoder<B>,
        memory: &'a Memory<B>,
        queries: usize,
        device: &'a B::Device,
        state: DecoderState<B>,
    },
    /// On the CPU, nothing padded.
    Cpu { decoder: &'a CpuDecoder, memories: &'a [CpuMemory], state: CpuState, parallel: bool },
}

/// Logits of a level.
pub(super) struct Logits {
    /// `[rows, size of the level]`
    pub(super) values: Vec<f32>,
    /// The row of the first prefix of every query.
    pub(super) first_rows: Vec<usize>,
}

impl<B: Backend> Steps<'_, B> {
    /// Runs the decoder for the live prefixes of every query.
    pub(super) fn step(&mut self, live: &[Vec<Beam>]) -> Logits {
        match self {
            Self::Cpu { decoder, memories, state, parallel } => {
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
            Self::Device { decoder, memory, queries, device, state } => {
                let width = live.iter().map(Vec::len).max().unwrap_or(0);
                let tokens = (!state.is_first()).then(|| {
                    let rows = live.len() * width;
                    let mut tokens = Vec::with_capacity(rows);
                    let mut parents = Vec::with_capacity(rows);
                    for beams in live {
                        for slot in 0..width {
                            // A padded row continues some row that exists; its logits are not read.
                            let beam = beams.get(slot).or(beams.first());
                            tokens.push(beam.map_or(0, |beam| i64::from(beam.token)));
                            parents.push(beam.map_or(0, |beam| i64::from(beam.parent)));
                        }
                    }
                    let tensor = |values| {
                        Tensor::<B, 1, Int>::from_data(TensorData::new(values, [rows]), *device)
                    };
                    state.reorder(&tensor(parents));
                    tensor(tokens)
                });
                let logits = decoder.step(*queries, tokens, memory, state);
                let values = logits.into_data().convert::<f32>().into_vec().unwrap_or_default();
                let first_rows = (0..live.len()).map(|query| query * width).collect();
                Logits { values, first_rows }
            }
        }
    }
}
