//! A user may have a module `alloc`.
#![deny(warnings)]

mod alloc {}

::core::include!("../anywhere.rs");
