//! Event names: which are legal, and the one a type has by default.

use syn::LitStr;

use crate::errors::Errors;

/// The longest event name in bytes.
const LONGEST: usize = 256;

/// What is wrong with a name, and an example of a legal one.
pub(crate) struct Fault {
    pub(crate) what: String,
    pub(crate) instead: &'static str,
}

/// Reports what is wrong with an event name that is written out.
pub(crate) fn check(name: &LitStr, errors: &mut Errors) {
    for Fault { what, instead } in faults(&name.value()) {
        errors.push(name, format!("{what}: write one such as {instead:?}"));
    }
}

/// Everything that is wrong with an event name.
pub(crate) fn faults(name: &str) -> impl Iterator<Item = Fault> {
    let rules: [fn(&str) -> Option<Fault>; 4] =
        [event_empty, event_with_control_character, event_too_long, event_reserved];
    rules.into_iter().filter_map(move |rule| rule(name))
}

/// An empty `event:` line means `message` to a browser.
fn event_empty(name: &str) -> Option<Fault> {
    name.is_empty().then(|| fault("the event's name is empty", "usage"))
}

/// A line ending would end the field, and could end the frame.
fn event_with_control_character(name: &str) -> Option<Fault> {
    let odd = name.chars().find(|c| c.is_control())?;
    let what = format!("the event's name contains the control character U+{:04X}", u32::from(odd));
    Some(fault(what, "usage"))
}

fn event_too_long(name: &str) -> Option<Fault> {
    let length = name.len();
    (length > LONGEST).then(|| {
        fault(format!("the event's name has {length} bytes, and {LONGEST} are allowed"), "usage")
    })
}

/// `error` and `open` are legal: the endpoint decides whether it can send them.
fn event_reserved(name: &str) -> Option<Fault> {
    name.starts_with("hero.").then(|| {
        let what = format!("`{name}` is reserved, since hero-sse's own names start with `hero.`");
        fault(what, "usage")
    })
}

/// Whether an `EventSource` passes an event of this name to the handlers of the connection itself.
pub(crate) fn is_trap(name: &str) -> bool {
    matches!(name, "error" | "open")
}

fn fault(what: impl Into<String>, instead: &'static str) -> Fault {
    Fault { what: what.into(), instead }
}

/// The cases for names, as serde calls them.
pub(crate) const CASES: &[&str] = &[
    "kebab-case",
    "snake_case",
    "camelCase",
    "PascalCase",
    "lowercase",
    "UPPERCASE",
    "SCREAMING_SNAKE_CASE",
    "SCREAMING-KEBAB-CASE",
];

/// The name of a type or variant in one of the [`CASES`]: in kebab case `BuildLog` is `build-log`,
/// `HTTPError` is `http-error`.
pub(crate) fn in_case(ident: &str, case: &str) -> String {
    let words = words(ident);
    let capitalised = || words.iter().map(|word| pascal_case(word));
    match case {
        "snake_case" => words.join("_"),
        "camelCase" => {
            words.iter().take(1).cloned().chain(capitalised().skip(1)).collect::<String>()
        }
        "PascalCase" => capitalised().collect(),
        "lowercase" => words.concat(),
        "UPPERCASE" => words.concat().to_uppercase(),
        "SCREAMING_SNAKE_CASE" => words.join("_").to_uppercase(),
        "SCREAMING-KEBAB-CASE" => words.join("-").to_uppercase(),
        _ => words.join("-"),
    }
}

/// The words of a name, in lower case.
fn words(ident: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut before = None;
    let mut letters = ident.chars().peekable();
    while let Some(letter) = letters.next() {
        if letter == '_' {
            before = None;
            continue;
        }
        let starts_word = match before {
            None => true,
            Some(before) => {
                let in_acronym = char::is_uppercase(before)
                    && !letters.peek().is_some_and(|next| next.is_lowercase());
                letter.is_uppercase() && !in_acronym
            }
        };
        if starts_word {
            words.push(String::new());
        }
        if let Some(word) = words.last_mut() {
            word.extend(letter.to_lowercase());
        }
        before = Some(letter);
    }
    words
}

/// `drop_oldest` as `DropOldest`.
pub(crate) fn pascal_case(word: &str) -> String {
    let mut pascal = String::new();
    for part in word.split('_') {
        let mut letters = part.chars();
        pascal.extend(letters.next().into_iter().flat_map(char::to_uppercase));
        pascal.push_str(letters.as_str());
    }
    pascal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kebab_case_keeps_words_apart() {
        for (ident, kebab) in [
            ("Usage", "usage"),
            ("BuildLog", "build-log"),
            ("HTTPError", "http-error"),
            ("LogV2", "log-v2"),
            ("Log2Line", "log2-line"),
            ("A", "a"),
            ("AB", "ab"),
            ("snake_case", "snake-case"),
            ("_Hidden_", "hidden"),
            ("Ändern", "ändern"),
        ] {
            assert_eq!(in_case(ident, "kebab-case"), kebab);
        }
    }

    #[test]
    fn every_case_is_its_own() {
        let names = CASES.iter().map(|case| in_case("BuildLogLine", case));
        let expected = [
            "build-log-line",
            "build_log_line",
            "buildLogLine",
            "BuildLogLine",
            "buildlogline",
            "BUILDLOGLINE",
            "BUILD_LOG_LINE",
            "BUILD-LOG-LINE",
        ];
        assert!(names.eq(expected));
    }

    #[test]
    fn a_plain_name_has_no_faults() {
        for name in ["usage", "usage.read", "hero", "opened", "Über uns", "error", "open"] {
            assert_eq!(faults(name).count(), 0, "{name}");
        }
    }

    #[test]
    fn each_fault_is_named_once() {
        let long = "x".repeat(257);
        for name in ["", "a\nb", "a\u{0}", "a\u{85}", &long, "hero.gap"] {
            assert_eq!(faults(name).count(), 1, "{name:?}");
        }
    }
}
