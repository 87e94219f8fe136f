//! An event as it is meant: every name legal, at most one id each.

use proc_macro2::Span;
use syn::{Ident, Member, Path};

use super::data::EnumData;

pub(super) struct Event<'a> {
    /// Where hero-sse is, if it was said.
    pub(super) krate: Option<&'a Path>,
    pub(super) ident: &'a Ident,
    pub(super) generics: &'a syn::Generics,
    pub(super) shape: Shape<'a>,
}

pub(super) enum Shape<'a> {
    /// Its data is the struct itself.
    Struct(Frame<'a>),
    /// Each variant is an event; its data is its fields alone.
    Enum { variants: Vec<Variant<'a>>, data: EnumData },
}

pub(super) struct Variant<'a> {
    pub(super) ident: &'a Ident,
    pub(super) frame: Frame<'a>,
    pub(super) last: bool,
}

/// What goes over the wire for a struct or a variant.
pub(super) struct Frame<'a> {
    pub(super) name: Name,
    pub(super) id: Option<Marked<'a>>,
    pub(super) key: Option<Marked<'a>>,
    pub(super) retry: Option<Retry<'a>>,
    /// The field that is sent as text; without one, the data is JSON.
    pub(super) text: Option<Marked<'a>>,
}

/// A field with a part of its own to play.
pub(super) struct Marked<'a> {
    pub(super) member: &'a Member,
    /// Where that is said.
    pub(super) at: Span,
}

pub(super) enum Name {
    /// Wins over the endpoint's.
    Explicit(String),
    /// From the type or variant; gives way to the endpoint's.
    Default(String),
}

pub(super) enum Retry<'a> {
    Millis(u64),
    Field(Marked<'a>),
}
