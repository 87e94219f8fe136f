//! The live example.
#![allow(dead_code)]
pub mod audit;
pub mod builds;
pub mod usage;
fn main() {}
