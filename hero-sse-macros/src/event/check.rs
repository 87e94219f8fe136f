//! The rules of an event, one function each, and the only maker of its model.
//! A rule is named after the mistake it reports, as is its case in `tests/ui/event`; those of event
//! names are in `name`. What makes a part of the model is named after the part.

use syn::ext::IdentExt;
use syn::{Data, DeriveInput, Ident, LitStr, Member};

use super::data::EnumData;
use super::model::{Event, Frame, Marked, Name, Retry, Shape, Variant};
use super::parse::{self, Declaration, Field};
use crate::attr::Entries;
use crate::duration;
use crate::errors::Errors;
use crate::name::{self, Fault};

pub(super) fn event<'a>(
    declaration: &'a Declaration,
    errors: &mut Errors,
) -> syn::Result<Event<'a>> {
    let Declaration { input, entries, shape } = declaration;
    union_as_event(input, errors);
    let shape = match shape {
        parse::Shape::Struct(fields) => {
            Shape::Struct(frame(&input.ident, entries, fields, None, errors))
        }
        parse::Shape::Enum(variants) => {
            enum_without_variants(input, variants, errors);
            let variants: Vec<_> =
                variants.iter().map(|written| variant(written, entries, errors)).collect();
            let as_text = variants.iter().map(|variant| variant.frame.text.is_some());
            let data = EnumData::of(input, as_text, errors);
            Shape::Enum { variants, data }
        }
    };
    errors.propagate()?;
    Ok(Event {
        krate: entries.path("crate"),
        ident: &input.ident,
        generics: &input.generics,
        shape,
    })
}

fn variant<'a>(
    written: &'a parse::Variant,
    of_enum: &'a Entries,
    errors: &mut Errors,
) -> Variant<'a> {
    let parse::Variant { ident, entries, fields } = written;
    Variant {
        ident,
        frame: frame(ident, entries, fields, Some(of_enum), errors),
        last: entries.key("last").is_some(),
    }
}

/// What a struct sends, or a variant, to which the enum's entries apply as well.
fn frame<'a>(
    ident: &'a Ident,
    entries: &'a Entries,
    fields: &'a [Field],
    of_enum: Option<&'a Entries>,
    errors: &mut Errors,
) -> Frame<'a> {
    let case = of_enum.and_then(|of_enum| of_enum.text("rename_all"));
    let case = case.map_or("kebab-case".to_owned(), LitStr::value);
    Frame {
        name: name(ident, &case, entries, errors),
        id: marked("id", fields, errors),
        key: marked("key", fields, errors),
        retry: retry(entries, fields, errors),
        text: text(ident, entries, of_enum, fields, errors),
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

fn name(ident: &Ident, case: &str, entries: &Entries, errors: &mut Errors) -> Name {
    if let Some(explicit) = entries.text("event") {
        name::check(explicit, errors);
        return Name::Explicit(explicit.value());
    }
    let name = name::in_case(&ident.unraw().to_string(), case);
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

/// The field that is marked so.
fn marked<'a>(mark: &str, fields: &'a [Field], errors: &mut Errors) -> Option<Marked<'a>> {
    let mut marked =
        fields.iter().filter_map(|field| Some((&field.member, field.entries.key(mark)?)));
    let (member, first) = marked.next()?;
    for (_, second) in marked {
        two_ids(member, second, errors);
    }
    Some(Marked { member, at: first.span() })
}

/// Or two of another mark.
fn two_ids(first: &Member, second: &Ident, errors: &mut Errors) {
    let first = described(first);
    errors.push(second, format!("an event has one {second}, which is {first}: leave out this one"));
}

fn retry<'a>(entries: &'a Entries, fields: &'a [Field], errors: &mut Errors) -> Option<Retry<'a>> {
    let field = marked("retry", fields, errors);
    let Some(written) = entries.text("retry") else { return field.map(Retry::Field) };
    if let Some(field) = &field {
        two_retries(field, errors);
    }
    duration::check(entries.row("retry")?, written, errors).map(Retry::Millis)
}

fn two_retries(field: &Marked<'_>, errors: &mut Errors) {
    errors.add(syn::Error::new(
        field.at,
        "the event has a reconnection time already, the same for all of its kind: leave out one of \
         the two",
    ));
}

/// The field that is the event's text, if its data is text.
fn text<'a>(
    ident: &'a Ident,
    entries: &'a Entries,
    of_enum: Option<&'a Entries>,
    fields: &'a [Field],
    errors: &mut Errors,
) -> Option<Marked<'a>> {
    let own = entries.text("data");
    let written = own.or_else(|| of_enum?.text("data"))?;
    if written.value() != "text" {
        return None;
    }
    let unmarked = |field: &&Field| field.entries.is_empty();
    let mut candidates: Vec<_> = fields.iter().filter(unmarked).collect();
    if let ([], [only]) = (candidates.as_slice(), fields) {
        candidates.push(only);
    }
    text_of_no_field(ident, &candidates, errors);
    text_of_several_fields(&candidates, errors);
    // What is no `Display` is reported at the field.
    candidates.first().map(|field| Marked { member: &field.member, at: field.at })
}

fn text_of_no_field(ident: &Ident, candidates: &[&Field], errors: &mut Errors) {
    if candidates.is_empty() {
        errors.push(
            ident,
            "`data = \"text\"` sends a field, and none is free for it: write one without a mark of its \
             own, or leave out `data`",
        );
    }
}

fn text_of_several_fields(candidates: &[&Field], errors: &mut Errors) {
    if let [first, second, ..] = candidates {
        let (first, second) = (described(&first.member), (&second.member, second.at));
        errors.add(syn::Error::new(
            second.1,
            format!(
                "`data = \"text\"` sends one field, and this could be {first} or {}: write one alone, \
                 or leave out `data` to send them all as JSON",
                described(second.0)
            ),
        ));
    }
}

fn described(member: &Member) -> String {
    match member {
        Member::Named(ident) => format!("`{ident}`"),
        Member::Unnamed(index) => format!("field {}", index.index),
    }
}
