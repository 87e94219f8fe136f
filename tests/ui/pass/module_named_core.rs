//! A user may have a module `core`.
#![deny(warnings)]

mod core {}

::core::include!("../anywhere.rs");
