//! A module of the user's may be called `std`.
#![deny(warnings)]

mod std {}

::core::include!("../anywhere.rs");
