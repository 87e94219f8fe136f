//! A module of the user's may be called `alloc`.
#![deny(warnings)]

mod alloc {}

::core::include!("../anywhere.rs");
