//! The rules of an endpoint, and the only maker of its model. Each rule is a function named after the
//! mistake it reports, as is its case in `tests/ui/endpoint`. The rules of the function are in
//! `signature`, those of paths and event names in `route` and `name`. A function that makes a part of the
//! model is named after that part.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, quote};
use syn::ext::IdentExt;
use syn::{Attribute, Expr, ExprLit, Ident, Lit, LitInt, LitStr, Meta};

use super::model::{Endpoint, EventName, Permissions, Rejected, Setting, SharedAttributes, Stub};
use super::parse::{Declaration, Function, KEYS, PathArgument};
use super::signature;
use crate::errors::Errors;
use crate::key::{Key, ValueKind};
use crate::value;
use crate::{duration, name, route};

const PATH_COMES_FIRST: &str = "it comes first, as in `#[sse_endpoint(\"/usage/stream\")]`";

pub(super) fn endpoint(
    item: &TokenStream,
    declaration: &Declaration,
    errors: &mut Errors,
) -> Result<Endpoint, Rejected> {
    let Declaration { entries, function, .. } = declaration;
    let path = path(declaration, errors);
    let permissions = permissions(declaration, &path, errors);
    let settings = settings(declaration, errors);
    state_not_a_concrete_type(declaration, errors);
    signature::check(declaration, errors);
    let emitted = emitted(item, function);
    errors.propagate().map_err(|error| Rejected {
        function: emitted.clone(),
        error,
        stub: stub(declaration),
    })?;

    let signature = &function.signature;
    let (arguments, body) = signature::arguments(declaration, &path);
    Ok(Endpoint {
        function: emitted,
        krate: entries.path("crate").cloned(),
        visibility: function.visibility.clone(),
        ident: signature.ident.clone(),
        name: signature.ident.unraw().to_string(),
        path,
        docs: docs(&function.attributes),
        shared: shared_attributes(&function.attributes),
        permissions,
        settings,
        headed: signature::is_headed(&declaration.function.signature),
        early: entries.flag("early").is_some_and(|early| early.value),
        refusals: entries.path("refusals").cloned(),
        state: entries.ty("state").cloned(),
        arguments,
        body,
        returns: signature::returns(signature),
        item: signature::item(signature),
        event: event_name(declaration),
        returned: signature::returned(signature),
    })
}

/// An `impl` is no place for a type.
fn stub(declaration: &Declaration) -> Option<Stub> {
    let Function { attributes, visibility, signature, .. } = &declaration.function;
    signature.receiver().is_none().then(|| Stub {
        krate: declaration.entries.path("crate").cloned(),
        visibility: visibility.clone(),
        ident: signature.ident.clone(),
        name: signature.ident.unraw().to_string(),
        shared: shared_attributes(attributes),
    })
}

/// The compiler compares the names if the return type can be written elsewhere.
fn event_name(declaration: &Declaration) -> Option<EventName> {
    let name = declaration.entries.text("event")?.clone();
    let returned = signature::returned(&declaration.function.signature)?;
    Some(EventName { name, returned })
}

fn path(declaration: &Declaration, errors: &mut Errors) -> String {
    let path = match &declaration.path {
        PathArgument::Literal(path) => path,
        PathArgument::Keyed(key, path) => {
            path_with_key(key, path, errors);
            path
        }
        PathArgument::Other(tokens) => {
            path_not_a_literal(tokens, errors);
            return String::new();
        }
        PathArgument::Missing(span) => {
            path_missing(*span, errors);
            return String::new();
        }
    };
    route::check(path, errors);
    path.value()
}

fn path_with_key(key: &Ident, path: &LitStr, errors: &mut Errors) {
    errors.push(key, format!("the path has no key: write {:?} alone", path.value()));
}

fn path_not_a_literal(tokens: &TokenStream, errors: &mut Errors) {
    errors.push(tokens, format!("the path is a string literal: {PATH_COMES_FIRST}"));
}

fn path_missing(span: Span, errors: &mut Errors) {
    errors.add(syn::Error::new(span, format!("the path is missing: {PATH_COMES_FIRST}")));
}

fn permissions(declaration: &Declaration, path: &str, errors: &mut Errors) -> Option<Permissions> {
    public_with_permission(declaration, errors);
    declaration.entries.permissions("permission").map(|written| rule(written, path, errors))
}

