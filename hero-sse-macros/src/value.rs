//! The value of a key: how it is read, and what the message says when it is something else.

use proc_macro2::TokenStream;
use quote::ToTokens;
use syn::ext::IdentExt;
use syn::parse::discouraged::Speculative;
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::{Ident, LitBool, LitInt, LitStr, Path, Token, Type, token};

use crate::errors::Errors;
use crate::key::{Key, ValueKind};

/// The value that a key was given.
pub(crate) enum Value {
    Nothing,
    Text(LitStr),
    Flag(LitBool),
    Count(LitInt),
    Words(Vec<LitStr>),
    Permissions(Permissions),
    Path(Path),
    Type(Box<Type>),
    /// Something else, which is reported already.
    Invalid,
}

/// The permissions that an endpoint asks for.
pub(crate) enum Permissions {
    Name(LitStr),
    /// A constant, or a variant of an enum.
    Path(Path),
    List(List),
}

/// `all(..)` or `any(..)`.
pub(crate) struct List {
    /// `all` or `any`.
    pub(crate) word: Ident,
    pub(crate) parentheses: token::Paren,
    pub(crate) rules: Vec<Permissions>,
}

impl Value {
    /// Reads everything behind `key`, the equals sign included. Never fails: what it cannot read it
    /// reports.
    pub(crate) fn read(
        input: ParseStream<'_>,
        ident: &Ident,
        key: &Key,
        errors: &mut Errors,
    ) -> Self {
        let assigned = input.parse::<Token![=]>().is_ok();
        let start = input.fork();
        let value = match key.takes {
            ValueKind::Nothing => (!assigned).then_some(Self::Nothing),
            kind => assigned.then(|| Self::of_kind(kind, input)).flatten(),
        };
        // Without a comma the next key may follow, but no more of this value.
        let complete = input.is_empty() || input.peek(Token![,]) || input.peek(Ident::peek_any);
        if let Some(value) = value.filter(|_| complete) {
            return value;
        }
        skip(input);
        let wrong = skip(&start);
        if wrong.is_empty() {
            wrong_value(ident, key, errors);
        } else {
            wrong_value(wrong, key, errors);
        }
        // A bare key with a value too many is still present.
        if let ValueKind::Nothing = key.takes { Self::Nothing } else { Self::Invalid }
    }

    fn of_kind(kind: ValueKind, input: ParseStream<'_>) -> Option<Self> {
        match kind {
            ValueKind::Nothing => None,
            ValueKind::Text | ValueKind::Duration | ValueKind::DurationOrOff => {
                try_parse(input).map(Self::Text)
            }
            ValueKind::OneOf(_, words) => {
                let one_of = |text: &LitStr| words.contains(&text.value().as_str());
                try_parse(input).filter(one_of).map(Self::Text)
            }
            ValueKind::SomeOf(_, words) => {
                let known = |text: &LitStr| words.contains(&text.value().as_str());
                let texts = try_parse_with(input, list)?;
                texts.iter().all(known).then_some(Self::Words(texts))
            }
            ValueKind::Flag => try_parse(input).map(Self::Flag),
            ValueKind::Count => {
                let no_suffix = |count: &LitInt| count.suffix().is_empty();
                try_parse(input).filter(no_suffix).map(Self::Count)
            }
            ValueKind::Permissions => try_parse(input).map(Self::Permissions),
            ValueKind::Path => try_parse_with(input, Path::parse_mod_style).map(Self::Path),
            ValueKind::Type => try_parse(input).map(Box::new).map(Self::Type),
        }
    }
}

impl Parse for Permissions {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        if input.peek(LitStr) {
            return input.parse().map(Self::Name);
        }
        if input.peek(Ident) && input.peek2(token::Paren) {
            return input.parse().map(Self::List);
        }
        input.call(Path::parse_mod_style).map(Self::Path)
    }
}

impl Parse for List {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let word: Ident = input.parse()?;
        if word != "all" && word != "any" {
            return Err(input.lookahead1().error());
        }
        let inner;
        let parentheses = syn::parenthesized!(inner in input);
        let rules = Punctuated::<Permissions, Token![,]>::parse_terminated(&inner)?;
        Ok(Self { word, parentheses, rules: rules.into_iter().collect() })
    }
}

fn wrong_value(at: impl ToTokens, key: &Key, errors: &mut Errors) {
    let Key { name, takes, example, .. } = key;
    let message = match takes {
        ValueKind::Nothing => format!("`{name}` takes no value: write `{name}` alone"),
        ValueKind::Text => format!("`{name}` takes a string literal: write `{example}`"),
        ValueKind::Duration | ValueKind::DurationOrOff => {
            let forms = takes.duration_forms();
            format!("`{name}` takes a duration: write `{example}`\n{forms}")
        }
        ValueKind::Flag => format!("`{name}` is true or false: write `{example}`"),
        ValueKind::Count => format!("`{name}` takes a whole number: write `{example}`"),
        ValueKind::OneOf(_, words) => {
            format!("`{name}` is {}: write `{example}`", listed(words, "or"))
        }
        ValueKind::SomeOf(_, words) => {
            let words = listed(words, "and");
            format!("`{name}` is a list of some of {words}: write `{example}`")
        }
        ValueKind::Permissions => format!(
            "`{name}` takes a string, a constant, or several of them: write `{example}`, \
             `{name} = Scope::UsageRead`, `{name} = all(\"a\", \"b\")` or `{name} = any(\"a\", \"b\")`"
        ),
        ValueKind::Path => format!("`{name}` takes a path: write `{example}`"),
        ValueKind::Type => format!("`{name}` takes a type: write `{example}`"),
    };
    errors.push(at, message);
}

/// `"a", "b" or "c"`.
fn listed(words: &[&str], last: &str) -> String {
    let words: Vec<_> = words.iter().map(|word| format!("{word:?}")).collect();
    let words = words.join(", ");
    let words = words.rsplit_once(", ").map(|(most, end)| format!("{most} {last} {end}"));
    words.unwrap_or_default()
}

/// String literals in brackets, at least one.
fn list(input: ParseStream<'_>) -> syn::Result<Vec<LitStr>> {
    let inner;
    syn::bracketed!(inner in input);
    let texts = Punctuated::<LitStr, Token![,]>::parse_separated_nonempty(&inner)?;
    if inner.is_empty() { Ok(texts.into_iter().collect()) } else { Err(inner.error("a comma")) }
}

/// Consumes everything up to the next comma.
pub(crate) fn skip(input: ParseStream<'_>) -> TokenStream {
    let mut skipped = TokenStream::new();
    while !input.is_empty() && !input.peek(Token![,]) {
        match input.parse::<proc_macro2::TokenTree>() {
            Ok(tree) => skipped.extend([tree]),
            Err(_) => break,
        }
    }
    skipped
}

/// Parses, and consumes nothing on failure.
fn try_parse<T: Parse>(input: ParseStream<'_>) -> Option<T> {
    try_parse_with(input, T::parse)
}

fn try_parse_with<T>(
    input: ParseStream<'_>,
    parser: impl FnOnce(ParseStream<'_>) -> syn::Result<T>,
) -> Option<T> {
    let fork = input.fork();
    let parsed = parser(&fork).ok()?;
    input.advance_to(&fork);
    Some(parsed)
}
