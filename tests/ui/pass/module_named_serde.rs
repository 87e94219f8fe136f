//! A module of the user's may be called `serde`.
#![deny(warnings)]

mod serde {}

::core::include!("../anywhere.rs");
