//! What may stand behind a key: how it is read, and what to say when it is something else.

use proc_macro2::TokenStream;
use quote::ToTokens;
use syn::ext::IdentExt;
use syn::parse::discouraged::Speculative;
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::{Ident, LitBool, LitInt, LitStr, Path, Token, Type, token};

use crate::attr::Key;
use crate::errors::Errors;

/// What a key takes.
#[derive(Clone, Copy)]
pub(crate) enum Takes {
    Nothing,
    Text,
    Duration,
    DurationOrOff,
    Flag,
    Count,
    /// One of these words, in quotes: the variants of the enum of that name, in snake case.
    OneOf(&'static str, &'static [&'static str]),
    /// Some of these words, each in quotes, in brackets: variants of the enum of that name.
    SomeOf(&'static str, &'static [&'static str]),
    Permissions,
    Path,
    Type,
}

/// What a key was given.
pub(crate) enum Value {
    Nothing,
    Text(LitStr),
    Flag(LitBool),
    Count(LitInt),
    Words(Vec<LitStr>),
    Permissions(Permissions),
    Path(Path),
    Type(Box<Type>),
    /// Something else, which was reported.
    Wrong,
}

/// Which permissions open an endpoint.
pub(crate) enum Permissions {
    Name(LitStr),
    /// A constant, or a variant of an enum.
    Path(Path),
    List(List),
}

/// `all(..)` or `any(..)`.
pub(crate) struct List {
    /// Which of the two.
    pub(crate) word: Ident,
    pub(crate) parentheses: token::Paren,
    pub(crate) rules: Vec<Permissions>,
}

impl Takes {
    /// Whether `"off"` is a value.
    pub(crate) fn off(self) -> bool {
        matches!(self, Self::DurationOrOff)
    }

    /// What a duration may look like, for messages.
    pub(crate) fn durations(self) -> String {
        let off = if self.off() { ", or \"off\"" } else { "" };
        format!("durations are \"500ms\", \"15s\", \"2m\", \"1h\" or \"00:00:05\" (hh:mm:ss){off}")
    }

    /// Reads the value of a key that takes this.
    fn read(self, input: ParseStream<'_>) -> Option<Value> {
        match self {
            Self::Nothing => None,
            Self::Text | Self::Duration | Self::DurationOrOff => ahead(input).map(Value::Text),
            Self::OneOf(_, words) => {
                let one_of = |text: &LitStr| words.contains(&text.value().as_str());
                ahead(input).filter(one_of).map(Value::Text)
            }
            Self::SomeOf(_, words) => {
                let known = |text: &LitStr| words.contains(&text.value().as_str());
                ahead_with(input, list).filter(|texts| texts.iter().all(known)).map(Value::Words)
            }
            Self::Flag => ahead(input).map(Value::Flag),
            Self::Count => {
                let whole = |count: &LitInt| count.suffix().is_empty();
                ahead(input).filter(whole).map(Value::Count)
            }
            Self::Permissions => ahead(input).map(Value::Permissions),
            Self::Path => ahead_with(input, Path::parse_mod_style).map(Value::Path),
            Self::Type => ahead(input).map(Box::new).map(Value::Type),
        }
    }
}

impl Value {
    /// Reads what stands behind `key`, the equals sign included. Never fails: what cannot be read
    /// is reported.
    pub(crate) fn read(
        input: ParseStream<'_>,
        ident: &Ident,
        key: &Key,
        errors: &mut Errors,
    ) -> Self {
        let given = input.parse::<Token![=]>().is_ok();
        let written = input.fork();
        let value = match key.takes {
            Takes::Nothing => (!given).then_some(Self::Nothing),
            takes => given.then(|| takes.read(input)).flatten(),
        };
        // What follows without a comma may be the next key, but not more of this value.
        let whole = input.is_empty() || input.peek(Token![,]) || input.peek(Ident::peek_any);
        if let Some(value) = value.filter(|_| whole) {
            return value;
        }
        skip(input);
        let wrong = skip(&written);
        if wrong.is_empty() {
            wrong_value(ident, key, errors);
        } else {
            wrong_value(wrong, key, errors);
        }
        // A word with a value too many still counts as said.
        if let Takes::Nothing = key.takes { Self::Nothing } else { Self::Wrong }
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
        Takes::Nothing => format!("`{name}` takes no value: write `{name}` alone"),
        Takes::Text => format!("`{name}` takes a string literal: write `{example}`"),
        Takes::Duration | Takes::DurationOrOff => {
            format!("`{name}` takes a duration: write `{example}`\n{}", takes.durations())
        }
        Takes::Flag => format!("`{name}` is true or false: write `{example}`"),
        Takes::Count => format!("`{name}` takes a whole number: write `{example}`"),
        Takes::OneOf(_, words) => {
            format!("`{name}` is {}: write `{example}`", listed(words, "or"))
        }
        Takes::SomeOf(_, words) => {
            let words = listed(words, "and");
            format!("`{name}` is a list of some of {words}: write `{example}`")
        }
        Takes::Permissions => format!(
            "`{name}` takes a string, a constant, or several of them: write `{example}`, \
             `{name} = Scope::UsageRead`, `{name} = all(\"a\", \"b\")` or `{name} = any(\"a\", \"b\")`"
        ),
        Takes::Path => format!("`{name}` takes a path: write `{example}`"),
        Takes::Type => format!("`{name}` takes a type: write `{example}`"),
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

/// Texts in brackets, one at least.
fn list(input: ParseStream<'_>) -> syn::Result<Vec<LitStr>> {
    let inner;
    syn::bracketed!(inner in input);
    let texts = Punctuated::<LitStr, Token![,]>::parse_separated_nonempty(&inner)?;
    if inner.is_empty() { Ok(texts.into_iter().collect()) } else { Err(inner.error("a comma")) }
}

/// Takes everything up to the next comma.
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

/// Parses without moving on when it fails.
fn ahead<T: Parse>(input: ParseStream<'_>) -> Option<T> {
    ahead_with(input, T::parse)
}

fn ahead_with<T>(
    input: ParseStream<'_>,
    parser: impl FnOnce(ParseStream<'_>) -> syn::Result<T>,
) -> Option<T> {
    let fork = input.fork();
    let parsed = parser(&fork).ok()?;
    input.advance_to(&fork);
    Some(parsed)
}
