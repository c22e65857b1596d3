//! Token states of one candidate.

/// Token states of a candidate: rows of 8-bit numbers with a factor each.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ItemTokens {
    /// `[tokens, dim]`
    pub(crate) states: Vec<i8>,
    /// `[tokens]`
    pub(crate) scales: Vec<f32>,
}

impl ItemTokens {
    /// Bytes of a token of `dim` numbers.
    pub fn bytes_per_token(dim: usize) -> usize {
        dim + size_of::<f32>()
    }

    /// Rounds rows to 8 bits.
    pub(super) fn new(rows: &[f32], dim: usize) -> Self {
        let (mut states, mut scales) = (Vec::with_capacity(rows.len()), Vec::new());
        for row in rows.chunks_exact(dim.max(1)) {
            let largest = row.iter().fold(0f32, |top, value| top.max(value.abs()));
            let scale = largest / 127.0;
            let rounded = |value: &f32| if scale > 0.0 { (value / scale).round() as i8 } else { 0 };
            states.extend(row.iter().map(rounded));
            scales.push(scale);
        }
        Self { states, scales }
    }

    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.scales.len()
    }

    /// Whether there is no token.
    pub fn is_empty(&self) -> bool {
        self.scales.is_empty()
    }
}
