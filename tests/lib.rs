//! The README's code, compiled and run as doctests.
#![doc = include_str!("../README.md")]
