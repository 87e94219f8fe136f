//! The rules of an event, and the only maker of its model. Each rule is a function named after the
//! mistake it reports, as is its case in `tests/ui/event`. The rules of event names are in `name`. A
//! function that makes a part of the model is named after that part.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use syn::ext::IdentExt;
use syn::{DeriveInput, GenericParam, Generics, Ident, LitStr, Member, Meta};

use super::mirror::{self, Mirror};
use super::model::{Data, Event, Frame, Marked, Name, Rejected, Retry, Shape, Variant};
use super::parse::{self, Declaration, Field};
use crate::attr::Entries;
use crate::duration;
use crate::errors::Errors;
use crate::name::{self, Fault};

pub(super) fn event<'a>(
    declaration: &'a Declaration,
    errors: &mut Errors,
) -> Result<Event<'a>, Rejected<'a>> {
    let Declaration { input, entries, shape } = declaration;
    let (krate, ident) = (entries.path("crate"), &input.ident);
    union_as_event(input, errors);
    let event = match shape {
        parse::Shape::Struct(fields) => {
            let frame = frame(ident, entries, fields, None, errors);
            Event {
                krate,
                ident,
                generics: input.generics.clone(),
                bounds: predicates(&input.generics, self_is_serialize(input, &frame)),
                shape: Shape::Struct(frame),
            }
        }
        parse::Shape::Enum(variants) => {
            enum_without_variants(input, variants, errors);
            unnamed_with_rename_all(entries, errors);
            let variants: Vec<_> =
                variants.iter().map(|written| variant(written, entries, errors)).collect();
            let as_text: Vec<_> = variants.iter().map(|variant| !is_json(&variant.frame)).collect();
            let no_json = as_text.iter().all(|as_text| *as_text);
            let mirror = Mirror::of(input, as_text);
            Event {
                krate,
                ident,
                generics: mirror.generics.clone(),
                bounds: predicates(&mirror.generics, mirror.bounds.iter().cloned()),
                shape: Shape::Enum { variants, mirror: (!no_json).then_some(mirror) },
            }
        }
    };
    errors.propagate().map(|()| event).map_err(|error| Rejected {
        error,
        krate,
        ident,
        generics: &input.generics,
        bounds: predicates(&input.generics, None),
    })
}

/// The predicates of the user's `where` clause, and further ones.
fn predicates(
    generics: &Generics,
    further: impl IntoIterator<Item = TokenStream>,
) -> Vec<TokenStream> {
    let own = generics.where_clause.iter().flat_map(|clause| &clause.predicates);
    own.map(ToTokens::to_token_stream).chain(further).collect()
}

/// A struct with type or const parameters needs the bound. Of any other the compiler checks and reports
/// the same by itself.
fn self_is_serialize(input: &DeriveInput, frame: &Frame<'_>) -> Option<TokenStream> {
    let mut parameters = input.generics.params.iter();
    let open = parameters.any(|parameter| !matches!(parameter, GenericParam::Lifetime(_)));
    (open && is_json(frame)).then(|| quote!(Self: __sse::Serialize))
}

fn variant<'a>(
    written: &'a parse::Variant,
    of_enum: &'a Entries,
    errors: &mut Errors,
) -> Variant<'a> {
    let parse::Variant { ident, entries, fields, attributes } = written;
    let frame = frame(ident, entries, fields, Some(of_enum), errors);
    if is_json(&frame) {
        variant_that_is_never_sent(&mirror::serde_metas(attributes), errors);
    }
    Variant { ident, frame, last: entries.key("last").is_some() }
}

/// Serde would refuse it when it is sent, and the stream would end.
fn variant_that_is_never_sent(serde: &[Meta], errors: &mut Errors) {
    let skip = |meta: &&Meta| mirror::is_one_of(meta, &["skip", "skip_serializing"]);
    if let Some(skip) = serde.iter().find(skip) {
        errors.push(
            skip,
            "a skipped event could not be sent, and would end its stream: leave this out, or write it on \
             the fields that are not for the client",
        );
    }
}

/// The frame of a struct, or of a variant, to which the enum's entries apply as well.
fn frame<'a>(
    ident: &'a Ident,
    entries: &'a Entries,
    fields: &'a [Field],
    of_enum: Option<&'a Entries>,
    errors: &mut Errors,
) -> Frame<'a> {
    let data = data(ident, entries, of_enum, fields, errors);
    let frame = Frame {
        name: name(ident, entries, of_enum, &data, errors),
        id: marked("id", fields, errors),
        key: marked("key", fields, errors),
        retry: retry(entries, fields, errors),
        comment: marked("comment", fields, errors),
        data,
    };
    nothing_to_send(ident, entries, &frame, errors);
    frame
}

fn is_json(frame: &Frame<'_>) -> bool {
    matches!(frame.data, Data::Json)
}

