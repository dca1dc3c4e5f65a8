//! What scripts/run, scripts/test and scripts/bench do.
fn main() {}
