//! Mixed precision: products in half precision, everything that adds up many terms in single.

use burn::{
    module::{Module, ModuleMapper, Param},
    tensor::{DType, Tensor, backend::Backend},
};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Precision of the matrix products of a training.
///
/// Weights, moments and gradients are kept in single precision always. With half precision, the
/// weights of linear layers and gates are rounded at every step, and their products, forward and
/// backward, are taken in it; embeddings, residual sums, norms, softmax and loss stay in single
/// precision (Micikevicius et al. 2018). Validation is in single precision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Single precision throughout.
    #[default]
    F32,
    /// bfloat16: the range of single precision with 8 bits of mantissa. Needs no scaling.
    Bf16,
    /// IEEE half precision: 11 bits of mantissa, and a range so small that the loss is scaled.
    F16,
}

impl Precision {
    fn half(self) -> Option<DType> {
        match self {
            Self::F32 => None,
            Self::Bf16 => Some(DType::BF16),
            Self::F16 => Some(DType::F16),
        }
    }

    /// Whether the loss is scaled, so that small gradients do not vanish.
    pub(super) fn scales_loss(self) -> bool {
        self == Self::F16
    }

    /// Checks that a device computes in this precision.
    ///
    /// # Errors
    /// [`Error::Config`] where it does not.
    pub fn check<B: Backend>(self, device: &B::Device) -> Result<()> {
        let unsupported = self.half().is_some_and(|dtype| !B::supports_dtype(device, dtype));
        let remedy = "use f32, or a backend and device with half precision: cuda has bf16 and f16";
        Error::config("precision")
            .expected(format!("a precision of {}", B::name(device)))
            .found(format!("{self:?}").to_lowercase())
            .fix_if(unsupported, remedy)
    }

    /// The module with its linear layers in this precision; gradients reach the weights as given.
    pub(super) fn apply<B: Backend, M: Module<B>>(self, module: M) -> M {
        match self.half() {
            Some(dtype) => module.map(&mut Cast { dtype, parents: Vec::new() }),
            None => module,
        }
    }
}

/// Rounds the parameters of linear layers and of the gates of the fine fusion.
struct Cast {
    dtype: DType,
    /// For every part entered, whether its owner's parameters are rounded.
    parents: Vec<bool>,
}

impl<B: Backend> ModuleMapper<B> for Cast {
    fn enter_module(&mut self, _name: &str, container: &str) {
        self.parents.push(matches!(container, "Struct:Linear" | "Struct:FineFusion"));
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.parents.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        if self.parents.last() != Some(&true) {
            return param;
        }
        let (id, tensor, mapper) = param.consume();
        Param::from_mapped_value(id, tensor.cast(self.dtype), mapper)
    }
}

#[cfg(test)]
mod tests {
    use burn::{
        backend::{Autodiff, Flex},
        module::ModuleVisitor,
    };

    use super::*;
    use crate::{identifier::LevelSizes, model::CartConfig};

    #[derive(Default)]
    struct Count {
        half: usize,
        single: usize,
    }

    impl<B: Backend> ModuleVisitor<B> for Count {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
            match param.val().dtype() {
                DType::F32 => self.single += param.val().shape().num_elements(),
                _ => self.half += param.val().shape().num_elements(),
            }
        }
    }

    #[test]
    fn products_are_rounded_and_embeddings_and_norms_are_not() {
        let config = CartConfig::new(30, LevelSizes::new(vec![4, 3, 2]).unwrap());
        let cart =
            config.with_width(16, 24, 2).init::<Autodiff<Flex>>(&Default::default()).unwrap();
        let all = cart.num_params();
        for precision in [Precision::F32, Precision::Bf16, Precision::F16] {
            let mut count = Count::default();
            precision.apply(cart.clone()).visit(&mut count);
            assert_eq!(count.half + count.single, all);
            // Embeddings of text, positions and identifiers, the start vector, and 20 norms.
            let kept = (30 + 64 + 7 + 3 + 1) * 16 + (2 * 3 + 2 * 3) * 2 * 16;
            let single = if precision == Precision::F32 { all } else { kept };
            assert_eq!(count.single, single, "{precision:?}");
        }
    }

    #[cfg(feature = "ndarray")]
    #[test]
    fn a_backend_without_half_precision_is_named() {
        use burn::backend::NdArray;
        assert!(Precision::F32.check::<NdArray>(&Default::default()).is_ok());
        for precision in [Precision::Bf16, Precision::F16] {
            let error = precision.check::<NdArray>(&Default::default()).unwrap_err().to_string();
            assert!(error.contains("ndarray") && error.contains("use f32"), "{error}");
        }
    }
}
