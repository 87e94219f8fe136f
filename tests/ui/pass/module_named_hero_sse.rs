//! A module of the user's may be called `hero_sse`.
#![deny(warnings)]

mod hero_sse {}

::core::include!("../anywhere.rs");
