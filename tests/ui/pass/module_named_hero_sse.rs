//! A user may have a module `hero_sse`.
#![deny(warnings)]

mod hero_sse {}

::core::include!("../anywhere.rs");
