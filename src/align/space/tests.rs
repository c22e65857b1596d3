use approx::assert_abs_diff_eq;
use rand::RngExt;

use super::*;
use crate::kernels::{dot, normalise};

/// Features are a noisy linear image of what the texts say.
fn fixture(items: usize, texts_each: usize) -> (Features, TextVectors) {
    let mut rng = ChaCha8Rng::seed_from_u64(9);
    let mut noise = |scale: f32| (rng.random::<f32>() - 0.5) * scale;
    let (mut features, mut values, mut owners) = (vec![], vec![], vec![]);
    for item in 0..items {
        let truth: Vec<f32> = (0..4).map(|_| noise(2.0)).collect();
        features.extend((0..6).map(|d| truth[d % 4] * (d + 1) as f32 + noise(0.3)));
        for _ in 0..texts_each {
            values.extend(truth.iter().map(|v| v + noise(0.4)));
            owners.push(item as u32);
        }
    }
    let features = Features::from_rows(features, 6).unwrap();
    (features, TextVectors::new(4, values, owners).unwrap())
}

#[test]
fn candidates_lie_near_their_texts_seen_or_not() {
    let (features, texts) = fixture(60, 3);
    let fitted = TextSpaceConfig::default().fit(&features, &texts).unwrap();
    assert!(fitted.held_out_mrr > 0.5, "{}", fitted.held_out_mrr);
    let near = |vectors: &Features| {
        let cosine = |(text, &item): (usize, &u32)| {
            f64::from(dot(texts.row(text), vectors.row(item as usize)))
        };
        texts.items().iter().enumerate().map(cosine).sum::<f64>() / texts.len() as f64
    };
    let with = near(&fitted.vectors);
    let without = near(&fitted.space.embed(&features, None).unwrap());
    assert!(with > without && without > 0.8, "{with} {without}");
    let again = fitted.space.embed(&features, Some(&texts)).unwrap();
    assert_eq!(again.as_slice(), fitted.vectors.as_slice());
}

/// Twin: the vector fitted anew without the text, and without the item in the regression.
#[test]
fn held_out_vectors_do_not_know_their_text() {
    let (features, texts) = fixture(10, 2);
    let config = TextSpaceConfig { folds: 10, penalties: vec![1.0], ..Default::default() };
    let fitted = config.fit(&features, &texts).unwrap();
    for text in 0..texts.len() {
        let item = texts.items()[text] as usize;
        let keep = |t: &usize| texts.items()[*t] as usize != item;
        let rest: Vec<usize> = (0..texts.len()).filter(keep).collect();
        let others = TextVectors::new(
            4,
            rest.iter().flat_map(|&t| texts.row(t).to_vec()).collect(),
            rest.iter().map(|&t| texts.items()[t]).collect(),
        )
        .unwrap();
        let refit = config.fit(&features, &others).unwrap().space;
        let sibling = text ^ 1;
        let only = TextVectors::new(4, texts.row(sibling).to_vec(), vec![item as u32]).unwrap();
        let expected = refit.embed(&features, Some(&only)).unwrap();
        for (a, b) in fitted.held_out.row(text).iter().zip(expected.row(item)) {
            assert_abs_diff_eq!(a, b, epsilon = 1e-5);
        }
    }
}

#[test]
fn comes_back_from_its_file() {
    let (features, texts) = fixture(12, 2);
    for gamma in [0.0, 1.0] {
        let config = TextSpaceConfig { gammas: vec![gamma], ..Default::default() };
        let space = config.fit(&features, &texts).unwrap().space;
        let bytes = space.to_safetensors().unwrap();
        assert_eq!(TextSpaceMap::from_safetensors(&bytes).unwrap(), space);
        assert!(TextSpaceMap::from_safetensors(&bytes[..bytes.len() - 1]).is_err());
        let beside =
            config.fit_with_tuned_map(Some(&space.ridge), &features, &texts).unwrap().space;
        let bytes = beside.to_safetensors().unwrap();
        assert_eq!(TextSpaceMap::from_safetensors(&bytes).unwrap(), beside);
        assert_ne!(beside, space);
    }
}

/// A map that is the regression itself changes nothing; another one moves candidates half way to
/// it.
#[test]
fn a_tuned_map_counts_as_much_as_the_regression() {
    let (features, texts) = fixture(12, 2);
    let (input, dim) = (features.dim(), texts.dim());
    let config = TextSpaceConfig { texts: 0.0, ..Default::default() };
    let alone = config.fit(&features, &texts).unwrap();
    let same = config.fit_with_tuned_map(Some(&alone.space.ridge), &features, &texts).unwrap();
    for (a, b) in alone.vectors.as_slice().iter().zip(same.vectors.as_slice()) {
        assert_abs_diff_eq!(a, b, epsilon = 1e-6);
    }
    let mut other = alone.space.ridge.clone();
    other.bias.iter_mut().enumerate().for_each(|(at, value)| *value += at as f32);
    let moved = config.fit_with_tuned_map(Some(&other), &features, &texts).unwrap();
    for item in 0..features.len() {
        let (a, b) = (alone.space.ridge.map(features.row(item)), other.map(features.row(item)));
        let (mut a, mut b) = (a, b);
        normalise(&mut a);
        normalise(&mut b);
        let mut half_way: Vec<f32> = a.iter().zip(&b).map(|(a, b)| a + b).collect();
        normalise(&mut half_way);
        for (expected, found) in half_way.iter().zip(moved.vectors.row(item)) {
            assert_abs_diff_eq!(expected, found, epsilon = 1e-5);
        }
    }
    let to_come = moved.space.embed(&features, None).unwrap();
    for (a, b) in moved.vectors.as_slice().iter().zip(to_come.as_slice()) {
        assert_abs_diff_eq!(a, b, epsilon = 1e-6);
    }
    let narrow = Ridge::fit((input, dim - 1), features.as_slice(), &vec![0.5; 12 * (dim - 1)], 1.0);
    assert!(config.fit_with_tuned_map(Some(&narrow.unwrap()), &features, &texts).is_err());
}

