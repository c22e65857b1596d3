//! A step of the decoder for rows of beams.

use super::{
    Coarse, CpuDecoder, CpuMemory, Fine,
    attention::{Context, softmax},
};
use crate::kernels::{dot, exp_neg, widest};

/// What earlier levels left, and buffers.
#[derive(Debug, Default)]
pub(crate) struct CpuState {
    /// Keys and values of every level and layer: `[rows of the level, 2 d_model]`.
    caches: Vec<Vec<Vec<f32>>>,
    /// The row of every level that each row of the last one came through: `[rows, levels so far]`.
    ancestors: Vec<u32>,
    buffers: Buffers,
}

#[derive(Debug, Default)]
struct Buffers {
    /// Queries, keys and values of the self-attention, or what reads Y, or the inner rows.
    wide: Vec<f32>,
    attended: Vec<f32>,
    projected: Vec<f32>,
    gate: Vec<f32>,
    /// What the fusions add to Y.
    fused: Vec<f32>,
    scores: Vec<f32>,
}

/// Rows of beams in the order of their queries.
struct Rows<'a> {
    counts: &'a [usize],
    memories: &'a [CpuMemory],
    parallel: bool,
}

impl CpuDecoder {
    /// The state before the first level.
    pub(crate) fn start(&self) -> CpuState {
        CpuState::default()
    }

    /// Logits of the next level for every beam. Splits its products over threads if `parallel`.
    ///
    /// # Shapes
    /// - `counts`: the beams of every query, which follow each other in rows; 1 or 0 at the first level
    /// - `tokens`, `parents`, the token each beam took last and its row of the level before: `[rows]`; empty
    ///   at the first level
    /// - returns: `[rows, size of the level]`
    pub(crate) fn step(
        &self,
        counts: &[usize],
        tokens: &[u16],
        parents: &[u32],
        memories: &[CpuMemory],
        state: &mut CpuState,
        parallel: bool,
    ) -> Vec<f32> {
        let (d, level) = (self.d_model, state.caches.len());
        let rows: usize = counts.iter().sum();
        let mut x = Vec::with_capacity(rows * d);
        let position = &self.positions[level * d..(level + 1) * d];
        let mut add = |input: &[f32]| x.extend(input.iter().zip(position).map(|(a, b)| a + b));
        match level {
            0 => {
                let first = memories.iter().zip(counts).filter(|(_, count)| **count > 0);
                first.for_each(|(memory, _)| add(&memory.start));
            }
            _ => {
                let embeddings = &self.embeddings[level - 1];
                tokens.iter().for_each(|&token| add(&embeddings[usize::from(token) * d..][..d]));
            }
        }
        let before = std::mem::take(&mut state.ancestors);
        for row in 0..rows {
            if level > 0 {
                state.ancestors.extend(&before[parents[row] as usize * level..][..level]);
            }
            state.ancestors.push(row as u32);
        }
        state.caches.push(vec![Vec::new(); self.layers.len()]);
        let given = Rows { counts, memories, parallel };
        for number in 0..self.layers.len() {
            self.layer(number, &mut x, &given, state);
        }
        let mut logits = Vec::new();
        self.heads[level].apply(&x, &mut logits, parallel);
        logits
    }

    /// One layer, in place.
    fn layer(&self, number: usize, x: &mut [f32], rows: &Rows<'_>, state: &mut CpuState) {
        let (d, parallel) = (self.d_model, rows.parallel);
        let CpuState { caches, ancestors, buffers } = state;
        let Buffers { wide, attended, projected, gate, fused, scores } = buffers;
        let layer = &self.layers[number];

        layer.self_attention.apply(x, wide, parallel);
        let own = &mut caches.last_mut().expect("pushed by the step")[number];
        for row in wide.chunks_exact(3 * d) {
            own.extend_from_slice(&row[d..]);
        }
        let caches: Vec<&[f32]> = caches.iter().map(|level| level[number].as_slice()).collect();
        attended.resize(x.len(), 0.0);
        let look = SelfAttention { caches: &caches, ancestors, d, heads: self.n_heads };
        look.attend(wide, attended);
        layer.self_output.apply(attended, projected, parallel);
        layer.self_norm.add_and_apply(x, projected);

        layer.from_y.apply(x, wide, parallel);
        let stride = layer.from_y.outputs();
        fused.clear();
        fused.resize(x.len(), 0.0);
        if layer.plain.is_some() || layer.coarse.is_some() {
            let context = |query: usize| rows.memories[query].layers[number].one.as_ref();
            attend_all(rows.counts, context, wide, (stride, 0), scores, attended);
        }
        if let Some(plain) = &layer.plain {
            plain.output.apply(attended, projected, parallel);
            fused.copy_from_slice(projected);
        }
        if let Some(Coarse { attention, gate: gates }) = &layer.coarse {
            attention.output.apply(attended, projected, parallel);
            gates.apply(projected, gate, parallel);
            add_gated(fused, gate, (d, 0), projected, 1.0);
        }
        if let Some(Fine { attention, gate_context }) = &layer.fine {
            let first = if layer.coarse.is_some() { d } else { 0 };
            let experts = gate_context.len();
            attended.resize(experts * x.len(), 0.0);
            for (expert, attended) in attended.chunks_exact_mut(x.len().max(1)).enumerate() {
                let context =
                    |query: usize| rows.memories[query].layers[number].experts.get(expert);
                attend_all(rows.counts, context, wide, (stride, first), scores, attended);
            }
            attention.output.apply(attended, projected, parallel);
            let share = (experts as f32).sqrt().recip();
            let each = projected.chunks_exact(x.len().max(1)).zip(gate_context).enumerate();
            for (expert, (projected, gates)) in each {
                let columns = (stride, first + d + expert * d);
                gates.add_product(projected, wide, columns, parallel);
                add_gated(fused, wide, columns, projected, share);
            }
        }
        layer.fusion_norm.add_and_apply(x, fused);

        layer.inner.apply(x, wide, parallel);
        // Not `max`, which would hide what is not a number.
        wide.iter_mut().for_each(|value| *value = if *value < 0.0 { 0.0 } else { *value });
        layer.outer.apply(wide, projected, parallel);
        layer.feed_forward_norm.add_and_apply(x, projected);
    }
}

