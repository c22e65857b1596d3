use proptest::prelude::*;

use super::{
    super::neighbours::{norms, similarity},
    *,
};

fn features(rows: Vec<f32>, dim: usize) -> Features {
    let ids = (0..rows.len() / dim).map(|row| format!("i{row}")).collect();
    Features::from_rows(rows, dim).unwrap().with_id_list(ids).unwrap()
}

fn caption(item: u32, text: &str) -> ItemCaption {
    ItemCaption { item, text: text.into(), weight: 1.0 }
}

fn run(captioner: &RetrievalCaptioner, all: &Features, ids: &[&str]) -> Vec<(String, String, f32)> {
    let job = CaptionJob::new(ids).unwrap().with_features(all).unwrap();
    let made = captioner.caption(&job, &Monitor::new()).unwrap();
    made.captions.iter().map(|c| (c.id.clone(), c.text.clone(), c.weight)).collect()
}

#[test]
fn weights_fall_with_the_similarity_and_texts_are_given_once() {
    let all = features(vec![1.0, 0.0, 0.8, 0.6, 0.0, 1.0, 2.0, 0.0], 2);
    let training = [caption(0, "one"), caption(0, "both"), caption(1, "both"), caption(1, "two")];
    let config = RetrievalConfig { k: 2, weight: 0.5, temperature: 0.2, ..Default::default() };
    let captioner = config.clone().fit(&all, &training).unwrap();
    let made = run(&captioner, &all, &["i3"]);
    let texts: Vec<&str> = made.iter().map(|(_, text, _)| text.as_str()).collect();
    assert_eq!(texts, ["one", "both", "two"]);
    assert_eq!(made[0].2, 0.5);
    // i1 has a cosine of 0.8, 0.2 less than i0: one temperature.
    assert!((made[2].2 - 0.5 * (-1.0f32).exp()).abs() < 1e-6, "{}", made[2].2);
    let one = RetrievalConfig { per_neighbour: Some(1), ..config }.fit(&all, &training).unwrap();
    assert_eq!(run(&one, &all, &["i3"])[1].1, "both");
    // An item is not its own neighbour.
    assert!(run(&one, &all, &["i0"]).iter().all(|(_, text, _)| text != "one"));
    let job = CaptionJob::new(&["i3"]).unwrap().with_features(&all).unwrap();
    let made = one.caption(&job, &Monitor::new()).unwrap();
    let first = made.captions.iter().next().unwrap();
    assert_eq!(first.kind.as_deref(), Some("generated"));
    assert_eq!(first.source.as_deref(), Some("retrieval-2"));
}

#[test]
fn equal_neighbours_come_in_the_order_of_the_items() {
    let all = features([0.3f32, 0.7].repeat(200), 2);
    let training: Vec<ItemCaption> =
        (0..199).map(|item| caption(198 - item, &format!("t{:03}", 198 - item))).collect();
    let captioner = RetrievalConfig { k: 3, ..Default::default() }.fit(&all, &training).unwrap();
    let texts: Vec<String> =
        run(&captioner, &all, &["i199"]).into_iter().map(|(_, text, _)| text).collect();
    assert_eq!(texts, ["t000", "t001", "t002"]);
}

#[test]
fn an_item_alone_gets_nothing_and_is_named() {
    let all = features(vec![1.0, 0.0, 0.0, 1.0], 2);
    let captioner = RetrievalConfig::default().fit(&all, &[caption(0, "one")]).unwrap();
    let job = CaptionJob::new(&["i0", "i1"]).unwrap().with_features(&all).unwrap();
    let mut seen = Vec::new();
    let made = captioner
        .caption(
            &job,
            &Monitor::new()
                .with_progress(|at: CaptionProgress| seen.push((at.done, at.without, at.total))),
        )
        .unwrap();
    assert_eq!((made.without, made.captions.len()), (vec!["i0".to_string()], 1));
    assert_eq!(seen, [(2, 1, 2)]);
    let stop = cart_retrieval::cancel::StopFlag::new();
    stop.raise();
    let error = captioner.caption(&job, &Monitor::new().with_stop(&stop)).unwrap_err();
    assert!(matches!(error, Error::Interrupted(_)), "{error}");
}

