//! The rules of an endpoint, one function each, and the only maker of its model.
//! A rule is named after the mistake it reports, as is its case in `tests/ui/endpoint`; those of
//! paths and event names are in `route` and `name`. What makes a part of the model is named after
//! the part.

use proc_macro2::{Delimiter, Span, TokenStream, TokenTree};
use quote::ToTokens;
use syn::spanned::Spanned;
use syn::{
    Attribute, Expr, ExprLit, FnArg, GenericParam, Ident, Lit, LitStr, Meta, ReturnType, Safety,
    Signature, Type,
};

use super::model::{Access, Endpoint, Period};
use super::parse::{Declaration, Function, KEYS, PathArgument};
use crate::attr::Key;
use crate::errors::Errors;
use crate::{duration, name, route};

const PATH_COMES_FIRST: &str = "it comes first, as in `#[sse_endpoint(\"/usage/stream\")]`";
/// axum's limit for a handler.
const MOST_ARGUMENTS: usize = 16;
/// Anything quicker, and browsers hammer a server that is down.
const SHORTEST_RETRY: u64 = 500;
/// Browsers misread values from 2^31 milliseconds on, and a day is long enough.
const LONGEST_RETRY: u64 = 24 * 3_600_000;

pub(super) fn endpoint(declaration: &Declaration, errors: &mut Errors) -> syn::Result<Endpoint> {
    let path = path(declaration, errors);
    let event = event(declaration, errors);
    let access = access(declaration, errors);
    let heartbeat = period("heartbeat", declaration, errors);
    let write_timeout = period("write_timeout", declaration, errors);
    let retry = retry(declaration, errors);

    let signature = &declaration.function.signature;
    not_async(signature, errors);
    unsafe_function(signature, errors);
    extern_function(signature, errors);
    generic_function(signature, errors);
    self_receiver(signature, errors);
    too_many_arguments(signature, errors);
    attribute_on_argument(signature, errors);
    impl_trait_argument(signature, errors);
    borrowed_argument(signature, errors);
    principal_on_public(declaration, errors);
    no_return_type(signature, errors);
    errors.propagate()?;

    Ok(Endpoint {
        krate: declaration.entries.path("crate").cloned(),
        visibility: declaration.function.visibility.clone(),
        ident: signature.ident.clone(),
        path,
        docs: docs(&declaration.function.attributes),
        event,
        access,
        heartbeat,
        write_timeout,
        retry,
        arguments: argument_types(signature).cloned().collect(),
        returns: returns(signature),
    })
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

fn event(declaration: &Declaration, errors: &mut Errors) -> Option<String> {
    let event = declaration.entries.text("event")?;
    name::check(event, errors);
    Some(event.value())
}

fn access(declaration: &Declaration, errors: &mut Errors) -> Access {
    public_with_permission(declaration, errors);
    if let Some(permission) = declaration.entries.text("permission") {
        permission_empty(permission, errors);
        permission_with_illegal_character(permission, errors);
        Access::Permission(permission.value())
    } else if declaration.entries.key("public").is_some() {
        Access::Public
    } else {
        Access::AnyToken
    }
}

fn public_with_permission(declaration: &Declaration, errors: &mut Errors) {
    let Declaration { entries, .. } = declaration;
    if let (Some(public), Some(_)) = (entries.key("public"), entries.key("permission")) {
        errors.push(
            public,
            "a public endpoint asks for no token, so it has no permission to look for: leave out \
             `public` or `permission`",
        );
    }
}

fn permission_empty(permission: &LitStr, errors: &mut Errors) {
    if permission.value().is_empty() {
        errors.push(
            permission,
            "the permission is empty: write one such as \"usage.read\", or leave out `permission` \
             to let any valid token in",
        );
    }
}

/// RFC 6749 section 3.3, `scope-token`. A blank would make it two permissions.
fn permission_with_illegal_character(permission: &LitStr, errors: &mut Errors) {
    let legal = |c: char| matches!(c, '\x21' | '\x23'..='\x5b' | '\x5d'..='\x7e');
    if let Some(odd) = permission.value().chars().find(|c| !legal(*c)) {
        errors.push(
            permission,
            format!(
                "a permission cannot hold {odd:?}: write one word of ASCII letters, digits and \
                 signs other than `\"` and `\\`"
            ),
        );
    }
}

fn period(name: &str, declaration: &Declaration, errors: &mut Errors) -> Option<Period> {
    let written = declaration.entries.text(name)?;
    let key = KEYS.iter().find(|key| key.name == name)?;
    if written.value() == "off" && key.takes.off() {
        return Some(Period::Off);
    }
    bad_duration(written, key, errors);
    duration::millis(&written.value()).map(Period::Millis)
}

fn bad_duration(written: &LitStr, key: &Key, errors: &mut Errors) {
    let text = written.value();
    if duration::millis(&text).is_none() {
        let Key { name, takes, example, .. } = key;
        errors.push(
            written,
            format!("{text:?} is no value for `{name}`: write `{example}`\n{}", takes.durations()),
        );
    }
}

fn retry(declaration: &Declaration, errors: &mut Errors) -> Option<u64> {
    let Some(Period::Millis(millis)) = period("retry", declaration, errors) else {
        return None;
    };
    let written = declaration.entries.text("retry");
    retry_too_short(written, millis, errors);
    retry_too_long(written, millis, errors);
    Some(millis)
}

fn retry_too_short(written: Option<&LitStr>, millis: u64, errors: &mut Errors) {
    if millis < SHORTEST_RETRY {
        errors.push(
            written,
            format!(
                "browsers that come back every {millis} ms would hammer a server that is down: \
                 write at least \"{SHORTEST_RETRY}ms\""
            ),
        );
    }
}

fn retry_too_long(written: Option<&LitStr>, millis: u64, errors: &mut Errors) {
    if millis > LONGEST_RETRY {
        errors.push(
            written,
            "a browser that lost its stream would be gone for more than a day: write at most \
             \"24h\"",
        );
    }
}

/// Asked before all others, as the other attribute reads the same function and reports the rest.
pub(super) fn declared_twice(function: &Function, errors: &mut Errors) {
    let ours = |attribute: &&Attribute| {
        attribute.path().segments.last().is_some_and(|segment| segment.ident == "sse_endpoint")
    };
    if let Some(second) = function.attributes.iter().find(ours) {
        errors.push(
            second,
            "a function is one endpoint: leave out this `#[sse_endpoint]`, or write it on a second \
             function that calls the first",
        );
    }
}

fn not_async(signature: &Signature, errors: &mut Errors) {
    if signature.asyncness.is_none() {
        errors.push(signature.fn_token, "an endpoint is asynchronous: write `async fn`");
    }
}

fn unsafe_function(signature: &Signature, errors: &mut Errors) {
    if let Safety::Unsafe(token) = &signature.safety {
        errors.push(token, "an endpoint is called by safe code: leave out `unsafe`");
    }
}

fn extern_function(signature: &Signature, errors: &mut Errors) {
    if let Some(abi) = &signature.abi {
        errors.push(abi, "an endpoint is called from Rust: leave out `extern`");
    }
}

fn generic_function(signature: &Signature, errors: &mut Errors) {
    if let Some(parameter) = signature.generics.params.first() {
        let parameter: &dyn ToTokens = match parameter {
            GenericParam::Lifetime(lifetime) => &lifetime.lifetime,
            GenericParam::Type(parameter) => &parameter.ident,
            GenericParam::Const(parameter) => &parameter.ident,
        };
        errors.push(
            parameter,
            "an endpoint cannot be generic: write concrete types, or hand the generic function to \
             the builder, `sse.endpoint(\"/path\").handler(..)`",
        );
    }
}

fn self_receiver(signature: &Signature, errors: &mut Errors) {
    if let Some(receiver) = signature.receiver() {
        errors.push(
            receiver,
            "an endpoint is a free function: move it out of the `impl` and take what it needs from \
             an extractor such as `State`",
        );
    }
}

fn too_many_arguments(signature: &Signature, errors: &mut Errors) {
    if let Some(argument) = signature.inputs.iter().nth(MOST_ARGUMENTS) {
        errors.push(
            argument,
            format!(
                "an endpoint takes at most {MOST_ARGUMENTS} arguments: gather some in a type that \
                 derives `FromRequestParts`"
            ),
        );
    }
}

fn attribute_on_argument(signature: &Signature, errors: &mut Errors) {
    for argument in &signature.inputs {
        let (FnArg::Typed(syn::PatType { attrs, .. })
        | FnArg::Receiver(syn::Receiver { attrs, .. })) = argument;
        if let Some(attribute) = attrs.first() {
            errors.push(
                attribute,
                "an argument of an endpoint takes no attributes: leave it out, or write it on the \
                 function",
            );
        }
    }
}

fn impl_trait_argument(signature: &Signature, errors: &mut Errors) {
    for ty in argument_types(signature) {
        if let Some(token) = find(ty.to_token_stream(), |tree, _| is_ident(tree, "impl")) {
            errors.push(
                token,
                "`impl Trait` would make the endpoint generic: write the concrete type",
            );
        }
    }
}

/// A named lifetime is a generic's, and reported there.
fn borrowed_argument(signature: &Signature, errors: &mut Errors) {
    let borrow = |tree: &TokenTree, next: Option<&TokenTree>| match tree {
        TokenTree::Punct(punct) if punct.as_char() == '&' => !next.is_some_and(is_quote),
        TokenTree::Punct(punct) if punct.as_char() == '\'' => {
            next.is_some_and(|next| is_ident(next, "_"))
        }
        _ => false,
    };
    for ty in argument_types(signature) {
        if let Some(token) = find(ty.to_token_stream(), borrow) {
            errors.push(
                token,
                "an endpoint owns its arguments, as its stream outlives the request: write an \
                 owned type, such as `String` for `&str`",
            );
        }
    }
}

fn principal_on_public(declaration: &Declaration, errors: &mut Errors) {
    if declaration.entries.key("public").is_none() {
        return;
    }
    for ty in argument_types(&declaration.function.signature) {
        if let Type::Path(path) = ty
            && path.path.segments.last().is_some_and(|segment| segment.ident == "Principal")
        {
            errors.push(
                ty,
                "a caller of a public endpoint may have no token, so there may be no principal: \
                 write `Option<Principal>`",
            );
        }
    }
}

fn no_return_type(signature: &Signature, errors: &mut Errors) {
    if let ReturnType::Default = signature.output {
        errors.push(
            &signature.ident,
            "an endpoint returns its events: write `-> impl Stream<Item = Usage>`, or a `Result` \
             of one",
        );
    }
}

fn argument_types(signature: &Signature) -> impl Iterator<Item = &Type> {
    signature.inputs.iter().filter_map(|argument| match argument {
        FnArg::Typed(argument) => Some(&*argument.ty),
        FnArg::Receiver(_) => None,
    })
}

/// Where the return type begins.
fn returns(signature: &Signature) -> Span {
    match &signature.output {
        ReturnType::Type(_, ty) => ty.span(),
        ReturnType::Default => signature.ident.span(),
    }
}

/// The first token for which the test holds, given the token behind it. Does not look inside the
/// parentheses of a function's type: its arguments are not the endpoint's.
fn find(
    tokens: TokenStream,
    test: impl Fn(&TokenTree, Option<&TokenTree>) -> bool + Copy,
) -> Option<TokenTree> {
    let mut trees = tokens.into_iter().peekable();
    let mut of_function = false;
    while let Some(tree) = trees.next() {
        if test(&tree, trees.peek()) {
            return Some(tree);
        }
        if let TokenTree::Group(group) = &tree
            && !(of_function && group.delimiter() == Delimiter::Parenthesis)
            && let Some(found) = find(group.stream(), test)
        {
            return Some(found);
        }
        of_function = ["fn", "Fn", "FnMut", "FnOnce"].iter().any(|name| is_ident(&tree, name));
    }
    None
}

fn is_ident(tree: &TokenTree, name: &str) -> bool {
    matches!(tree, TokenTree::Ident(ident) if *ident == name)
}

fn is_quote(tree: &TokenTree) -> bool {
    matches!(tree, TokenTree::Punct(punct) if punct.as_char() == '\'')
}

/// The doc comment, without the blank that stands before each line of it.
fn docs(attributes: &[Attribute]) -> Option<String> {
    let lines: Vec<_> = attributes.iter().filter_map(doc_line).collect();
    (!lines.is_empty()).then(|| lines.join("\n"))
}

fn doc_line(attribute: &Attribute) -> Option<String> {
    let Meta::NameValue(meta) = &attribute.meta else {
        return None;
    };
    let Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) = &meta.value else {
        return None;
    };
    let text = meta.path.is_ident("doc").then(|| text.value())?;
    Some(text.strip_prefix(' ').map(str::to_owned).unwrap_or(text))
}
