//! Lines and progress bars from the library's events.

use std::sync::{Arc, Mutex, PoisonError};

use cart_retrieval::{
    quantizer::QuantizerEvent,
    recipe::FitEvent,
    train::{IntervalSummary, TrainEvent},
};
use indicatif::{ProgressBar, ProgressStyle};

use crate::plot::LossPoint;

/// Shows a fit: lines for what is done, bars for the quantizer and the training.
#[derive(Debug, Clone, Default)]
pub struct Progress(Arc<Mutex<Shown>>);

#[derive(Debug, Default)]
struct Shown {
    bar: Option<ProgressBar>,
    curves: Curves,
}

/// What a training told of itself.
#[derive(Debug, Clone, Default)]
pub struct Curves {
    pub losses: Vec<LossPoint>,
    pub rounds: Vec<IntervalSummary>,
}

fn bar(what: &str, length: usize) -> ProgressBar {
    let style = "{prefix:>12} [{bar:30}] {pos}/{len} {elapsed} (ETA {eta}) {msg}";
    let style = ProgressStyle::with_template(style)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ");
    let bar = ProgressBar::new(length as u64).with_style(style);
    bar.set_prefix(what.to_string());
    bar
}

impl Progress {
    /// Shows an event.
    pub fn show(&self, event: FitEvent) {
        let mut shown = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            FitEvent::Note(text) => shown.above(|| println!("{text}")),
            FitEvent::Warning(text) => shown.above(|| eprintln!("warning: {text}")),
            FitEvent::Quantizer(event) => shown.quantizer(&event),
            FitEvent::Training(event) => shown.training(event),
            _ => {}
        }
    }

    /// A callback that shows events.
    pub fn listener(&self) -> impl Fn(FitEvent) + Send + Sync + 'static {
        let progress = self.clone();
        move |event| progress.show(event)
    }

    /// The curves of the training so far.
    pub fn curves(&self) -> Curves {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).curves.clone()
    }
}

impl Shown {
    /// Prints above the bar.
    fn above(&self, print: impl FnOnce()) {
        match &self.bar {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }

    fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish();
        }
    }

    fn quantizer(&mut self, event: &QuantizerEvent) {
        let QuantizerEvent::RqVae(event) = event else {
            return;
        };
        let bar = self.bar.get_or_insert_with(|| bar("RQ-VAE", event.epochs));
        bar.set_position(event.epoch as u64);
        bar.set_message(format!("reconstruction error {:.3}", event.reconstruction));
        if event.epoch == event.epochs {
            self.end();
        }
    }

    fn training(&mut self, event: TrainEvent) {
        match event {
            TrainEvent::Started { step, steps } => {
                self.end();
                let bar = bar("training", steps);
                bar.set_position(step as u64);
                self.bar = Some(bar);
            }
            TrainEvent::Step { step, steps, loss } => {
                let every = (steps / 200).max(1);
                if step % every == 0 || step == steps {
                    self.curves.losses.push(LossPoint { step, loss });
                }
                if let Some(bar) = &self.bar {
                    bar.set_position(step as u64);
                    bar.set_message(format!("loss {loss:.3}"));
                }
                if step == steps {
                    self.end();
                }
            }
            TrainEvent::Validated { summary, best } => {
                self.curves.rounds.push(summary);
                let share = |value: Option<f64>| 100.0 * value.unwrap_or(f64::NAN);
                let best = if best { "  best" } else { "" };
                let (at_1, at_10) = (share(summary.recall_at_1), share(summary.recall_at_10));
                let (interval, step) = (summary.interval, summary.step);
                self.above(|| {
                    eprintln!(
                        "  interval {interval:>3}, step {step:>6}: Recall@1 {at_1:5.1}  \
                         Recall@10 {at_10:5.1}{best}"
                    );
                });
            }
            TrainEvent::CheckpointSkipped { interval, reason } => {
                self.above(|| eprintln!("  checkpoint of interval {interval} skipped: {reason}"));
            }
            TrainEvent::Recovered { reason } => self.above(|| eprintln!("  {reason}")),
            TrainEvent::LogFailed { reason } => self.above(|| {
                eprintln!("  the training continues without a log of its metrics: {reason}");
            }),
            _ => {}
        }
    }
}
