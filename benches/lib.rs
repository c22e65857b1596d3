//! Benches of cart-retrieval: `cargo bench -p cart-benches`.
