//! A user may have a module `std`.
#![deny(warnings)]

mod std {}

::core::include!("../anywhere.rs");