fn nothing_to_send(ident: &Ident, entries: &Entries, frame: &Frame<'_>, errors: &mut Errors) {
    let Frame { id, comment, data, .. } = frame;
    let has_retry = frame.retry.is_some() || entries.key("retry").is_some();
    let has_any = entries.key("event").is_some() || id.is_some() || comment.is_some() || has_retry;
    if matches!(data, Data::None) && !has_any {
        errors.push(
            ident,
            "`data = \"none\"` leaves nothing to send: add `event`, `retry`, or a field with `#[sse(comment)]`, \
             `#[sse(id)]` or `#[sse(retry)]`",
        );
    }
}

fn union_as_event(input: &DeriveInput, errors: &mut Errors) {
    if let syn::Data::Union(data) = &input.data {
        errors.push(
            data.union_token,
            "a union cannot be an event, since it does not say which field is set: write an enum",
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

fn name(
    ident: &Ident,
    entries: &Entries,
    of_enum: Option<&Entries>,
    data: &Data<'_>,
    errors: &mut Errors,
) -> Name {
    unnamed_with_event(entries, errors);
    if let Some(explicit) = entries.text("event") {
        name::check(explicit, errors);
        return Name::Explicit(explicit.value());
    }
    let unnamed = |entries: &Entries| entries.key("unnamed").is_some();
    if unnamed(entries) || of_enum.is_some_and(unnamed) || matches!(data, Data::None) {
        return Name::Unnamed;
    }
    let case = of_enum.and_then(|of_enum| of_enum.text("rename_all"));
    let case = case.map_or("kebab-case".to_owned(), LitStr::value);
    let name = name::in_case(&ident.unraw().to_string(), &case);
    // If `event` is wrong, that is reported. The default name is then of no interest.
    if entries.key("event").is_none() {
        illegal_default_name(ident, &name, errors);
    }
    Name::Default(name)
}

fn unnamed_with_event(entries: &Entries, errors: &mut Errors) {
    if let (Some(unnamed), Some(_)) = (entries.key("unnamed"), entries.key("event")) {
        errors.push(
            unnamed,
            "`event` names the event, and `unnamed` leaves it without: keep one of them",
        );
    }
}

/// No variant would have a name of the case.
fn unnamed_with_rename_all(entries: &Entries, errors: &mut Errors) {
    if let (Some(unnamed), Some(_)) = (entries.key("unnamed"), entries.key("rename_all")) {
        errors.push(
            unnamed,
            "`rename_all` makes names of the variants, and `unnamed` leaves them without: keep one of them",
        );
    }
}

fn illegal_default_name(ident: &Ident, name: &str, errors: &mut Errors) {
    for Fault { what, instead } in name::faults(name) {
        errors.push(ident, format!("{what}: write `#[sse(event = {instead:?})]`"));
    }
}

/// The field with this mark.
fn marked<'a>(mark: &str, fields: &'a [Field], errors: &mut Errors) -> Option<Marked<'a>> {
    let mut marked =
        fields.iter().filter_map(|field| Some((&field.member, field.entries.key(mark)?)));
    let (member, first) = marked.next()?;
    for (_, second) in marked {
        two_ids(member, second, errors);
    }
    Some(Marked { member, at: first.span() })
}

/// The same holds for keys, comments and reconnection times.
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
        "the event has a reconnection time already, the same for all its values: leave out one of the two",
    ));
}

fn data<'a>(
    ident: &'a Ident,
    entries: &'a Entries,
    of_enum: Option<&'a Entries>,
    fields: &'a [Field],
    errors: &mut Errors,
) -> Data<'a> {
    let own = entries.text("data");
    let written = own.or_else(|| of_enum?.text("data")).map(LitStr::value);
    match written.as_deref() {
        Some("none") => Data::None,
        Some("text") => text(ident, fields, errors).map_or(Data::Json, Data::Text),
        _ => Data::Json,
    }
}

/// The field that is sent as text.
fn text<'a>(ident: &'a Ident, fields: &'a [Field], errors: &mut Errors) -> Option<Marked<'a>> {
    let unmarked = |field: &&Field| field.entries.is_empty();
    let mut candidates: Vec<_> = fields.iter().filter(unmarked).collect();
    if let ([], [only]) = (candidates.as_slice(), fields) {
        candidates.push(only);
    }
    text_of_no_field(ident, &candidates, errors);
    text_of_several_fields(&candidates, errors);
    // The compiler reports at the field that it does not implement `Display`.
    candidates.first().map(|field| Marked { member: &field.member, at: field.at })
}

fn text_of_no_field(ident: &Ident, candidates: &[&Field], errors: &mut Errors) {
    if candidates.is_empty() {
        errors.push(
            ident,
            "`data = \"text\"` sends the field without a key of its own, and there is none: add one, or leave \
             out `data`",
        );
    }
}

fn text_of_several_fields(candidates: &[&Field], errors: &mut Errors) {
    if let [first, second, ..] = candidates {
        let (first, second) = (described(&first.member), (&second.member, second.at));
        errors.add(syn::Error::new(
            second.1,
            format!(
                "`data = \"text\"` sends one field, and this could be {first} or {}: keep one, or leave out \
                 `data` to send all fields as JSON",
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