#[test]
fn what_does_not_fit_is_refused() {
    let all = features(vec![1.0, 0.0, 0.0, 1.0], 2);
    let text = [caption(0, "one")];
    let bad = |config: RetrievalConfig| config.fit(&all, &text).unwrap_err().to_string();
    let usual = RetrievalConfig::default;
    assert!(bad(RetrievalConfig { k: 0, ..usual() }).contains("k of the retrieval"));
    assert!(bad(RetrievalConfig { per_neighbour: Some(0), ..usual() }).contains("per_neighbour"));
    assert!(bad(RetrievalConfig { weight: 0.0, ..usual() }).contains("weight"));
    assert!(bad(RetrievalConfig { temperature: f64::NAN, ..usual() }).contains("temperature"));
    assert!(serde_json::from_str::<RetrievalConfig>(r#"{"neighbours": 3}"#).is_err());

    assert!(usual().fit(&all, &[]).unwrap_err().to_string().contains("at least one"));
    let error = usual().fit(&all, &[caption(7, "far")]).unwrap_err().to_string();
    assert!(error.contains("item 7"), "{error}");
    let zero = features(vec![0.0, 0.0, 0.0, 1.0], 2);
    assert!(usual().fit(&zero, &text).unwrap_err().to_string().contains("`i0`"));
    let euclidean = RetrievalConfig { metric: Metric::Euclidean, ..usual() };
    assert!(euclidean.clone().fit(&zero, &text).is_ok());
    let infinite = features(vec![f32::INFINITY, 0.0, 0.0, 1.0], 2);
    assert!(euclidean.fit(&infinite, &text).is_err());

    let captioner = usual().fit(&all, &text).unwrap();
    let job = CaptionJob::new(&["i1"]).unwrap();
    let refused =
        |job: &CaptionJob| captioner.caption(job, &Monitor::new()).unwrap_err().to_string();
    assert!(refused(&job).contains("with_features"));
    let wide = features(vec![1.0; 6], 3);
    assert!(refused(&job.clone().with_features(&wide).unwrap()).contains("width 3"));
    let job = CaptionJob::new(&["zz"]).unwrap();
    assert!(job.with_features(&all).unwrap_err().to_string().contains("`zz`"));
}

/// The slow twin: all similarities, sorted.
fn slow(
    all: &Features,
    training: &[ItemCaption],
    config: &RetrievalConfig,
    wanted: usize,
) -> Vec<(String, f32)> {
    let lengths = norms(all, config.metric).unwrap();
    let mut near: Vec<(f64, usize)> = (0..all.len())
        .filter(|&row| row != wanted && training.iter().any(|text| text.item as usize == row))
        .map(|row| {
            let (a, b) = (all.row(wanted), all.row(row));
            (similarity(config.metric, a, b, lengths[wanted], lengths[row]), row)
        })
        .collect();
    near.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    let mut given: Vec<(String, f32)> = Vec::new();
    for &(similarity, row) in near.iter().take(config.k) {
        let share = ((similarity - near[0].0) / config.temperature).exp();
        for text in training.iter().filter(|text| text.item as usize == row) {
            let weight = (f64::from(config.weight) * share) as f32;
            if weight > 0.0 && given.iter().all(|(known, _)| *known != text.text) {
                given.push((text.text.clone(), weight));
            }
        }
    }
    given
}

proptest! {
    #[test]
    fn agrees_with_the_double_loop_and_gives_only_what_it_was_given(
        rows in prop::collection::vec(prop::collection::vec(-2i8..3, 3), 2..40),
        stretch in prop::sample::select(vec![1.0f32, 0.137, 1e-3, 1e20]),
        training in prop::collection::vec((0usize..40, 0u8..30), 1..40),
        k in 1usize..8,
        euclidean in any::<bool>(),
    ) {
        let count = rows.len();
        // No row is all zero; equal rows are frequent.
        let flat = rows.concat().into_iter().enumerate().map(|(at, value)| {
            stretch * (f32::from(value) + if at % 3 == 2 { 2.5 } else { 0.0 })
        });
        let all = features(flat.collect(), 3);
        let training: Vec<ItemCaption> = training
            .iter()
            .map(|(item, text)| caption((item % count) as u32, &format!("text {text}")))
            .collect();
        let metric = if euclidean { Metric::Euclidean } else { Metric::Cosine };
        let config = RetrievalConfig { k, metric, ..Default::default() };
        let captioner = config.clone().fit(&all, &training).unwrap();
        let ids: Vec<String> = all.ids().iter().map(str::to_string).collect();
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        let made = run(&captioner, &all, &ids);
        for (wanted, id) in ids.iter().enumerate() {
            let of: Vec<(String, f32)> = made
                .iter()
                .filter(|(owner, ..)| owner == id)
                .map(|(_, text, weight)| (text.clone(), *weight))
                .collect();
            prop_assert_eq!(of, slow(&all, &training, &config, wanted));
        }
        prop_assert!(made.iter().all(|(_, text, _)| training.iter().any(|t| t.text == *text)));
    }
}
