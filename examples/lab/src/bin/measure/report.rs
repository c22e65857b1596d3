//! Times, memory and the JSON line.

use std::time::Instant;

use anyhow::Result;
use burn::tensor::backend::Backend;
use serde_json::{Map, Value, json};

use crate::{Common, common::processor};

/// Runs `work` for warm-up, then timed; every repetition ends when the device is done.
///
/// Returns the seconds of every timed repetition.
pub fn repeat<B: Backend>(
    common: &Common,
    device: &B::Device,
    mut work: impl FnMut(usize) -> Result<()>,
) -> Result<Vec<f64>> {
    let mut seconds = Vec::with_capacity(common.steps);
    for repetition in 0..common.warmup + common.steps {
        let started = Instant::now();
        work(repetition)?;
        B::sync(device).map_err(|e| anyhow::anyhow!("the device failed: {e:?}"))?;
        if repetition >= common.warmup {
            seconds.push(started.elapsed().as_secs_f64());
        }
    }
    Ok(seconds)
}

/// The middle value, or the mean of the two middle ones.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
    }
}

/// A line of `/proc/self/status` in MiB; `None` where there is no such file.
fn memory(name: &str) -> Option<f64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    let kibibytes: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes / 1024.0)
}

/// Resident memory now, MiB.
pub fn resident() -> Option<f64> {
    memory("VmRSS")
}

/// The most memory that was resident at once, MiB.
pub fn peak_resident() -> Option<f64> {
    memory("VmHWM")
}

/// Seconds that the threads of this process were ready but had no processor.
fn waited() -> Option<f64> {
    let mut nanoseconds = 0.0;
    for task in std::fs::read_dir("/proc/self/task").ok()? {
        let text = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        nanoseconds += text.split_whitespace().nth(1)?.parse::<f64>().ok()?;
    }
    Some(nanoseconds / 1e9)
}

/// Times as they go into the JSON line; `units` are done in each repetition.
pub fn times(seconds: &[f64], units: f64) -> Map<String, Value> {
    let middle = median(seconds);
    let mut map = Map::new();
    map.insert("seconds".into(), json!(middle));
    map.insert("all_seconds".into(), json!(seconds));
    map.insert("per_second".into(), json!(units / middle));
    map
}

/// Prints the line, with what is known of the machine.
pub fn emit(backend: &str, device: &str, common: &Common, measured: Value) {
    let mut line = json!({
        "side": "cart-retrieval",
        "version": env!("CARGO_PKG_VERSION"),
        "backend": backend,
        "device": device,
        "threads": rayon::current_num_threads(),
        "seed": common.seed,
        "hardware": processor(),
        "peak_rss_mib": peak_resident(),
        "waited_seconds": waited(),
    });
    if let (Some(line), Value::Object(measured)) = (line.as_object_mut(), measured) {
        line.extend(measured);
    }
    println!("{line}");
}
