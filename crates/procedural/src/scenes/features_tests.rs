//! The descriptors of scenes.

use cart_media::picture_features;

use super::{Scenes, ScenesConfig};

fn squared(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum()
}

#[test]
fn features_are_finite_and_vary_sanely() {
    let scenes = Scenes::generate(&ScenesConfig::new(400)).unwrap();
    let (rows, dim) = scenes.features();
    assert!(rows.iter().all(|value| value.is_finite() && (0.0..=2.0).contains(value)));
    let n = scenes.len() as f32;
    let deviations: Vec<f32> = (0..dim)
        .map(|i| {
            let column: Vec<f32> = rows.iter().skip(i).step_by(dim).copied().collect();
            let mean = column.iter().sum::<f32>() / n;
            (column.iter().map(|value| (value - mean).powi(2)).sum::<f32>() / n).sqrt()
        })
        .collect();
    assert!(deviations.iter().all(|deviation| (0.005..0.5).contains(deviation)));
}

#[test]
fn the_size_of_a_picture_hardly_matters() {
    let small = Scenes::generate(&ScenesConfig::new(30)).unwrap();
    let large = Scenes::generate(&ScenesConfig::new(30).with_size(160)).unwrap();
    for i in 0..30 {
        let features = |scenes: &Scenes, i| picture_features(&scenes.scene(i).render());
        let same = squared(&features(&small, i), &features(&large, i));
        let other = squared(&features(&small, i), &features(&large, (i + 1) % 30));
        assert!(same < other * 0.7, "{same} against {other}");
    }
}
