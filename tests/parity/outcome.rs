//! Named numbers of a computation, and their comparison.

use burn::{
    module::{AutodiffModule, Module, ModuleVisitor, Param},
    optim::GradientsParams,
    tensor::{
        Tensor,
        backend::{AutodiffBackend, Backend},
    },
};

/// How far two `f32` computations may be apart, relative to the largest value of a tensor.
///
/// The sums here have up to some 1000 terms. Their order differs between backends, and a GPU
/// contracts products and sums: each sum is off by about `sqrt(1000) * 2^-24 = 2e-6` of its size,
/// and the deepest case chains some twenty of them forward and as many backward, with softmax and
/// division in between. 1e-4 leaves room for those and none for a wrong term.
const TOLERANCE: f64 = 1e-4;

/// A tensor smaller than this share of the largest one of its kind (gradients, parameters, results)
/// is measured against that share. Some gradients are zero but for rounding: an attention's keys
/// may all be moved by one vector without a change of its probabilities, so the gradient of the
/// bias of its keys is what is left of a sum of large terms that cancel.
const SMALL: f64 = 1e-2;

/// What a case computed.
#[derive(Clone, Default)]
pub struct Outcome {
    values: Vec<(String, Vec<usize>, Vec<f64>)>,
    exact: Vec<(String, Vec<i64>)>,
    tolerance: Option<f64>,
}

impl Outcome {
    /// A tolerance of its own, for what amplifies differences; say why where it is used.
    pub fn with_tolerance(self, tolerance: f64) -> Self {
        Self { tolerance: Some(tolerance), ..self }
    }

    /// The numbers of one name alone.
    pub fn only(&self, name: &str) -> Self {
        let values = self.values.iter().filter(|(other, ..)| other == name).cloned().collect();
        Self { values, ..Self::default() }
    }

    pub fn tensor<B: Backend, const D: usize>(&mut self, name: &str, tensor: Tensor<B, D>) {
        let data = tensor.into_data();
        self.values.push((name.into(), data.shape.to_vec(), data.iter::<f64>().collect()));
    }

    pub fn numbers(&mut self, name: &str, values: impl IntoIterator<Item = f64>) {
        let values: Vec<f64> = values.into_iter().collect();
        self.values.push((name.into(), vec![values.len()], values));
    }

    /// Numbers that must be equal: codes, items.
    pub fn exactly(&mut self, name: &str, values: impl IntoIterator<Item = i64>) {
        self.exact.push((name.into(), values.into_iter().collect()));
    }

    /// Gradients of a scalar: of all parameters of a module.
    pub fn gradients<B: AutodiffBackend, M: AutodiffModule<B>>(
        &mut self,
        module: &M,
        loss: Tensor<B, 1>,
    ) {
        self.grads(module, &GradientsParams::from_grads(loss.backward(), module));
    }

    /// Gradients that were taken, of the parameters of a module that have one.
    pub fn grads<B: AutodiffBackend, M: AutodiffModule<B>>(
        &mut self,
        module: &M,
        grads: &GradientsParams,
    ) {
        let mut visitor = Gradients { grads, outcome: self, count: 0 };
        module.visit(&mut visitor);
        assert!(visitor.count > 0, "no parameter has a gradient");
    }

    /// Values of all parameters of a module.
    pub fn parameters<B: Backend, M: Module<B>>(&mut self, module: &M) {
        module.visit(&mut Parameters { outcome: self, count: 0, path: Vec::new() });
    }

    pub fn assert_near(&self, expected: &Self) {
        let tolerance = expected.tolerance.unwrap_or(TOLERANCE);
        assert_eq!(self.exact.len(), expected.exact.len());
        for ((name, found), (_, expected)) in self.exact.iter().zip(&expected.exact) {
            assert_eq!(found, expected, "{name}");
        }
        assert_eq!(self.values.len(), expected.values.len(), "as many tensors");
        let kind = |name: &str| name.split(' ').next().unwrap_or_default().to_string();
        let of_kind = |name: &str| {
            let same = expected.values.iter().filter(|(other, ..)| kind(other) == kind(name));
            same.map(|(.., values)| largest(values)).fold(0.0, f64::max)
        };
        let mut worst = (0.0, "", 0, 0.0, 0.0, 0.0);
        for ((name, shape, found), (other, expected_shape, expected)) in
            self.values.iter().zip(&expected.values)
        {
            assert_eq!(name, other);
            assert_eq!(shape, expected_shape, "shape of {name}");
            let size = largest(expected).max(SMALL * of_kind(name));
            for (at, (a, b)) in found.iter().zip(expected).enumerate() {
                let gap = (a - b).abs() / size.max(1e-6);
                if gap.is_nan() || gap > worst.0 {
                    worst = (gap, name, at, *a, *b, size);
                }
            }
            if worst.0.is_nan() || worst.0 > tolerance {
                break;
            }
        }
        let (gap, name, at, a, b, size) = worst;
        assert!(
            gap <= tolerance,
            "{name}[{at}]: {a} here, {b} on flex; {gap:.1e} of the largest, {size:.3e}"
        );
        println!("largest difference {:.1e} ({})", gap, name);
    }
}

fn largest(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |most, value| most.max(value.abs()))
}

struct Gradients<'a> {
    grads: &'a GradientsParams,
    outcome: &'a mut Outcome,
    count: usize,
}

impl<B: AutodiffBackend> ModuleVisitor<B> for Gradients<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        if let Some(grad) = self.grads.get::<B::InnerBackend, D>(param.id) {
            self.outcome.tensor(&format!("gradient {}", self.count), grad);
            self.count += 1;
        }
    }
}

struct Parameters<'a> {
    outcome: &'a mut Outcome,
    count: usize,
    path: Vec<String>,
}

impl<B: Backend> ModuleVisitor<B> for Parameters<'_> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        // The gradient of a key's bias is rounding alone (see `SMALL`), and Adam makes steps of
        // full size of it: where it goes is chance, and of no effect.
        if D == 1 && self.path.iter().any(|name| name == "key") {
            return;
        }
        self.outcome.tensor(&format!("parameter {}", self.count), param.val());
        self.count += 1;
    }
}
