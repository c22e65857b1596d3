//! The learning rate: a linear warm-up, then half a cosine. burn's own cosine restarts at its end.

use burn::{lr_scheduler::LrScheduler, tensor::backend::Backend};

/// Rises linearly to the peak, falls along half a cosine to its last share, and stays there.
///
/// # Example
/// ```
/// use burn::lr_scheduler::LrScheduler;
/// use cart_retrieval::expert::WarmupCosine;
/// let mut schedule = WarmupCosine::new(0.1, 2, 6, 0.0);
/// let rates: Vec<f64> = (0..7).map(|_| schedule.step()).collect();
/// assert_eq!((rates[0], rates[1]), (0.05, 0.1));
/// assert!(rates[5] < 0.02 && rates[6] == 0.0);
/// ```
#[derive(Debug, Clone)]
pub struct WarmupCosine {
    peak: f64,
    warmup: usize,
    steps: usize,
    last_share: f64,
    calls: usize,
    per_step: usize,
}

impl WarmupCosine {
    /// A schedule over `steps` steps, of which `warmup` rise.
    pub fn new(peak: f64, warmup: usize, steps: usize, last_share: f64) -> Self {
        Self { peak, warmup, steps, last_share, calls: 0, per_step: 1 }
    }

    /// A schedule that is asked several times in each step, as burn-train's distributed strategy
    /// does: once for every device.
    pub fn with_calls(self, per_step: usize) -> Self {
        Self { per_step: per_step.max(1), ..self }
    }
}

impl LrScheduler for WarmupCosine {
    type Record<B: Backend> = usize;

    fn step(&mut self) -> f64 {
        let step = self.calls / self.per_step;
        self.calls += 1;
        if step < self.warmup {
            return self.peak * (step + 1) as f64 / self.warmup as f64;
        }
        let span = self.steps.saturating_sub(self.warmup).max(1);
        let progress = ((step - self.warmup) as f64 / span as f64).min(1.0);
        let cosine = 0.5 * (1.0 + (std::f64::consts::PI * progress).cos());
        self.peak * (self.last_share + (1.0 - self.last_share) * cosine)
    }

    fn to_record<B: Backend>(&self) -> Self::Record<B> {
        self.calls
    }

    fn load_record<B: Backend>(mut self, record: Self::Record<B>) -> Self {
        self.calls = record;
        self
    }
}

#[cfg(test)]
mod tests {
    use burn::backend::Flex;

    use super::*;

    #[test]
    fn never_rises_again_and_resumes_where_it_was() {
        let mut schedule = WarmupCosine::new(1.0, 3, 20, 0.1);
        let rates: Vec<f64> = (0..30).map(|_| schedule.step()).collect();
        assert!(rates[..3].is_sorted() && rates[2] == 1.0);
        assert!(rates[3..].windows(2).all(|w| w[1] <= w[0]));
        assert!((rates[29] - 0.1).abs() < 1e-12);
        let mut half = WarmupCosine::new(1.0, 3, 20, 0.1);
        (0..7).for_each(|_| _ = half.step());
        let record = half.to_record::<Flex>();
        let mut resumed = WarmupCosine::new(1.0, 3, 20, 0.1).load_record::<Flex>(record);
        assert_eq!(resumed.step(), rates[7]);
        let mut thrice = WarmupCosine::new(1.0, 3, 20, 0.1).with_calls(3);
        let asked: Vec<f64> = (0..30).map(|_| thrice.step()).collect();
        assert!(asked.iter().enumerate().all(|(call, rate)| *rate == rates[call / 3]));
    }
}
