//! The shape of a network in words, read from its parameters.

use std::collections::BTreeMap;

use burn::tensor::backend::Backend;
use burn_store::ModuleSnapshot;

use super::Cart;

impl<B: Backend> Cart<B> {
    /// The network's shape in words: what two networks must share to exchange weights.
    ///
    /// # Example
    /// ```
    /// use burn::backend::Flex;
    /// use cart_retrieval::{identifier::LevelSizes, model::CartConfig};
    /// let config = CartConfig::new(100, LevelSizes::new(vec![4, 8, 2])?).with_width(16, 32, 2);
    /// let cart = config.init::<Flex>(&Default::default())?;
    /// assert_eq!(
    ///     cart.architecture(),
    ///     "100 text tokens, at most 64 in a query, width 16, inner width 32, 2 heads, \
    ///      2 encoder and 2 decoder layers, fusion both, identifier levels [4, 8, 2]"
    /// );
    /// # Ok::<(), cart_retrieval::Error>(())
    /// ```
    pub fn architecture(&self) -> String {
        let shapes: BTreeMap<String, Vec<usize>> = self
            .collect(None, None, true)
            .into_iter()
            .map(|tensor| (tensor.full_path(), tensor.shape.to_vec()))
            .collect();
        let size = |path: &str, dim: usize| {
            shapes.get(path).and_then(|shape| shape.get(dim)).copied().unwrap_or(0)
        };
        let count = |prefix: &str, suffix: &str| {
            (0..).take_while(|n| shapes.contains_key(&format!("{prefix}.{n}.{suffix}"))).count()
        };
        let has = |part: &str| {
            let prefix = format!("decoder.layers.0.{part}.");
            shapes.keys().any(|path| path.starts_with(&prefix))
        };
        let fusion = match (has("coarse"), has("fine")) {
            (true, true) => "both",
            (true, false) => "coarse",
            (false, true) => "fine",
            (false, false) => "none",
        };
        let start = if shapes.contains_key("decoder.query_start.weight") {
            ", start from the query"
        } else {
            ""
        };
        let levels: Vec<usize> = (0..count("decoder.heads", "weight"))
            .map(|level| size(&format!("decoder.heads.{level}.weight"), 1))
            .collect();
        let layers = count("decoder.layers", "self_attention.query.weight");
        let text_tokens = size("encoder.tokens.weight", 0);
        let (width, inner) = (
            size("encoder.tokens.weight", 1),
            size("encoder.layers.0.feed_forward.inner.weight", 1),
        );
        let encoder_layers = count("encoder.layers", "attention.query.weight");
        let heads = self.encoder.n_heads();
        match self.encoder.family() {
            "scratch" => format!(
                "{text_tokens} text tokens, at most {} in a query, width {width}, inner width \
                 {inner}, {heads} heads, {encoder_layers} encoder and {layers} decoder layers, \
                 fusion {fusion}, identifier levels {levels:?}{start}",
                size("encoder.positions.weight", 0),
            ),
            family => format!(
                "{family} encoder of {text_tokens} text tokens, width {width}, inner width {inner}, \
                 {heads} heads, {encoder_layers} layers; decoder of width {}, inner width {}, \
                 {layers} layers, fusion {fusion}, identifier levels {levels:?}{start}",
                size("decoder.positions", 1),
                size("decoder.layers.0.feed_forward.inner.weight", 1),
            ),
        }
    }
}
