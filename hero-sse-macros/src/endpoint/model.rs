//! An endpoint as it is meant: every name legal, every duration a number.

use proc_macro2::Span;
use syn::{Ident, Path, Type, Visibility};

pub(super) struct Endpoint {
    /// Where hero-sse is, if it was said.
    pub(super) krate: Option<Path>,
    pub(super) visibility: Visibility,
    pub(super) ident: Ident,
    pub(super) path: String,
    pub(super) docs: Option<String>,
    pub(super) event: Option<String>,
    pub(super) access: Access,
    pub(super) heartbeat: Option<Period>,
    pub(super) write_timeout: Option<Period>,
    pub(super) retry: Option<u64>,
    pub(super) arguments: Vec<Type>,
    /// Where the return type begins.
    pub(super) returns: Span,
}

/// Who may open the stream.
pub(super) enum Access {
    AnyToken,
    Permission(String),
    Public,
}

pub(super) enum Period {
    Off,
    Millis(u64),
}
