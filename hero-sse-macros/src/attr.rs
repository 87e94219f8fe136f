//! Reads `key = value` lists by a table of keys.
//!
//! A key is one row of such a table: parser, messages, documentation and tests all take it from
//! there. A mistake has a function of its name that reports it, and a case in `tests/ui`.

use proc_macro2::TokenStream;
use quote::quote;
use syn::ext::IdentExt;
use syn::parse::ParseStream;
use syn::{Ident, LitBool, LitInt, LitStr, Path, Token, Type};

use crate::errors::Errors;
use crate::value::{Permissions, Takes, Value, skip};

/// Where lists in messages break.
const LINE: usize = 80;

/// A row of a table of keys.
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) takes: Takes,
    /// How it is written, for messages and documentation.
    pub(crate) example: &'static str,
    pub(crate) places: &'static [Place],
}

/// Writes a table of keys, and the macro that makes of it the table in the documentation: the two
/// cannot drift apart.
macro_rules! keys {
    (
        $table:ident, $documentation:ident;
        $($name:literal, $takes:expr, $example:literal, [$($place:ident)*], $meaning:literal;)*
    ) => {
        pub(crate) const $table: &[$crate::attr::Key] = {
            use $crate::attr::Place::*;
            use $crate::value::Takes::*;
            &[$($crate::attr::Key {
                name: $name,
                takes: $takes,
                example: $example,
                places: &[$($place),*],
            }),*]
        };

        macro_rules! $documentation {
            () => {
                concat!(
                    "| key | on | meaning |\n|---|---|---|\n",
                    $("| `", $example, "` | ", $(stringify!($place), " ",)* "| ", $meaning, " |\n",)*
                )
            };
        }
        pub(crate) use $documentation;
    };
}
pub(crate) use keys;

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
    row: &'static Key,
    value: Value,
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
            not_a_key(skip(input), keys, place, errors);
            return;
        };
        // A name may have a row for one place and another row for the next.
        let name = ident.to_string();
        let mut rows = keys.iter().filter(|key| key.name == name);
        let here = rows.clone().find(|key| key.places.contains(&place));
        let Some(row) = here.or_else(|| rows.next()) else {
            skip(input);
            unknown_key(&ident, keys, place, errors);
            return;
        };
        let value = Value::read(input, &ident, row, errors);
        if !row.places.contains(&place) {
            misplaced_key(&ident, row, place, errors);
        } else if let Some(first) = self.entry(row.name) {
            duplicate_key(&ident, &first.key, errors);
        } else {
            self.0.push(Entry { key: ident, row, value });
        }
    }

    /// The key itself, whatever its value: for keys that take none, and for messages.
    pub(crate) fn key(&self, name: &str) -> Option<&Ident> {
        self.entry(name).map(|entry| &entry.key)
    }

    /// Whether nothing is said.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The row of a key that is given.
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

fn not_a_key(tokens: TokenStream, keys: &[Key], place: Place, errors: &mut Errors) {
    errors.push(tokens, format!("write a key here\n{}", usage(keys, place)));
}

fn unknown_key(ident: &Ident, keys: &[Key], place: Place, errors: &mut Errors) {
    let name = ident.to_string();
    let guess = guess(&name, keys.iter().map(|key| key.name));
    errors.push(ident, format!("unknown key `{name}`{guess}\n{}", usage(keys, place)));
}

/// Underlines everything from the first to the second.
fn duplicate_key(second: &Ident, first: &Ident, errors: &mut Errors) {
    errors.push(quote!(#first #second), format!("`{second}` is given twice: keep one of the two"));
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

/// What may have been meant.
pub(crate) fn guess(name: &str, known: impl Iterator<Item = &'static str>) -> String {
    let likeness = |key: &str| strsim::normalized_damerau_levenshtein(name, key);
    let nearest =
        known.filter(|key| likeness(key) >= 0.5).max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    nearest.map_or(String::new(), |key| format!(", did you mean `{key}`?"))
}

/// The keys that are legal here, as they are written.
fn usage(keys: &[Key], place: Place) -> String {
    let here = keys.iter().filter(|key| key.places.contains(&place));
    let mut usage = format!("{} takes", place.described());
    let mut width = usage.len();
    for (n, key) in here.enumerate() {
        let comma = if n == 0 { "" } else { "," };
        if width + key.example.len() > LINE {
            usage.push_str(&format!("{comma}\n    `{}`", key.example));
            width = key.example.len();
        } else {
            usage.push_str(&format!("{comma} `{}`", key.example));
            width += key.example.len() + 4;
        }
    }
    usage
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