#[test]
fn what_cannot_be_is_refused() {
    let (features, texts) = fixture(12, 2);
    let bad = |config: TextSpaceConfig| config.fit(&features, &texts).is_err();
    assert!(bad(TextSpaceConfig { folds: 1, ..Default::default() }));
    assert!(bad(TextSpaceConfig { penalties: vec![], ..Default::default() }));
    assert!(bad(TextSpaceConfig { gammas: vec![], ..Default::default() }));
    assert!(bad(TextSpaceConfig { gammas: vec![-1.0], ..Default::default() }));
    assert!(bad(TextSpaceConfig { landmarks: 0, ..Default::default() }));
    assert!(bad(TextSpaceConfig { penalties: vec![0.0], ..Default::default() }));
    assert!(bad(TextSpaceConfig { texts: 0.0, features: 0.0, ..Default::default() }));
    assert!(bad(TextSpaceConfig { texts: f32::NAN, ..Default::default() }));
    let (few, _) = fixture(3, 1);
    assert!(TextSpaceConfig::default().fit(&few, &texts).is_err());
    let one = TextVectors::new(4, vec![1.0, 0.0, 0.0, 0.0], vec![0]).unwrap();
    assert!(TextSpaceConfig::default().fit(&features, &one).is_err());
    assert!(TextVectors::new(2, vec![1.0], vec![0]).is_err());
    assert!(TextVectors::new(1, vec![f32::NAN], vec![0]).is_err());
}

/// Twin: the fit without the texts that weigh nothing.
#[test]
fn texts_of_weight_0_are_as_if_not_there() {
    let (features, texts) = fixture(24, 3);
    // One text of every item, and all of item 5.
    let left_out = |text: usize| text % 3 == 1 || texts.items()[text] == 5;
    let weights = (0..texts.len()).map(|t| if left_out(t) { 0.0 } else { 0.7 }).collect();
    let weighted = texts.clone().with_weights(weights).unwrap();
    let rest: Vec<usize> = (0..texts.len()).filter(|&text| !left_out(text)).collect();
    let fewer = TextVectors::new(
        4,
        rest.iter().flat_map(|&t| texts.row(t).to_vec()).collect(),
        rest.iter().map(|&t| texts.items()[t]).collect(),
    )
    .unwrap();
    let config = TextSpaceConfig::default();
    let (found, expected) =
        (config.fit(&features, &weighted).unwrap(), config.fit(&features, &fewer).unwrap());
    assert_eq!((found.gamma, found.penalty), (expected.gamma, expected.penalty));
    assert_eq!(found.held_out_mrr, expected.held_out_mrr);
    for (a, b) in found.vectors.as_slice().iter().zip(expected.vectors.as_slice()) {
        assert_abs_diff_eq!(a, b, epsilon = 1e-5);
    }
    for (at, &text) in rest.iter().enumerate() {
        for (a, b) in found.held_out.row(text).iter().zip(expected.held_out.row(at)) {
            assert_abs_diff_eq!(a, b, epsilon = 1e-5);
        }
    }
    // A text without weight still has a vector that has not seen it: the candidate's own.
    let own = expected.space.embed(&features, Some(&fewer)).unwrap();
    assert_eq!(found.held_out.len(), texts.len());
    for (a, b) in found.held_out.row(15).iter().zip(own.row(5)) {
        assert_abs_diff_eq!(a, b, epsilon = 1e-5);
    }
    let error = config.fit(&features, &texts.clone().with_weights(vec![0.0; 72]).unwrap());
    assert!(error.unwrap_err().to_string().contains("two items"));
    assert!(texts.clone().with_weights(vec![1.0]).is_err());
    assert!(texts.with_weights(vec![-1.0; 72]).is_err());
}

#[test]
fn weights_count_in_proportion() {
    let (features, texts) = fixture(24, 3);
    let config = TextSpaceConfig::default();
    let fit = |weight: &dyn Fn(usize) -> f32| {
        let weights = (0..texts.len()).map(weight).collect();
        config.fit(&features, &texts.clone().with_weights(weights).unwrap()).unwrap()
    };
    let plain = config.fit(&features, &texts).unwrap();
    assert_eq!(fit(&|_| 0.3).vectors.as_slice(), plain.vectors.as_slice());
    let uneven = |factor: f32| fit(&move |text| factor * [1.0, 0.2, 0.5][text % 3]);
    for (a, b) in uneven(1.0).vectors.as_slice().iter().zip(uneven(8.0).vectors.as_slice()) {
        assert_abs_diff_eq!(a, b, epsilon = 1e-6);
    }
    // Twin: the blend by hand, of a candidate all of whose texts weigh a tenth.
    let found = fit(&|text| if text < 3 { [0.1, 0.1, 0.02][text] } else { 1.0 });
    let mut mean = vec![0.0; 4];
    for (text, weight) in [0.1f32, 0.1, 0.02].into_iter().enumerate() {
        mean.iter_mut().zip(texts.row(text)).for_each(|(mean, v)| *mean += weight * v);
    }
    normalise(&mut mean);
    let mut expected = found.space.ridge.map(features.row(0));
    normalise(&mut expected);
    expected.iter_mut().zip(&mean).for_each(|(value, mean)| *value += 0.1 * mean);
    normalise(&mut expected);
    for (a, b) in found.vectors.row(0).iter().zip(&expected) {
        assert_abs_diff_eq!(a, b, epsilon = 1e-5);
    }
}
