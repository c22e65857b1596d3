//! A package of tests only: `cargo test --release --test parity`.
