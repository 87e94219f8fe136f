//! Nothing that is made relies on the standard prelude.
#![no_implicit_prelude]
#![deny(warnings)]

::core::include!("../anywhere.rs");
