//! Reads `key = value` lists by a table of keys.
//!
//! A key is one row of such a table: parser, messages and tests all take it from there. A mistake
//! has a function of its name that reports it, and a case in `tests/ui`.

use proc_macro2::{TokenStream, TokenTree};
use quote::quote;
use syn::ext::IdentExt;
use syn::parse::discouraged::Speculative;
use syn::parse::{Parse, ParseStream};
use syn::{Ident, LitStr, Path, Token};

use crate::errors::Errors;

/// A row of a table of keys.
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) takes: Takes,
    /// How it is written, for messages.
    pub(crate) example: &'static str,
    pub(crate) places: &'static [Place],
}

/// What stands behind a key.
#[derive(Clone, Copy)]
pub(crate) enum Takes {
    Nothing,
    Text,
    Duration,
    DurationOrOff,
    Path,
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
}

/// What an attribute stands on.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Place {
    Function,
    Struct,
    Enum,
    Variant,
    Field,
}

/// The entries of one attribute, or of several on the same item, in the order of writing.
#[derive(Default)]
pub(crate) struct Entries(Vec<Entry>);

struct Entry {
    key: Ident,
    value: Value,
}

enum Value {
    Nothing,
    Text(LitStr),
    Path(Path),
    /// Something else, which was reported.
    Wrong,
}

impl Entries {
    /// Reads what is left of an attribute. Never stops early: what cannot be read is reported.
    pub(crate) fn read(
        &mut self,
        input: ParseStream<'_>,
        keys: &'static [Key],
        place: Place,
        errors: &mut Errors,
    ) {
        while !input.is_empty() {
            self.read_entry(input, keys, place, errors);
            comma(input, errors);
        }
    }

    fn read_entry(
        &mut self,
        input: ParseStream<'_>,
        keys: &'static [Key],
        place: Place,
        errors: &mut Errors,
    ) {
        let Ok(ident) = input.call(Ident::parse_any) else {
            not_a_key(skip_entry(input), keys, place, errors);
            return;
        };
        let name = ident.to_string();
        let Some(key) = keys.iter().find(|key| key.name == name) else {
            skip_entry(input);
            unknown_key(&ident, keys, place, errors);
            return;
        };
        let value = read_value(input, &ident, key, errors);
        if !key.places.contains(&place) {
            misplaced_key(&ident, key, place, errors);
        } else if let Some(first) = self.0.iter().find(|entry| entry.key == ident) {
            duplicate_key(&ident, first, errors);
        } else {
            self.0.push(Entry { key: ident, value });
        }
    }

    /// The key itself, whatever its value: for keys that take none, and for messages.
    pub(crate) fn key(&self, name: &str) -> Option<&Ident> {
        self.entry(name).map(|entry| &entry.key)
    }

    /// The value of a key that takes a text or a duration.
    pub(crate) fn text(&self, name: &str) -> Option<&LitStr> {
        match &self.entry(name)?.value {
            Value::Text(text) => Some(text),
            Value::Nothing | Value::Path(_) | Value::Wrong => None,
        }
    }

    /// The value of a key that takes a path.
    pub(crate) fn path(&self, name: &str) -> Option<&Path> {
        match &self.entry(name)?.value {
            Value::Path(path) => Some(path),
            Value::Nothing | Value::Text(_) | Value::Wrong => None,
        }
    }

    fn entry(&self, name: &str) -> Option<&Entry> {
        self.0.iter().find(|entry| entry.key == name)
    }
}