/// Attention of every query's rows to a context of that query.
fn attend_all<'a>(
    counts: &[usize],
    context: impl Fn(usize) -> Option<&'a Context>,
    queries: &[f32],
    (stride, first): (usize, usize),
    scores: &mut Vec<f32>,
    out: &mut [f32],
) {
    let d = out.len() / (queries.len() / stride).max(1);
    let mut start = 0;
    for (query, &count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
        let rows = start..start + count;
        start = rows.end;
        let context = context(query).expect("memories are of this decoder");
        let queries = &queries[rows.start * stride..rows.end * stride];
        context.attend(queries, (stride, first), scores, &mut out[rows.start * d..rows.end * d]);
    }
}

/// Adds `share * sigmoid(gate) * value` to every number; gates are columns of wider rows.
fn add_gated(out: &mut [f32], gates: &[f32], columns: (usize, usize), values: &[f32], share: f32) {
    let d = out.len() / (gates.len() / columns.0).max(1);
    widest!(gated(out: &mut [f32], gates: &[f32], columns: (usize, usize), values: &[f32], share: f32, d: usize));
}

#[inline(always)]
fn gated(
    out: &mut [f32],
    gates: &[f32],
    (stride, first): (usize, usize),
    values: &[f32],
    share: f32,
    d: usize,
) {
    let rows = out.chunks_exact_mut(d).zip(values.chunks_exact(d)).zip(gates.chunks_exact(stride));
    for ((out, values), gates) in rows {
        let gates = &gates[first..first + d];
        for ((out, value), &gate) in out.iter_mut().zip(values).zip(gates) {
            let small = exp_neg(gate.abs());
            let above = 1.0 / (1.0 + small);
            let sigmoid = if gate >= 0.0 { above } else { small * above };
            *out += share * sigmoid * value;
        }
    }
}

/// Attention of every row to itself and to the rows it came through.
struct SelfAttention<'a> {
    /// Per level `[rows, 2 d]`: keys, then values.
    caches: &'a [&'a [f32]],
    /// `[rows, levels]`
    ancestors: &'a [u32],
    d: usize,
    heads: usize,
}

impl SelfAttention<'_> {
    /// # Shapes
    /// - `queries`, scaled, the first `d` columns: `[rows, 3 d]`
    /// - `out`: `[rows, d]`
    fn attend(&self, queries: &[f32], out: &mut [f32]) {
        let look = self;
        widest!(attend_to_ancestors(look: &SelfAttention<'_>, queries: &[f32], out: &mut [f32]));
    }
}

#[inline(always)]
fn attend_to_ancestors(look: &SelfAttention<'_>, queries: &[f32], out: &mut [f32]) {
    let SelfAttention { caches, ancestors, d, heads } = *look;
    let (levels, d_head) = (caches.len(), d / heads);
    let padded = levels.next_multiple_of(16);
    let mut scores = vec![0.0f32; padded];
    let rows = queries.chunks_exact(3 * d).zip(ancestors.chunks_exact(levels));
    for ((query, ancestors), out) in rows.zip(out.chunks_exact_mut(d)) {
        for head in 0..heads {
            let columns = head * d_head..(head + 1) * d_head;
            let query = &query[columns.clone()];
            for ((score, &row), cache) in scores.iter_mut().zip(ancestors).zip(caches) {
                let key = &cache[row as usize * 2 * d..][columns.clone()];
                *score = dot(query, key);
            }
            softmax(&mut scores, levels);
            let out = &mut out[columns.clone()];
            out.fill(0.0);
            for ((&weight, &row), cache) in scores.iter().zip(ancestors).zip(caches) {
                let value = &cache[row as usize * 2 * d + d..][columns.clone()];
                for (out, value) in out.iter_mut().zip(value) {
                    *out += weight * value;
                }
            }
        }
    }
}
