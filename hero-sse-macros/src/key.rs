//! The table of an attribute's keys. A key is one row: parser, messages, documentation and tests
//! all read it from there.

use std::fmt::Write as _;

/// The width at which lists in messages wrap.
const LINE: usize = 80;

/// A row of a table of keys.
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) takes: ValueKind,
    /// The key with a legal value, for messages and documentation.
    pub(crate) example: &'static str,
    pub(crate) targets: &'static [Target],
}

/// The kind of value that a key takes.
#[derive(Clone, Copy)]
pub(crate) enum ValueKind {
    Nothing,
    Text,
    Duration,
    DurationOrOff,
    Flag,
    Count,
    /// One of these words, in quotes: the variants of the enum of that name, in snake case.
    OneOf(&'static str, &'static [&'static str]),
    /// A list of these words in brackets: variants of the enum of that name, in snake case.
    SomeOf(&'static str, &'static [&'static str]),
    Permissions,
    Path,
    Type,
}

/// The kind of item that an attribute is on.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Target {
    Function,
    Struct,
    Enum,
    Variant,
    Field,
}

/// Writes a table of keys, and the macro that renders the same table as documentation: the two
/// cannot differ.
///
/// The last column is the meaning of a key, or `setting`. A setting has a row in the library, too
/// (`hero-sse/src/policy/settings.rs`), which has its meaning and its default, and which documents it. A test of
/// the library compares the two tables.
macro_rules! keys {
    (
        $table:ident, $documentation:ident;
        $($name:literal, $takes:expr, $example:literal, [$($target:ident)*], $meaning:tt;)*
    ) => {
        pub(crate) const $table: &[$crate::key::Key] = {
            use $crate::key::Target::*;
            use $crate::key::ValueKind::*;
            &[$($crate::key::Key {
                name: $name,
                takes: $takes,
                example: $example,
                targets: &[$($target),*],
            }),*]
        };

        macro_rules! $documentation {
            () => {
                concat!(
                    "| key | on | meaning |\n|---|---|---|\n",
                    $($crate::key::documentation_row!($meaning, $example, $($target)*),)*
                )
            };
        }
        pub(crate) use $documentation;
    };
}
pub(crate) use keys;

macro_rules! documentation_row {
    (setting, $($other:tt)*) => {
        ""
    };
    ($meaning:literal, $example:literal, $($target:ident)*) => {
        concat!("| `", $example, "` | ", $(stringify!($target), " ",)* "| ", $meaning, " |\n")
    };
}
pub(crate) use documentation_row;

impl ValueKind {
    /// Whether `"off"` is a value.
    pub(crate) fn allows_off(self) -> bool {
        matches!(self, Self::DurationOrOff)
    }

    /// The legal forms of a duration, for messages.
    pub(crate) fn duration_forms(self) -> String {
        let off = if self.allows_off() { ", or \"off\"" } else { "" };
        format!("durations are \"500ms\", \"15s\", \"2m\", \"1h\" or \"00:00:05\" (hh:mm:ss){off}")
    }
}

impl Target {
    pub(crate) fn description(self) -> &'static str {
        match self {
            Self::Function => "an endpoint",
            Self::Struct => "a struct",
            Self::Enum => "an enum",
            Self::Variant => "an enum variant",
            Self::Field => "a field",
        }
    }
}

/// The keys that are legal on this target, each with an example value.
pub(crate) fn usage(keys: &[Key], target: Target) -> String {
    let legal = keys.iter().filter(|key| key.targets.contains(&target));
    let mut usage = format!("{} takes", target.description());
    let mut width = usage.len();
    for (n, key) in legal.enumerate() {
        let comma = if n == 0 { "" } else { "," };
        // Writing to a `String` cannot fail.
        if width + key.example.len() > LINE {
            let _ = write!(usage, "{comma}\n    `{}`", key.example);
            width = key.example.len();
        } else {
            let _ = write!(usage, "{comma} `{}`", key.example);
            width += key.example.len() + 4;
        }
    }
    usage
}

#[cfg(test)]
pub(crate) mod tests {
    use proc_macro2::TokenStream;

    use super::*;

    /// Each row's example is legal and changes the expansion. A key that no rule reads would not.
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