fn read_value(input: ParseStream<'_>, ident: &Ident, key: &Key, errors: &mut Errors) -> Value {
    let given = input.parse::<Token![=]>().is_ok();
    let value = match key.takes {
        Takes::Nothing if given => None,
        Takes::Nothing => Some(Value::Nothing),
        _ if !given => None,
        Takes::Text | Takes::Duration | Takes::DurationOrOff => ahead(input).map(Value::Text),
        Takes::Path => ahead_with(input, Path::parse_mod_style).map(Value::Path),
    };
    value.unwrap_or_else(|| {
        let wrong = skip_entry(input);
        let at = if wrong.is_empty() { quote!(#ident) } else { wrong };
        wrong_value(at, key, errors);
        // A word with a value too many still counts as said.
        if let Takes::Nothing = key.takes { Value::Nothing } else { Value::Wrong }
    })
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

/// Takes the comma after an argument.
pub(crate) fn comma(input: ParseStream<'_>, errors: &mut Errors) {
    if input.is_empty() || input.parse::<Token![,]>().is_ok() {
        return;
    }
    missing_comma(input, errors);
    // If a key follows, the comma is all that is missing.
    if !input.peek(Ident::peek_any) {
        skip_entry(input);
        let _comma: Option<Token![,]> = input.parse().ok();
    }
}

/// Takes everything up to the next comma.
pub(crate) fn skip_entry(input: ParseStream<'_>) -> TokenStream {
    let mut skipped = TokenStream::new();
    while !input.is_empty() && !input.peek(Token![,]) {
        match input.parse::<TokenTree>() {
            Ok(tree) => skipped.extend([tree]),
            Err(_) => break,
        }
    }
    skipped
}

fn missing_comma(input: ParseStream<'_>, errors: &mut Errors) {
    errors.add(input.error("write a comma before this"));
}

fn not_a_key(tokens: TokenStream, keys: &[Key], place: Place, errors: &mut Errors) {
    errors.push(tokens, format!("write a key here: {}", names(keys, place)));
}

fn unknown_key(ident: &Ident, keys: &[Key], place: Place, errors: &mut Errors) {
    let name = ident.to_string();
    let guess = guess(&name, keys.iter().map(|key| key.name));
    errors.push(ident, format!("unknown key `{name}`{guess}\n{}", names(keys, place)));
}

fn duplicate_key(ident: &Ident, first: &Entry, errors: &mut Errors) {
    let Entry { key, value } = first;
    let first = match value {
        Value::Text(text) => format!(", first as `{key} = {:?}`", text.value()),
        Value::Path(path) => format!(", first as `{key} = {}`", plain(quote!(#path))),
        Value::Nothing | Value::Wrong => String::new(),
    };
    errors.push(ident, format!("`{key}` is given twice{first}: keep one of the two"));
}

fn misplaced_key(ident: &Ident, key: &Key, place: Place, errors: &mut Errors) {
    let homes: Vec<_> = key.places.iter().map(|home| home.described()).collect();
    errors.push(
        ident,
        format!(
            "`{ident}` does not belong on {}: write it on {}",
            place.described(),
            homes.join(" or ")
        ),
    );
}

fn wrong_value(at: TokenStream, key: &Key, errors: &mut Errors) {
    let Key { name, takes, example, .. } = key;
    let message = match takes {
        Takes::Nothing => format!("`{name}` takes no value: write `{name}` alone"),
        Takes::Text => format!("`{name}` takes a string literal: write `{example}`"),
        Takes::Duration | Takes::DurationOrOff => {
            format!("`{name}` takes a duration: write `{example}`\n{}", takes.durations())
        }
        Takes::Path => format!("`{name}` takes a path: write `{example}`"),
    };
    errors.push(at, message);
}

/// What may have been meant.
pub(crate) fn guess(name: &str, known: impl Iterator<Item = &'static str>) -> String {
    let likeness = |key: &str| strsim::normalized_damerau_levenshtein(name, key);
    let nearest =
        known.filter(|key| likeness(key) >= 0.5).max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    nearest.map_or(String::new(), |key| format!(", did you mean `{key}`?"))
}

/// The keys that are legal here.
fn names(keys: &[Key], place: Place) -> String {
    let here = keys.iter().filter(|key| key.places.contains(&place));
    let names: Vec<_> = here.map(|key| format!("`{}`", key.name)).collect();
    format!("the keys on {} are {}", place.described(), names.join(", "))
}

impl Place {
    fn described(self) -> &'static str {
        match self {
            Self::Function => "an endpoint",
            Self::Struct => "a struct",
            Self::Enum => "an enum",
            Self::Variant => "an enum variant",
            Self::Field => "a field",
        }
    }
}

/// A path's tokens without the spaces between them.
pub(crate) fn plain(tokens: TokenStream) -> String {
    tokens.to_string().replace(' ', "")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The example of each row is legal, and changes what comes out: a key that the table knows
    /// and no rule reads would not.
    pub(crate) fn assert_every_key_counts<'a>(
        keys: impl IntoIterator<Item = &'a Key>,
        expand: impl Fn(TokenStream) -> TokenStream,
    ) {
        let without = expand(TokenStream::new()).to_string();
        assert!(!without.contains("compile_error"), "{without}");
        for key in keys {
            let with = expand(key.example.parse().unwrap()).to_string();
            assert!(!with.contains("compile_error"), "{}: {with}", key.name);
            assert_ne!(with, without, "{}", key.name);
        }
    }
}
