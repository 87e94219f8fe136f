//! An endpoint as it is written. Knows the grammar and the keys, but no rule.

use proc_macro2::{Span, TokenStream};
use syn::ext::IdentExt;
use syn::parse::discouraged::Speculative;
use syn::parse::{ParseStream, Parser};
use syn::{Attribute, Ident, LitStr, Signature, Token, Visibility};

use crate::attr::{self, Entries, Key, Place, Takes};
use crate::errors::Errors;

/// The keys of the attribute.
pub(super) const KEYS: &[Key] = &[
    key("event", Takes::Text, r#"event = "usage""#),
    key("permission", Takes::Text, r#"permission = "usage.read""#),
    key("public", Takes::Nothing, "public"),
    key("heartbeat", Takes::DurationOrOff, r#"heartbeat = "15s""#),
    key("write_timeout", Takes::DurationOrOff, r#"write_timeout = "5s""#),
    key("retry", Takes::Duration, r#"retry = "3s""#),
    key("crate", Takes::Path, "crate = hero_sse"),
];

const fn key(name: &'static str, takes: Takes, example: &'static str) -> Key {
    Key { name, takes, example, places: &[Place::Function] }
}

pub(super) struct Declaration {
    pub(super) path: PathArgument,
    pub(super) entries: Entries,
    pub(super) function: Function,
}

/// The first argument.
pub(super) enum PathArgument {
    Literal(LitStr),
    /// `path = "/a"`, as other attributes have it.
    Keyed(Ident, LitStr),
    Other(TokenStream),
    Missing(Span),
}

/// A function, without its body: that may be half typed, and is the compiler's to read.
pub(super) struct Function {
    pub(super) attributes: Vec<Attribute>,
    pub(super) visibility: Visibility,
    pub(super) signature: Signature,
}

pub(super) fn function(item: TokenStream) -> syn::Result<Function> {
    let parser = |input: ParseStream<'_>| {
        let attributes = input.call(Attribute::parse_outer)?;
        let visibility = input.parse()?;
        if !starts_function(input) {
            return Err(not_a_function(input));
        }
        let signature = input.parse()?;
        let _body: TokenStream = input.parse()?;
        Ok(Function { attributes, visibility, signature })
    };
    parser.parse2(item)
}

fn not_a_function(input: ParseStream<'_>) -> syn::Error {
    input.error(
        "only an `async fn` can be an endpoint: write `#[sse_endpoint(..)]` on the function that \
         returns the stream",
    )
}

fn starts_function(input: ParseStream<'_>) -> bool {
    let fork = input.fork();
    let _const: Option<Token![const]> = fork.parse().ok();
    fork.peek(Token![async])
        || fork.peek(Token![unsafe]) && !fork.peek2(Token![impl]) && !fork.peek2(Token![trait])
        || fork.peek(Token![extern]) && fork.peek3(Token![fn])
        || fork.peek(Token![fn])
}

pub(super) fn declaration(
    attribute: TokenStream,
    function: Function,
    errors: &mut Errors,
) -> Declaration {
    let mut path = PathArgument::Missing(Span::call_site());
    let mut entries = Entries::default();
    let parser = |input: ParseStream<'_>| {
        path = path_argument(input);
        if !matches!(path, PathArgument::Missing(_)) {
            attr::comma(input, errors);
        }
        entries.read(input, KEYS, Place::Function, errors);
        Ok(())
    };
    if let Err(error) = parser.parse2(attribute) {
        errors.add(error);
    }
    Declaration { path, entries, function }
}

fn path_argument(input: ParseStream<'_>) -> PathArgument {
    if input.is_empty() {
        return PathArgument::Missing(Span::call_site());
    }
    let fork = input.fork();
    let argument = if let Ok(literal) = fork.parse() {
        PathArgument::Literal(literal)
    } else if let Ok(key) = fork.call(Ident::parse_any) {
        let known = KEYS.iter().any(|row| key == row.name);
        let assigned = fork.parse::<Token![=]>().is_ok();
        match fork.parse() {
            Ok(literal) if assigned && key == "path" => PathArgument::Keyed(key, literal),
            _ if known || assigned => return PathArgument::Missing(key.span()),
            _ => return PathArgument::Other(attr::skip_entry(input)),
        }
    } else {
        return PathArgument::Other(attr::skip_entry(input));
    };
    input.advance_to(&fork);
    argument
}
