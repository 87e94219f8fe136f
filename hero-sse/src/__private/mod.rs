//! Functions that generated code calls, and traits whose errors name the user's types. Not public API: it
//! changes without notice.

#[cfg(feature = "server")]
mod endpoint;
mod event;

use core::time::Duration;

pub use core::option::Option;
pub use core::primitive::{bool, str};
pub use core::result::Result;
pub use std::string::String;

#[cfg(feature = "server")]
pub use self::endpoint::*;
pub use self::event::*;

/// A duration of so many milliseconds.
pub const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}
