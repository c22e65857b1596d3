//! Progress bars from the library's events.

use std::{
    ops::ControlFlow,
    sync::{Arc, Mutex},
};

use cart_retrieval::{
    quantizer::QuantizerEvent,
    train::{RoundSummary, StopFlag, TrainEvent},
};
use indicatif::{ProgressBar, ProgressStyle};

use super::plot::LossPoint;

fn bar(what: &str, length: usize) -> ProgressBar {
    let style = "{prefix:>12} [{bar:30}] {pos}/{len} {elapsed} (left {eta}) {msg}";
    let style = ProgressStyle::with_template(style)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ");
    let bar = ProgressBar::new(length as u64).with_style(style);
    bar.set_prefix(what.to_string());
    bar
}

/// A callback that shows the fit of a quantizer.
pub fn quantizer(stop: StopFlag) -> impl FnMut(QuantizerEvent) -> ControlFlow<()> {
    let mut shown: Option<ProgressBar> = None;
    move |event| {
        if let QuantizerEvent::RqVae(event) = &event {
            let bar = shown.get_or_insert_with(|| bar("RQ-VAE", event.epochs));
            bar.set_position(event.epoch as u64);
            bar.set_message(format!("reconstruction error {:.3}", event.reconstruction));
            if event.epoch == event.epochs {
                bar.finish();
            }
        }
        if stop.is_raised() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

/// Prints a line above the bar.
fn tell(bar: Option<&ProgressBar>, line: &str) {
    match bar {
        Some(bar) if !bar.is_hidden() => bar.println(line),
        _ => eprintln!("{line}"),
    }
}

/// What a training told of itself.
#[derive(Debug, Clone, Default)]
pub struct Curves {
    pub losses: Vec<LossPoint>,
    pub rounds: Vec<RoundSummary>,
}

/// A listener that shows a training and keeps its curves.
pub fn training() -> (impl Fn(TrainEvent) + Send + Sync + 'static, Arc<Mutex<Curves>>) {
    let curves = Arc::new(Mutex::new(Curves::default()));
    let kept = curves.clone();
    let shown: Mutex<Option<ProgressBar>> = Mutex::new(None);
    let listener = move |event: TrainEvent| {
        let (Ok(mut shown), Ok(mut kept)) = (shown.lock(), kept.lock()) else {
            return;
        };
        match event {
            TrainEvent::Started { step, steps } => {
                let bar = bar("training", steps);
                bar.set_position(step as u64);
                *shown = Some(bar);
            }
            TrainEvent::Step { step, steps, loss } => {
                let every = (steps / 200).max(1);
                if step % every == 0 || step == steps {
                    kept.losses.push(LossPoint { step, loss });
                }
                if let Some(bar) = shown.as_ref() {
                    bar.set_position(step as u64);
                    bar.set_message(format!("loss {loss:.3}"));
                    if step == steps {
                        bar.finish();
                    }
                }
            }
            TrainEvent::Validated { summary, best } => {
                kept.rounds.push(summary);
                let share = |value: Option<f64>| 100.0 * value.unwrap_or(f64::NAN);
                let line = format!(
                    "  round {:>3}, step {:>6}: Recall@1 {:5.1}  Recall@10 {:5.1}{}",
                    summary.round,
                    summary.step,
                    share(summary.recall_at_1),
                    share(summary.recall_at_10),
                    if best { "  best" } else { "" }
                );
                tell(shown.as_ref(), &line);
            }
            TrainEvent::CheckpointSkipped { round, reason } => {
                let line = format!("  checkpoint of round {round} skipped: {reason}");
                tell(shown.as_ref(), &line);
            }
            TrainEvent::Recovered { reason } => tell(shown.as_ref(), &format!("  {reason}")),
            TrainEvent::LogFailed { reason } => {
                let line = format!("  the training goes on without a log of its metrics: {reason}");
                tell(shown.as_ref(), &line);
            }
            _ => {}
        }
    };
    (listener, curves)
}
