//! Reads `key = value` lists by a table of keys. Each mistake has a function that reports it, and a
//! case in `tests/ui` named after that function.

use proc_macro2::TokenStream;
use quote::quote;
use syn::ext::IdentExt;
use syn::parse::ParseStream;
use syn::{Ident, LitBool, LitInt, LitStr, Path, Token, Type};

use crate::errors::Errors;
use crate::key::{Key, Target, usage};
use crate::value::{Permissions, Value, skip};

/// The entries of all attributes on one item, in source order.
#[derive(Default)]
pub(crate) struct Entries(Vec<Entry>);

struct Entry {
    key: Ident,
    row: &'static Key,
    value: Value,
}

impl Entries {
    /// Reads the rest of an attribute. Never stops early: what it cannot read it reports.
    pub(crate) fn read(
        &mut self,
        input: ParseStream<'_>,
        keys: &'static [Key],
        target: Target,
        errors: &mut Errors,
    ) {
        while !input.is_empty() {
            self.read_entry(input, keys, target, errors);
            comma(input, errors);
        }
    }

    fn read_entry(
        &mut self,
        input: ParseStream<'_>,
        keys: &'static [Key],
        target: Target,
        errors: &mut Errors,
    ) {
        let Ok(ident) = input.call(Ident::parse_any) else {
            not_a_key(skip(input), keys, target, errors);
            return;
        };
        // One name may have different rows for different targets.
        let name = ident.to_string();
        let mut rows = keys.iter().filter(|key| key.name == name);
        let here = rows.clone().find(|key| key.targets.contains(&target));
        let Some(row) = here.or_else(|| rows.next()) else {
            skip(input);
            unknown_key(&ident, keys, target, errors);
            return;
        };
        let value = Value::read(input, &ident, row, errors);
        if !row.targets.contains(&target) {
            misplaced_key(&ident, row, target, errors);
        } else if let Some(first) = self.entry(row.name) {
            duplicate_key(&ident, &first.key, errors);
        } else {
            self.0.push(Entry { key: ident, row, value });
        }
    }

    /// The key itself, whatever its value.
    pub(crate) fn key(&self, name: &str) -> Option<&Ident> {
        self.entry(name).map(|entry| &entry.key)
    }

    /// Whether no key is given.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The table row of a given key.
    pub(crate) fn row(&self, name: &str) -> Option<&'static Key> {
        self.entry(name).map(|entry| entry.row)
    }

    /// The value of a key that takes a text, a word or a duration.
    pub(crate) fn text(&self, name: &str) -> Option<&LitStr> {
        match self.value(name)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The value of a key that is true or false.
    pub(crate) fn flag(&self, name: &str) -> Option<&LitBool> {
        match self.value(name)? {
            Value::Flag(flag) => Some(flag),
            _ => None,
        }
    }

    /// The value of a key that takes a number.
    pub(crate) fn count(&self, name: &str) -> Option<&LitInt> {
        match self.value(name)? {
            Value::Count(count) => Some(count),
            _ => None,
        }
    }

    /// The value of a key that takes a list of words.
    pub(crate) fn words(&self, name: &str) -> Option<&[LitStr]> {
        match self.value(name)? {
            Value::Words(words) => Some(words),
            _ => None,
        }
    }

    /// The value of a key that takes permissions.
    pub(crate) fn permissions(&self, name: &str) -> Option<&Permissions> {
        match self.value(name)? {
            Value::Permissions(permissions) => Some(permissions),
            _ => None,
        }
    }

    /// The value of a key that takes a path.
    pub(crate) fn path(&self, name: &str) -> Option<&Path> {
        match self.value(name)? {
            Value::Path(path) => Some(path),
            _ => None,
        }
    }

    /// The value of a key that takes a type.
    pub(crate) fn ty(&self, name: &str) -> Option<&Type> {
        match self.value(name)? {
            Value::Type(ty) => Some(ty),
            _ => None,
        }
    }

    fn value(&self, name: &str) -> Option<&Value> {
        self.entry(name).map(|entry| &entry.value)
    }

    fn entry(&self, name: &str) -> Option<&Entry> {
        self.0.iter().find(|entry| entry.row.name == name)
    }
}

/// Takes the comma after an argument.
pub(crate) fn comma(input: ParseStream<'_>, errors: &mut Errors) {
    if input.is_empty() || input.parse::<Token![,]>().is_ok() {
        return;
    }
    missing_comma(input, errors);
    // If a key follows, the comma is all that is missing.
    if !input.peek(Ident::peek_any) {
        skip(input);
        let _comma: Option<Token![,]> = input.parse().ok();
    }
}

fn missing_comma(input: ParseStream<'_>, errors: &mut Errors) {
    errors.add(input.error("write a comma before this"));
}

fn not_a_key(tokens: TokenStream, keys: &[Key], target: Target, errors: &mut Errors) {
    errors.push(tokens, format!("write a key here\n{}", usage(keys, target)));
}

fn unknown_key(ident: &Ident, keys: &[Key], target: Target, errors: &mut Errors) {
    let name = ident.to_string();
    let guess = guess(&name, keys.iter().map(|key| key.name));
    errors.push(ident, format!("unknown key `{name}`{guess}\n{}", usage(keys, target)));
}

/// The span covers both keys.
fn duplicate_key(second: &Ident, first: &Ident, errors: &mut Errors) {
    errors.push(quote!(#first #second), format!("`{second}` is given twice: keep one of the two"));
}

fn misplaced_key(ident: &Ident, key: &Key, target: Target, errors: &mut Errors) {
    let homes: Vec<_> = key.targets.iter().map(|home| home.description()).collect();
    errors.push(
        ident,
        format!(
            "`{ident}` does not belong on {}: write it on {}",
            target.description(),
            homes.join(" or ")
        ),
    );
}

/// The known name that is most like this one, as the end of a message.
fn guess(name: &str, known: impl Iterator<Item = &'static str>) -> String {
    let likeness = |key: &str| strsim::normalized_damerau_levenshtein(name, key);
    let nearest =
        known.filter(|key| likeness(key) >= 0.5).max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    nearest.map_or(String::new(), |key| format!(", did you mean `{key}`?"))
}
