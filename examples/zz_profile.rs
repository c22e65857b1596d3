use burn::backend::{Autodiff, Flex};
use burn::tensor::{Bool, Int, Tensor, TensorData};
use cart_retrieval::{identifier::Vocabulary, model::*, nn::FusionMode};
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
type A = Autodiff<Flex>;
fn main() {
    let device = Default::default();
    let b = 64;
    let t = 30;
    let v = Vocabulary::new(vec![32, 32, 32, 32, 2]).unwrap();
    let ids: Vec<i64> = (0..b * 5).map(|i| (i % 2) as i64).collect();
    let legal: Vec<Tensor<A, 2, Bool>> = v
        .sizes()
        .iter()
        .map(|&s| Tensor::from_data(TensorData::new(vec![true; b * s], [b, s]), &device))
        .collect();
    for fusion in [FusionMode::None, FusionMode::Both] {
        for dropout in [0.0, 0.1] {
            let cart = CartConfig::new(1000, v.clone())
                .with_dropout(dropout)
                .with_fusion(fusion)
                .init::<A>(&device)
                .unwrap();
            let tokens = Tensor::<A, 2, Int>::ones([b, t], &device);
            let padding = Tensor::<A, 2, Bool>::from_data(
                TensorData::new(vec![false; b * t], [b, t]),
                &device,
            );
            let idt = Tensor::<A, 2, Int>::from_data(TensorData::new(ids.clone(), [b, 5]), &device);
            let mut f = vec![];
            let mut w = vec![];
            let mut e = vec![];
            for _ in 0..15 {
                let s = std::time::Instant::now();
                let enc = cart.encode_layers(tokens.clone(), padding.clone());
                drop(enc);
                e.push(s.elapsed().as_secs_f64());
                let s = std::time::Instant::now();
                let logits = cart.forward(tokens.clone(), padding.clone(), idt.clone());
                let loss = LossConfig::default().forward(logits, idt.clone(), &legal, 1);
                f.push(s.elapsed().as_secs_f64());
                let s = std::time::Instant::now();
                let _g = loss.total.backward();
                w.push(s.elapsed().as_secs_f64());
            }
            for x in [&mut f, &mut w, &mut e] {
                x.sort_by(f64::total_cmp);
            }
            println!(
                "{fusion:?} dropout {dropout}: encoder {:.1} ms forward {:.1} ms backward {:.1} ms",
                e[7] * 1e3,
                f[7] * 1e3,
                w[7] * 1e3
            );
        }
    }
}