fn rule(written: &value::Permissions, path: &str, errors: &mut Errors) -> Permissions {
    match written {
        value::Permissions::Name(name) => {
            permission_empty(name, errors);
            permission_with_illegal_character(name, errors);
            permission_with_unclosed_capture(name, errors);
            // The captures of a wrong path are unknown.
            if route::is_legal(path) {
                permission_with_unknown_capture(name, path, errors);
                permission_with_catch_all(name, path, errors);
            }
            permission_with_text_beside_capture(name, errors);
            Permissions::Name(name.value())
        }
        value::Permissions::Path(path) => Permissions::Path(path.clone()),
        value::Permissions::List(list) => {
            permission_list_empty(list, errors);
            let rules = list.rules.iter().map(|written| rule(written, path, errors)).collect();
            if list.word == "all" { Permissions::All(rules) } else { Permissions::Any(rules) }
        }
    }
}

fn public_with_permission(declaration: &Declaration, errors: &mut Errors) {
    let Declaration { entries, .. } = declaration;
    if let (Some(public), Some(_)) = (entries.key("public"), entries.key("permission")) {
        errors.push(
            public,
            "a public endpoint requires no token, so it cannot require a permission: leave out `public` or \
             `permission`",
        );
    }
}

fn permission_empty(permission: &LitStr, errors: &mut Errors) {
    if permission.value().is_empty() {
        errors.push(
            permission,
            "the permission is empty: write one such as \"usage.read\", or leave out `permission` \
             to accept any valid token",
        );
    }
}

fn permission_list_empty(list: &value::List, errors: &mut Errors) {
    if list.rules.is_empty() {
        let value::List { word, parentheses, .. } = list;
        let parentheses = syn::token::Paren(parentheses.span);
        let mut tokens = quote!(#word);
        parentheses.surround(&mut tokens, |_| {});
        errors.push(
            tokens,
            format!("`{word}()` names no permission: write some, such as `{word}(\"usage.read\")`"),
        );
    }
}

/// A permission is a `scope-token` (RFC 6749, section 3.3). A space would make it two.
fn permission_with_illegal_character(permission: &LitStr, errors: &mut Errors) {
    let legal = |c: char| matches!(c, '\x21' | '\x23'..='\x5b' | '\x5d'..='\x7e');
    if let Some(odd) = permission.value().chars().find(|c| !legal(*c)) {
        errors.push(
            permission,
            format!(
                "a permission cannot contain {odd:?}: write printable ASCII without spaces, `\"` and `\\`"
            ),
        );
    }
}

fn permission_with_unclosed_capture(permission: &LitStr, errors: &mut Errors) {
    if captures(&permission.value()).is_none() {
        errors.push(
            permission,
            "the permission has an unmatched brace, or empty braces: braces are for captures of the path, as \
             in \"builds.{build}.read\"",
        );
    }
}

/// The macro does not know the captures of a prefix. `routes()` does.
fn permission_with_unknown_capture(permission: &LitStr, path: &str, errors: &mut Errors) {
    let known = route::captures(path);
    for Capture { name, .. } in captures(&permission.value()).unwrap_or_default() {
        if !takes_rest(name, &known) && !known.contains(&&*format!("{{{name}}}")) {
            let one = known.iter().find(|of| !of.starts_with("{*"));
            let cure = one.map_or_else(String::new, |one| format!("write `{one}`, or "));
            errors.push(
                permission,
                format!(
                    "the path has no capture `{{{name}}}`: {cure}if a prefix has it, write a constant, which \
                     `routes()` checks"
                ),
            );
        }
    }
}

fn permission_with_catch_all(permission: &LitStr, path: &str, errors: &mut Errors) {
    let known = route::captures(path);
    for Capture { name, .. } in captures(&permission.value()).unwrap_or_default() {
        if takes_rest(name, &known) {
            errors.push(
                permission,
                format!(
                    "`{{{name}}}` takes the rest of the path, and a part of a permission is one segment: leave \
                     it out, and decide in the function or in an `Authorizer`"
                ),
            );
        }
    }
}

fn takes_rest(name: &str, of_path: &[&str]) -> bool {
    name.starts_with('*') || of_path.contains(&&*format!("{{*{name}}}"))
}

/// Otherwise two paths could require the same permission, or one that was granted for another purpose.
fn permission_with_text_beside_capture(permission: &LitStr, errors: &mut Errors) {
    const SEPARATORS: [char; 3] = ['.', ':', '/'];
    for Capture { before, name, behind } in captures(&permission.value()).unwrap_or_default() {
        let whole =
            before.ends_with(SEPARATORS) && (behind.is_empty() || behind.starts_with(SEPARATORS));
        if !whole {
            errors.push(
                permission,
                format!(
                    "`{{{name}}}` is next to other text or at the beginning: write it between `.`, `:` or `/`, \
                     after a word of your own, as in \"builds.{{build}}.read\""
                ),
            );
        }
    }
}

/// One `{name}` of a permission, and all text on either side.
struct Capture<'a> {
    before: &'a str,
    name: &'a str,
    behind: &'a str,
}

