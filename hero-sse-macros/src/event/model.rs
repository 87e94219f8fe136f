//! A checked event: every name is legal, and each part exists once at most.

use proc_macro2::{Span, TokenStream};
use syn::{Generics, Ident, Member, Path};

use super::mirror::Mirror;

pub(super) struct Event<'a> {
    /// The path to hero-sse, if given.
    pub(super) krate: Option<&'a Path>,
    pub(super) ident: &'a Ident,
    pub(super) generics: Generics,
    /// The `where` clause of the implementation, the user's own predicates included.
    pub(super) bounds: Vec<TokenStream>,
    pub(super) shape: Shape<'a>,
}

pub(super) enum Shape<'a> {
    /// The data is the struct itself.
    Struct(Frame<'a>),
    /// Each variant is an event, and its data the fields alone.
    Enum {
        variants: Vec<Variant<'a>>,
        /// `None` if no variant is sent as JSON.
        mirror: Option<Mirror>,
    },
}

pub(super) struct Variant<'a> {
    pub(super) ident: &'a Ident,
    pub(super) frame: Frame<'a>,
    pub(super) last: bool,
}

/// The parts of the SSE frame for a struct or a variant.
pub(super) struct Frame<'a> {
    pub(super) name: Name,
    pub(super) id: Option<Marked<'a>>,
    pub(super) key: Option<Marked<'a>>,
    pub(super) retry: Option<Retry<'a>>,
    pub(super) comment: Option<Marked<'a>>,
    pub(super) data: Data<'a>,
}

pub(super) enum Data<'a> {
    Json,
    /// The field that is sent as text.
    Text(Marked<'a>),
    /// The event has no data, so that no browser dispatches it.
    None,
}

/// A field with a special meaning.
#[derive(Clone, Copy)]
pub(super) struct Marked<'a> {
    pub(super) member: &'a Member,
    /// The span of the mark.
    pub(super) at: Span,
}

pub(super) enum Name {
    /// Written out: overrides the endpoint's `event`.
    Explicit(String),
    /// Made of the type's or variant's name: the endpoint's `event` overrides it.
    Default(String),
    /// No name, whatever the endpoint's `event` is.
    Unnamed,
}

pub(super) enum Retry<'a> {
    Millis(u64),
    Field(Marked<'a>),
}

/// A wrong declaration, and an event of the same type that is never encoded: code that sends it then adds
/// no second error.
pub(super) struct Rejected<'a> {
    pub(super) error: syn::Error,
    pub(super) krate: Option<&'a Path>,
    pub(super) ident: &'a Ident,
    pub(super) generics: &'a Generics,
    pub(super) bounds: Vec<TokenStream>,
}
