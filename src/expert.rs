//! What only experts need: the pieces that the other modules are made of.
//!
//! Nothing here is needed to train or to search. A program that puts its own network, loss, search
//! or quantizer together finds the parts here; they change more often than the rest.

pub use crate::{
    align::{
        late::{ChosenWeight, FittedTokenStates, LateInteractionData},
        ridge::Ridge,
        space::{FittedTextSpace, TextSpaceMap},
        texts::{TextEmbedder, TextVectors},
        tune::{TunedEncoder, TuningData},
        words::IdfWeights,
    },
    data::{
        batch::{Example, QueryBatch, TargetBatch},
        captions::GENERATED,
        leaks::{LeakAudit, LeakKind, LeakPair, OverlapAudit, audit, words},
        splits::random_indices,
        text_check::TextCheck,
        tokenizer::TokenizerModel,
    },
    decode::{
        beam::{ScoredItem, SearchTimes},
        encoded::{EncodedQueries, QueryVectors},
        engine::Engine,
        exact::{ExactLimits, ExactResult},
        explain::LevelScore,
        space::{CandidateTokens, Scorer, SearchSpace},
        trace::{Trace, TraceLevel},
    },
    eval::{
        bootstrap::{BootstrapConfig, bootstrap_mean},
        metrics::{Metric, QueryTruth, mrr_at_k, recall_at_k, recall_fraction_at_k},
        report::read_json,
    },
    features::near::canonical_id,
    identifier::{
        codes::Codes,
        unique::{UniqueTokens, assign_unique},
    },
    index::{
        identifier_map::IdentifierMap,
        leave_one_out::LeaveOneOut,
        prefix::{PrefixPrior, PrefixStats},
        tokens::{ItemTokens, TextTokens, TokenSpace, TokenStates},
    },
    model::{
        config::ParameterCount,
        loss::{IdentifierLoss, LossTargets},
    },
    nn::{
        activation::{Activation, gelu},
        alignment::{AlignmentHead, AlignmentInput, GuideBatch, GuideSource},
        attention::{Attention, AttentionConfig, KeyValue, SelfCache, causal_bias, padding_bias},
        decoder::{Decoder, DecoderConfig, DecoderLayer, DecoderState, Memory},
        dropout::Dropout,
        feed_forward::{FeedForward, FeedForwardConfig},
        fusion::{CoarseFusion, FineFusion, FusionConfig, GatedAttention},
        init::WeightInit,
        projection::{ProjectionShape, QueryProjection},
        text::{
            BertConfig, BertEncoder, ClipLayer, ClipTextConfig, ClipTextEncoder, EncoderOutput,
            EncoderPrefix, Pooling, ScratchEncoder, ScratchEncoderConfig, T5Config, T5Encoder,
            T5FeedForward, T5Layer, TextEncoderConfig,
        },
        words::LexicalHead,
    },
    optim::{optimizer::CartOptimizer, rates::EncoderRates, schedule::WarmupCosine},
    quantizer::{
        coarse_to_fine::FineQuantizer,
        device_search::DeviceSearch,
        hierarchical::Hierarchical,
        kmeans::{HostSearch, Init, KMeans, KMeansEvent, NearestCentre},
        parts::CodesPart,
        rows::sample_rows,
        rq_kmeans::{RqKMeans, RqKMeansEvent},
        rqvae::{
            Mlp, Quantised, RqVae, RqVaeEvent, RqVaeNetwork, RqVaeParts, Scaling, Standardise,
            assign_nearest, nearest_codes,
        },
    },
    recipe::{
        counts::{Facts, Rows},
        fit::TextSide,
        task::{Asked, Later},
    },
    retrieve::{
        folder::{FORMAT_VERSION, Manifest, ManifestFile},
        live::ChangeStats,
        projection::ProjectionConfig,
        query::{Arity, Many, One},
        retriever::BeamScore,
    },
    train::{
        batch::{TrainBatch, ValidBatch},
        data::WeightedExample,
        freeze::trainable,
        learner::CartLearner,
        placement::Placement,
        recorder::AtomicRecorder,
        stepper::Stepper,
        update::StepOutput,
        validation::ValidOutput,
    },
    trie::table::{Children, Node, Trie},
};