/// `None` for an unmatched brace, or for empty braces.
fn captures(permission: &str) -> Option<Vec<Capture<'_>>> {
    let (mut captures, mut rest) = (Vec::new(), permission);
    while let Some((before, capture)) = rest.split_once('{') {
        let (name, behind) = capture.split_once('}')?;
        if name.is_empty() || name.contains('{') || before.contains('}') {
            return None;
        }
        captures.push(Capture { before, name, behind });
        rest = behind;
    }
    (!rest.contains('}')).then_some(captures)
}

/// Every other key, in the order of the table.
fn settings(declaration: &Declaration, errors: &mut Errors) -> Vec<(&'static str, Setting)> {
    let settings =
        KEYS.iter().filter_map(|key| Some((key.name, setting(key, declaration, errors)?)));
    let settings: Vec<_> = settings.collect();
    event(declaration, errors);
    heartbeat_not_below_max_age(declaration, &settings, errors);
    heartbeat_event_without_heartbeat(declaration, &settings, errors);
    token_sources_of_post(declaration, errors);
    settings
}

fn setting(key: &Key, declaration: &Declaration, errors: &mut Errors) -> Option<Setting> {
    let entries = &declaration.entries;
    match key.takes {
        ValueKind::Nothing => entries.key(key.name).map(|_| Setting::Bare),
        ValueKind::Text => Some(Setting::Text(entries.text(key.name)?.value())),
        ValueKind::Flag => Some(Setting::Flag(entries.flag(key.name)?.value)),
        ValueKind::Count => count(key, entries.count(key.name)?, errors),
        ValueKind::OneOf(of, _) => {
            Some(Setting::Variant(of, name::pascal_case(&entries.text(key.name)?.value())))
        }
        ValueKind::SomeOf(of, _) => {
            let words = entries.words(key.name)?.iter();
            Some(Setting::Variants(
                of,
                words.map(|word| name::pascal_case(&word.value())).collect(),
            ))
        }
        ValueKind::Duration | ValueKind::DurationOrOff => {
            period(key, entries.text(key.name)?, errors)
        }
        ValueKind::Permissions | ValueKind::Path | ValueKind::Type => None,
    }
}

fn event(declaration: &Declaration, errors: &mut Errors) {
    if let Some(event) = declaration.entries.text("event") {
        name::check(event, errors);
    }
}

fn count(key: &Key, written: &LitInt, errors: &mut Errors) -> Option<Setting> {
    // Fits a `usize` on every platform.
    let value = written.base10_parse::<u32>().ok().filter(|value| *value > 0);
    bad_count(key, written, value, errors);
    value.map(|value| Setting::Count(value.into()))
}

fn bad_count(key: &Key, written: &LitInt, value: Option<u32>, errors: &mut Errors) {
    if value.is_none() {
        let Key { name, example, .. } = key;
        errors.push(
            written,
            format!(
                "{written} is not a value for `{name}`: write a number from 1 to {}, as in `{example}`",
                u32::MAX
            ),
        );
    }
}

fn period(key: &Key, written: &LitStr, errors: &mut Errors) -> Option<Setting> {
    if written.value() == "off" && key.takes.allows_off() {
        return Some(Setting::Off);
    }
    let millis = duration::check(key, written, errors)?;
    Some(if key.takes.allows_off() { Setting::Every(millis) } else { Setting::Millis(millis) })
}

/// Compares the declared values. `routes()` compares them again with the configured ones.
fn heartbeat_not_below_max_age(
    declaration: &Declaration,
    settings: &[(&str, Setting)],
    errors: &mut Errors,
) {
    let (heartbeat, age) = (every("heartbeat", settings), every("max_age", settings));
    if let (Some(heartbeat), Some(age)) = (heartbeat, age)
        && heartbeat >= age
    {
        errors.push(
            declaration.entries.text("heartbeat"),
            "the stream would end before its first heartbeat: write one that is shorter than `max_age`",
        );
    }
}

fn every(name: &str, settings: &[(&str, Setting)]) -> Option<u64> {
    settings.iter().find_map(|(key, setting)| match setting {
        Setting::Every(millis) if *key == name => Some(*millis),
        _ => None,
    })
}

