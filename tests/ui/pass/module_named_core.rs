//! A module of the user's may be called `core`.
#![deny(warnings)]

mod core {}

::core::include!("../anywhere.rs");
