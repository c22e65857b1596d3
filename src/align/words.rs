//! IDF weights of the token embeddings.

use burn::tensor::backend::Backend;

use crate::{
    data::{ItemCaption, TextTokenizer},
    error::{Error, Result, ensure_in},
    nn::{LexicalHead, TextEncoder},
};

/// IDF weights of the token embeddings of a text encoder, for a [`LexicalHead`].
///
/// `ln((n + 1) / (df + 1/2)) / |e|`, at least 0: df of the n training texts have the token, e is
/// its embedding. A token that all texts have, such as the marks of beginning and end, counts
/// nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct IdfWeights {
    factors: Vec<f32>,
    weight: f32,
}

impl IdfWeights {
    /// Counts tokens in training texts. `weight` is the weight of the cosine of the lexical part;
    /// that of the pooled texts has weight 1.
    ///
    /// # Errors
    /// [`Error::Config`] for a weight that is not a number above 0; [`Error::Captions`] without texts;
    /// [`Error::Model`] for a tokenizer with tokens that the encoder does not know; as
    /// [`TextTokenizer::encode`] for a blank caption.
    pub fn fit<B: Backend>(
        encoder: &TextEncoder<B>,
        tokenizer: &TextTokenizer,
        train: &[ItemCaption],
        weight: f32,
    ) -> Result<Self> {
        let remedy = "0.4 is usual; leave it out to disable it";
        ensure_in("weight of the words", f64::from(weight), "(0, inf)", remedy)?;
        Error::captions("training texts")
            .expected("at least one text")
            .found("none")
            .fix_if(train.is_empty(), "check the filter of the training captions")?;
        let mut having = vec![0u32; encoder.vocabulary()];
        for caption in train {
            let mut tokens = tokenizer.encode(&caption.text)?;
            tokens.sort_unstable();
            tokens.dedup();
            for token in tokens {
                let Some(count) = having.get_mut(token as usize) else {
                    return Err(Error::model("text encoder")
                        .expected(format!("an embedding for token {token} of the tokenizer"))
                        .found(format!("{} tokens", encoder.vocabulary()))
                        .fix("use the tokenizer that belongs to the encoder"));
                };
                *count += 1;
            }
        }
        let lengths = encoder.token_embeddings().powi_scalar(2).sum_dim(1).sqrt().into_data();
        let n = train.len() as f64;
        let factor = |(&df, length): (&u32, f64)| {
            let rarity = ((n + 1.0) / (f64::from(df) + 0.5)).ln().max(0.0);
            if length > 0.0 { (rarity / length) as f32 } else { 0.0 }
        };
        let factors = having.iter().zip(lengths.iter::<f64>()).map(factor).collect();
        Ok(Self { factors, weight })
    }

    /// The lexical head with these weights.
    pub fn head<B: Backend>(&self, device: &B::Device) -> LexicalHead<B> {
        LexicalHead::new(&self.factors, self.weight, device)
    }

    /// Weight of the cosine of the lexical part.
    pub fn weight(&self) -> f32 {
        self.weight
    }

    /// The factors, `[vocabulary]`.
    pub fn factors(&self) -> &[f32] {
        &self.factors
    }
}

#[cfg(test)]
mod tests {
    use burn::backend::Flex;

    use super::*;
    use crate::{
        data::TokenizerConfig,
        nn::{ScratchEncoderConfig, TextEncoderConfig, WeightInit},
    };

    fn captions(texts: &[&str]) -> Vec<ItemCaption> {
        let caption = |text: &&str| ItemCaption { item: 0, text: text.to_string(), weight: 1.0 };
        texts.iter().map(caption).collect()
    }

    fn encoder(vocabulary: usize) -> TextEncoder<Flex> {
        let config = TextEncoderConfig::from(ScratchEncoderConfig {
            vocabulary,
            max_tokens: 16,
            d_model: 8,
            d_ff: 8,
            n_heads: 2,
            n_layers: 1,
            dropout: 0.0,
        });
        config.init(&mut WeightInit::new(3), &Default::default())
    }

    #[test]
    fn rare_words_count_more_and_marks_nothing() {
        let texts = ["a red ball", "a blue ball", "a red cone", "a cube and a cube"];
        let train = captions(&texts);
        let tokenizer = TextTokenizer::train(texts, &TokenizerConfig::default(), 16).unwrap();
        let encoder = encoder(tokenizer.vocabulary());
        let words = IdfWeights::fit(&encoder, &tokenizer, &train, 0.4).unwrap();
        let lengths: Vec<f32> = encoder
            .token_embeddings()
            .powi_scalar(2)
            .sum_dim(1)
            .sqrt()
            .into_data()
            .to_vec()
            .unwrap();
        let all: Vec<Vec<u32>> = texts.iter().map(|t| tokenizer.encode(t).unwrap()).collect();
        for (token, length) in lengths.iter().enumerate() {
            let df = all.iter().filter(|tokens| tokens.contains(&(token as u32))).count();
            let expected = (5.0 / (df as f32 + 0.5)).ln() / length;
            approx::assert_relative_eq!(words.factors()[token], expected, max_relative = 1e-5);
        }
        let mark = *all[0].last().unwrap() as usize;
        assert!(words.factors()[mark] * lengths[mark] < 0.11);

        let broken = [
            IdfWeights::fit(&encoder, &tokenizer, &train, 0.0),
            IdfWeights::fit(&encoder, &tokenizer, &train, f32::NAN),
            IdfWeights::fit(&encoder, &tokenizer, &[], 0.4),
            IdfWeights::fit(&self::encoder(4), &tokenizer, &train, 0.4),
        ];
        assert!(broken.iter().all(|result| result.is_err()));
    }
}