fn heartbeat_event_without_heartbeat(
    declaration: &Declaration,
    settings: &[(&str, Setting)],
    errors: &mut Errors,
) {
    let off = settings
        .iter()
        .any(|(key, setting)| *key == "heartbeat" && matches!(setting, Setting::Off));
    if let Some(flag) = declaration.entries.flag("heartbeat_event")
        && flag.value
        && off
    {
        errors.push(
            declaration.entries.key("heartbeat_event"),
            "without heartbeats there is no heartbeat event: leave out `heartbeat_event`, or \
             `heartbeat = \"off\"`",
        );
    }
}

/// A client that sends a body can send a header, and URLs end up in logs.
fn token_sources_of_post(declaration: &Declaration, errors: &mut Errors) {
    let entries = &declaration.entries;
    let words = entries.words("token_sources").unwrap_or_default();
    if let Some(query) = words.iter().find(|word| word.value() == "query")
        && signature::is_post(entries)
    {
        errors.push(
            query,
            "a `POST` takes no token from its query: leave out `\"query\"`, since a client that sends a body \
             can send a header",
        );
    }
}

fn state_not_a_concrete_type(declaration: &Declaration, errors: &mut Errors) {
    if let Some(state) = declaration.entries.ty("state")
        && !signature::is_concrete(state)
    {
        errors.push(
            state,
            "the state is one concrete, owned type: write the type itself, as in `state = App`",
        );
    }
}

/// Marks a function that is an endpoint already.
const MARKER: &str = "this function is an endpoint of hero-sse";

/// The function as it is emitted again. A further attribute with the name of this one may be this macro
/// again: then it finds the marker, which comes behind it. The marker allows a lint that no free function
/// can violate.
fn emitted(item: &TokenStream, function: &Function) -> TokenStream {
    let Function { attributes, rest, .. } = function;
    let has_our_name = |attribute: &Attribute| {
        attribute.path().segments.last().is_some_and(|last| last.ident == "sse_endpoint")
    };
    if attributes.iter().any(has_our_name) {
        quote!(#(#attributes)* #[allow(async_fn_in_trait, reason = #MARKER)] #rest)
    } else {
        item.clone()
    }
}

/// Comes before all other rules, since the first attribute has checked the same function.
pub(super) fn declared_twice(function: &Function) -> syn::Result<()> {
    let is_marker = |attribute: &Attribute| match &attribute.meta {
        Meta::List(list) if list.path.is_ident("allow") => {
            let mut tokens = list.tokens.clone().into_iter();
            tokens.any(|token| token.to_string().contains(MARKER))
        }
        _ => false,
    };
    if function.attributes.iter().any(is_marker) {
        return Err(syn::Error::new(
            Span::call_site(),
            "a function is one endpoint: leave out this `#[sse_endpoint]`, or write it on a second \
             function that calls the first",
        ));
    }
    Ok(())
}

/// The doc comment: text without the space at the start of each line, and macros such as `include_str!` as
/// they are.
fn docs(attributes: &[Attribute]) -> Vec<TokenStream> {
    let mut docs: Vec<TokenStream> = Vec::new();
    let mut text: Option<String> = None;
    for doc in attributes.iter().filter_map(doc) {
        match doc {
            Expr::Lit(ExprLit { lit: Lit::Str(line), .. }) => {
                let line = line.value();
                let line = line.strip_prefix(' ').unwrap_or(&line);
                text = Some(match text.take() {
                    Some(before) => format!("{before}\n{line}"),
                    None => line.to_owned(),
                });
            }
            other => {
                docs.extend(text.take().map(|text| format!("{text}\n").to_token_stream()));
                docs.push(other.to_token_stream());
                text = Some(String::new());
            }
        }
    }
    docs.extend(text.filter(|text| !text.is_empty()).map(|text| text.to_token_stream()));
    docs
}

fn doc(attribute: &Attribute) -> Option<&Expr> {
    match &attribute.meta {
        Meta::NameValue(meta) if meta.path.is_ident("doc") => Some(&meta.value),
        _ => None,
    }
}

fn shared_attributes(attributes: &[Attribute]) -> SharedAttributes {
    let named = |name| {
        let named = move |attribute: &&Attribute| attribute.path().is_ident(name);
        attributes.iter().filter(named).cloned().collect()
    };
    SharedAttributes { docs: named("doc"), conditions: named("cfg") }
}
