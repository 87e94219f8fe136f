//! An event as it is written. Knows the grammar and the keys, but no rule.

use syn::parse::ParseStream;
use syn::{Attribute, Data, DeriveInput, Fields, Ident, Member, Meta};

use crate::attr::{Entries, Key, Place, Takes};
use crate::errors::Errors;

/// The keys of `#[sse(..)]`.
pub(super) const KEYS: &[Key] = &[
    key("event", Takes::Text, r#"event = "usage""#, &[Place::Struct, Place::Variant]),
    key("id", Takes::Nothing, "id", &[Place::Field]),
    key("last", Takes::Nothing, "last", &[Place::Variant]),
    key("crate", Takes::Path, "crate = hero_sse", &[Place::Struct, Place::Enum]),
];

const fn key(
    name: &'static str,
    takes: Takes,
    example: &'static str,
    places: &'static [Place],
) -> Key {
    Key { name, takes, example, places }
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
    pub(super) entries: Entries,
    pub(super) fields: Vec<Field>,
}

pub(super) struct Field {
    pub(super) member: Member,
    pub(super) entries: Entries,
}

pub(super) fn declaration(input: DeriveInput, errors: &mut Errors) -> Declaration {
    let (place, shape) = match &input.data {
        Data::Struct(data) => (Place::Struct, Shape::Struct(fields(&data.fields, errors))),
        Data::Enum(data) => {
            let variants = data.variants.iter().map(|variant| variant_of(variant, errors));
            (Place::Enum, Shape::Enum(variants.collect()))
        }
        // Refused later; read like a struct until then.
        Data::Union(_) => (Place::Struct, Shape::Struct(Vec::new())),
    };
    let entries = entries(&input.attrs, place, errors);
    Declaration { input, entries, shape }
}

fn variant_of(variant: &syn::Variant, errors: &mut Errors) -> Variant {
    Variant {
        ident: variant.ident.clone(),
        entries: entries(&variant.attrs, Place::Variant, errors),
        fields: fields(&variant.fields, errors),
    }
}

fn fields(fields: &Fields, errors: &mut Errors) -> Vec<Field> {
    fields
        .members()
        .zip(fields)
        .map(|(member, field)| Field {
            member,
            entries: entries(&field.attrs, Place::Field, errors),
        })
        .collect()
}

fn entries(attributes: &[Attribute], place: Place, errors: &mut Errors) -> Entries {
    let mut entries = Entries::default();
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("sse")) {
        let Meta::List(list) = &attribute.meta else {
            attribute_without_keys(attribute, errors);
            continue;
        };
        let read = |input: ParseStream<'_>| {
            entries.read(input, KEYS, place, errors);
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
