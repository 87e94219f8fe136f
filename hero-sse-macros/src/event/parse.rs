//! An event as it is written. Knows the grammar and the keys, but no rule.

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
        "the event's name; unless set, the endpoint's `event`, or the type's or variant's own name in \
         kebab case";
    "rename_all", OneOf("Case", name::CASES), r#"rename_all = "snake_case""#, [Enum],
        "how names are made of the variants' own, in the cases that serde knows; an acronym is one word; \
         `kebab-case` unless set";
    "data", OneOf("Data", &["json", "text"]), r#"data = "text""#, [Struct Enum Variant],
        "`\"text\"`: the data is one field as its `Display` prints it, the only one or the only one \
         without a mark of its own; `\"json\"` unless set";
    "retry", Duration, r#"retry = "30s""#, [Struct Variant],
        "the event also changes how long the browser waits before it reconnects";
    "last", Nothing, "last", [Variant],
        "the stream ends for good after this event";
    "id", Nothing, "id", [Field],
        "the event's id: anything that is `Display`";
    "key", Nothing, "key", [Field],
        "what the event is about, anything that is `Display`: under `overflow = \"latest\"` a newer \
         event of the same name and key takes the place of one that waits";
    "retry", Nothing, "retry", [Field],
        "the new reconnection time, a `Duration` or an `Option` of one";
    "crate", Path, "crate = hero_sse", [Struct Enum],
        "where `hero-sse` is, if it was renamed";
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
    /// Where its type stands.
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
        // Refused later; read like a struct until then.
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
