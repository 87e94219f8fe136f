//! An event as written: the grammar and the keys, without the rules.

use proc_macro2::Span;
use syn::parse::ParseStream;
use syn::spanned::Spanned;
use syn::{Attribute, Data, DeriveInput, Fields, Ident, Member, Meta};

use crate::attr::Entries;
use crate::errors::Errors;
use crate::key::{self, Target};
use crate::name;

key::keys! {
    KEYS, key_table;
    "event", Text, r#"event = "usage""#, [Struct Variant],
        "the event's name; by default the endpoint's `event`, otherwise the name of the type or variant in \
         kebab case";
    "unnamed", Nothing, "unnamed", [Struct Enum Variant],
        "the event has no name, even where the endpoint declares `event`; a browser passes it to `onmessage`; on \
         an enum: each of its variants without `event`";
    "rename_all", OneOf("Case", name::CASES), r#"rename_all = "snake_case""#, [Enum],
        "the case of the events' names, which are made of the variants' names; the cases are serde's; an \
         acronym is one word; `kebab-case` by default";
    "data", OneOf("Data", &["json", "text", "none"]), r#"data = "text""#, [Struct Enum Variant],
        "`\"text\"`: the data is one field as its `Display` prints it, the only field or the only one without \
         a key of its own; `\"none\"`: no data, and no name without `event`, for a comment, an id or a \
         reconnection time alone; `\"json\"` by default";
    "retry", Duration, r#"retry = "30s""#, [Struct Variant],
        "the event also sets how long the browser waits before it reconnects";
    "last", Nothing, "last", [Variant],
        "the stream ends for good after this event";
    "id", Nothing, "id", [Field],
        "the event's id, of any type that is `Display`";
    "key", Nothing, "key", [Field],
        "the event's key, of any type that is `Display`: under `overflow = \"latest\"` and in a \
         `Topic::latest` a newer event replaces an older one with the same name and key";
    "retry", Nothing, "retry", [Field],
        "the new reconnection time, a `Duration` or an `Option` of one";
    "comment", Nothing, "comment", [Field],
        "a comment before the event, of any type that is `Display`; clients skip it";
    "crate", Path, "crate = hero_sse", [Struct Enum],
        "the path to `hero-sse`, if `Cargo.toml` renames it";
}

pub(super) struct Declaration {
    pub(super) input: DeriveInput,
    pub(super) entries: Entries,
    pub(super) shape: Shape,
}

pub(super) enum Shape {
    Struct(Vec<Field>),
    Enum(Vec<Variant>),
}

pub(super) struct Variant {
    pub(super) ident: Ident,
    pub(super) attributes: Vec<Attribute>,
    pub(super) entries: Entries,
    pub(super) fields: Vec<Field>,
}

pub(super) struct Field {
    pub(super) member: Member,
    /// The span of its type.
    pub(super) at: Span,
    pub(super) entries: Entries,
}

pub(super) fn declaration(input: DeriveInput, errors: &mut Errors) -> Declaration {
    let (target, shape) = match &input.data {
        Data::Struct(data) => (Target::Struct, Shape::Struct(fields(&data.fields, errors))),
        Data::Enum(data) => {
            let variants = data.variants.iter().map(|variant| variant_of(variant, errors));
            (Target::Enum, Shape::Enum(variants.collect()))
        }
        // Rejected later. Until then it counts as a struct.
        Data::Union(_) => (Target::Struct, Shape::Struct(Vec::new())),
    };
    let entries = entries(&input.attrs, target, errors);
    Declaration { input, entries, shape }
}

fn variant_of(variant: &syn::Variant, errors: &mut Errors) -> Variant {
    Variant {
        ident: variant.ident.clone(),
        attributes: variant.attrs.clone(),
        entries: entries(&variant.attrs, Target::Variant, errors),
        fields: fields(&variant.fields, errors),
    }
}

fn fields(fields: &Fields, errors: &mut Errors) -> Vec<Field> {
    fields
        .members()
        .zip(fields)
        .map(|(member, field)| Field {
            member,
            at: field.ty.span(),
            entries: entries(&field.attrs, Target::Field, errors),
        })
        .collect()
}

fn entries(attributes: &[Attribute], target: Target, errors: &mut Errors) -> Entries {
    let mut entries = Entries::default();
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("sse")) {
        let Meta::List(list) = &attribute.meta else {
            attribute_without_keys(attribute, errors);
            continue;
        };
        let read = |input: ParseStream<'_>| {
            entries.read(input, KEYS, target, errors);
            Ok(())
        };
        if let Err(error) = list.parse_args_with(read) {
            errors.add(error);
        }
    }
    entries
}

fn attribute_without_keys(attribute: &Attribute, errors: &mut Errors) {
    errors.push(attribute, "write the keys in parentheses, such as `#[sse(id)]`");
}
