//! The READMEs' code, compiled and run as doctests.
#![doc = include_str!("../README.md")]

#[doc = include_str!("../hero-sse/README.md")]
pub mod of_the_crate {}
