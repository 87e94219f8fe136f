//! Benchmarks: `cargo bench -p hero-sse-benches` prints ratios against named peers.
