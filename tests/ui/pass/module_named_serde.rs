//! A user may have a module `serde`.
#![deny(warnings)]

mod serde {}

::core::include!("../anywhere.rs");
