//! The rules of an event, one function each, and the only maker of its model.
//! A rule is named after the mistake it reports, as is its case in `tests/ui/event`; those of event
//! names are in `name`. What makes a part of the model is named after the part.

use syn::ext::IdentExt;
use syn::{Data, DeriveInput, Ident, Member};

use super::data::EnumData;
use super::model::{Event, Id, Name, Shape, Variant};
use super::parse::{self, Declaration, Field};
use crate::attr::Entries;
use crate::errors::Errors;
use crate::name::{self, Fault};

pub(super) fn event<'a>(
    declaration: &'a Declaration,
    errors: &mut Errors,
) -> syn::Result<Event<'a>> {
    let input = &declaration.input;
    union_as_event(input, errors);
    let shape = match &declaration.shape {
        parse::Shape::Struct(fields) => Shape::Struct {
            name: name(&input.ident, &declaration.entries, errors),
            id: id(fields, errors),
        },
        parse::Shape::Enum(variants) => {
            enum_without_variants(input, variants, errors);
            Shape::Enum {
                variants: variants.iter().map(|written| variant(written, errors)).collect(),
                data: EnumData::of(input, errors),
            }
        }
    };
    errors.propagate()?;
    Ok(Event {
        krate: declaration.entries.path("crate"),
        ident: &input.ident,
        generics: &input.generics,
        shape,
    })
}

fn variant<'a>(written: &'a parse::Variant, errors: &mut Errors) -> Variant<'a> {
    Variant {
        ident: &written.ident,
        name: name(&written.ident, &written.entries, errors),
        id: id(&written.fields, errors),
        last: written.entries.key("last").is_some(),
    }
}

fn union_as_event(input: &DeriveInput, errors: &mut Errors) {
    if let Data::Union(data) = &input.data {
        errors.push(
            data.union_token,
            "a union cannot be an event, as nobody knows which field it holds: write an enum",
        );
    }
}

fn enum_without_variants(input: &DeriveInput, variants: &[parse::Variant], errors: &mut Errors) {
    if variants.is_empty() {
        errors.push(
            &input.ident,
            "each variant of an enum is an event, and this one has none: write at least one",
        );
    }
}

fn name(ident: &Ident, entries: &Entries, errors: &mut Errors) -> Name {
    if let Some(explicit) = entries.text("event") {
        name::check(explicit, errors);
        return Name::Explicit(explicit.value());
    }
    let name = name::kebab_case(&ident.unraw().to_string());
    // A wrong `event` was reported; the name it stands for is not at fault.
    if entries.key("event").is_none() {
        illegal_default_name(ident, &name, errors);
    }
    Name::Default(name)
}

fn illegal_default_name(ident: &Ident, name: &str, errors: &mut Errors) {
    for Fault { what, instead } in name::faults(name) {
        errors.push(ident, format!("{what}: write `#[sse(event = {instead:?})]`"));
    }
}

fn id<'a>(fields: &'a [Field], errors: &mut Errors) -> Option<Id<'a>> {
    let mut ids = fields.iter().filter_map(|field| Some((&field.member, field.entries.key("id")?)));
    let (member, marked) = ids.next()?;
    for (_, second) in ids {
        two_ids(member, second, errors);
    }
    Some(Id { member, marked: marked.span() })
}

fn two_ids(first: &Member, second: &Ident, errors: &mut Errors) {
    let first = described(first);
    errors.push(second, format!("an event has one id, which is {first}: leave out this one"));
}

fn described(member: &Member) -> String {
    match member {
        Member::Named(ident) => format!("`{ident}`"),
        Member::Unnamed(index) => format!("field {}", index.index),
    }
}
