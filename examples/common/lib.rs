//! What the examples share: printing, the backend, recipes, progress bars, Ctrl-C, reports.

#[macro_use]
pub mod print;

pub mod backend;
pub mod drawn;
pub mod inputs;
pub mod judge;
pub mod memory;
pub mod outputs;
pub mod page;
pub mod plot;
pub mod progress;
pub mod recipe;

use cart_retrieval::{backend::LocalBackend, cancel::StopFlag};

/// A flag that Ctrl-C raises; a second Ctrl-C ends the program at once.
pub fn stop_on_ctrl_c() -> anyhow::Result<StopFlag> {
    let stop = StopFlag::new();
    let raised = stop.clone();
    ctrlc::set_handler(move || {
        if raised.is_raised() {
            std::process::exit(130);
        }
        eprintln!("\nstopping after this step; press Ctrl-C again to end at once");
        raised.raise();
    })?;
    Ok(stop)
}

/// The processor's name, the number of cores, backend and device, for reports.
pub fn hardware<B: LocalBackend>(device: &B::Device) -> String {
    format!("{}; {}", processor(), B::describe(device))
}

/// The processor's name and the number of cores.
pub fn processor() -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let model = std::fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("model name"))?;
        Some(line.split_once(':')?.1.trim().to_string())
    });
    let model = model.unwrap_or_else(|| std::env::consts::ARCH.to_string());
    format!("{model}, {cores} cores")
}

/// The command line, for reports.
pub fn command() -> String {
    let path = std::env::args().next().unwrap_or_default();
    let path = std::path::Path::new(&path);
    let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or("");
    let example = path.parent().is_some_and(|folder| folder.ends_with("examples"));
    let program =
        if example { format!("--example {name}") } else { format!("-p cart-lab --bin {name}") };
    let rest: Vec<String> = std::env::args().skip(1).collect();
    let separator = if rest.is_empty() { "" } else { " -- " };
    format!("cargo run --release {program}{separator}{}", rest.join(" "))
}
