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
    Struct { name: Name, id: Option<Id<'a>> },
    /// Each variant is an event; its data is its fields alone.
    Enum { variants: Vec<Variant<'a>>, data: EnumData },
}

pub(super) struct Variant<'a> {
    pub(super) ident: &'a Ident,
    pub(super) name: Name,
    pub(super) id: Option<Id<'a>>,
    pub(super) last: bool,
}

/// The field that holds the id.
pub(super) struct Id<'a> {
    pub(super) member: &'a Member,
    /// Where `#[sse(id)]` says so.
    pub(super) marked: Span,
}

pub(super) enum Name {
    /// Wins over the endpoint's.
    Explicit(String),
    /// From the type or variant; gives way to the endpoint's.
    Default(String),
}
