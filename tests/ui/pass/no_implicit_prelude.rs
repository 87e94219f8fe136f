//! The expansion does not need the standard prelude.
#![no_implicit_prelude]
#![deny(warnings)]

::core::include!("../anywhere.rs");
