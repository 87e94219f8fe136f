//! An endpoint as it is meant: every name legal, every duration a number.

use proc_macro2::{Span, TokenStream};
use syn::{Attribute, Ident, LitStr, Path, Type, Visibility};

pub(super) struct Endpoint {
    /// Where hero-sse is, if it was said.
    pub(super) krate: Option<Path>,
    pub(super) visibility: Visibility,
    pub(super) ident: Ident,
    pub(super) path: String,
    /// How many captures the function takes by place, if it does.
    pub(super) places: Option<usize>,
    /// The doc comment: texts, and macros that make one.
    pub(super) docs: Vec<TokenStream>,
    /// `#[doc]` and `#[cfg]`, which also hold for what stands beside the function.
    pub(super) carried: Carried,
    pub(super) permissions: Option<Permissions>,
    /// What else the keys say, each a call on the descriptor.
    pub(super) settings: Vec<(&'static str, Setting)>,
    /// The application's state, if it was said.
    pub(super) state: Option<Type>,
    /// The arguments that are read off the head.
    pub(super) arguments: Vec<Type>,
    /// The last argument of a `POST`, which may read the body.
    pub(super) body: Option<Type>,
    /// Where the return type begins.
    pub(super) returns: Span,
    /// What the stream yields, where the return type tells.
    pub(super) item: Option<Type>,
    /// The name of its events, to be held against that of their type.
    pub(super) event: Option<LitStr>,
}

#[derive(Default)]
pub(super) struct Carried {
    pub(super) docs: Vec<Attribute>,
    pub(super) conditions: Vec<Attribute>,
}

/// Which permissions open it.
pub(super) enum Permissions {
    Name(String),
    Path(Path),
    All(Vec<Permissions>),
    Any(Vec<Permissions>),
}

/// What is said of an endpoint by one key.
pub(super) enum Setting {
    /// The key alone.
    Said,
    Text(String),
    Flag(bool),
    Count(u64),
    /// A variant of an enum of the kit's.
    Variant(&'static str, String),
    /// Some of them.
    Variants(&'static str, Vec<String>),
    Millis(u64),
    /// A time that could be off, and is not.
    Every(u64),
    Off,
}
