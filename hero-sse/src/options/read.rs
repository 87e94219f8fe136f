//! Reads options from files, texts and environment variables. All mistakes are collected.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::{ENDPOINTS, SECTION, SetupError, SetupErrorKind, SetupErrors, SseOptions};
use crate::policy::PolicyOverrides;
use crate::policy::settings::{ENDPOINT_SETTINGS, SERVER_SETTINGS};
use crate::telemetry;

const VARIABLE_PREFIX: &str = "HERO_SSE_";

/// Reading options.
impl SseOptions {
    /// Reads the section `SseOptions` of a TOML text.
    ///
    /// # Errors
    ///
    /// Every mistake in the section, with its key and the accepted values.
    #[cfg(feature = "toml")]
    pub fn from_toml(text: &str) -> Result<Self, SetupErrors> {
        Self::from_document(toml(text), "options")
    }

    /// Reads the section `SseOptions` of a JSON text.
    ///
    /// # Errors
    ///
    /// Every mistake in the section, with its key and the accepted values.
    pub fn from_json(text: &str) -> Result<Self, SetupErrors> {
        Self::from_document(json(text), "options")
    }

    /// Reads the section `SseOptions` of a file. A file whose name ends in `.json` is JSON, any other is TOML,
    /// which needs the feature `toml`. Without the section every setting has its default. Blocks while it reads.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, if it is TOML and the feature is off, and as [`from_json`](Self::from_json).
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, SetupErrors> {
        let (mut options, mut mistakes) = (Self::default(), Vec::new());
        options.read_file(path.as_ref(), &mut mistakes);
        SetupErrors::none_or(mistakes).map(|()| options)
    }

    fn from_document(document: Result<Value, String>, source: &str) -> Result<Self, SetupErrors> {
        let (mut options, mut mistakes) = (Self::default(), Vec::new());
        options.read_document(document, source, &mut mistakes);
        SetupErrors::none_or(mistakes).map(|()| options)
    }

    /// Changes what the file sets.
    pub(crate) fn read_file(&mut self, path: &Path, mistakes: &mut Vec<SetupError>) {
        let name = path.display().to_string();
        match std::fs::read_to_string(path) {
            Err(error) => {
                let message = format_args!("options file {name}: {error}");
                mistakes.push(SetupError::new(SetupErrorKind::Options, &name, message));
            }
            Ok(text) if path.extension().is_some_and(|extension| extension == "json") => {
                self.read_document(json(&text), &name, mistakes);
            }
            Ok(text) => self.read_document(toml(&text), &name, mistakes),
        }
    }

    fn read_document(
        &mut self,
        document: Result<Value, String>,
        source: &str,
        mistakes: &mut Vec<SetupError>,
    ) {
        let mut found = Vec::new();
        let of_document = |what| SetupError::new(SetupErrorKind::Options, source, what);
        match document {
            Ok(Value::Object(document)) => match document.get(SECTION) {
                Some(section) => self.read_section(section, &mut found),
                None => {
                    let similar = document.keys().find(|key| key.eq_ignore_ascii_case(SECTION));
                    let cure = |key| of_document(format!("[{key}]: spell it [{SECTION}]"));
                    found.extend(similar.map(cure));
                }
            },
            Ok(_) => {
                found.push(of_document(format!("expected a table with the section {SECTION}")));
            }
            Err(error) => found.push(of_document(error)),
        }
        mistakes.extend(found.into_iter().map(|mistake| mistake.within(source)));
    }

    fn read_section(&mut self, section: &Value, mistakes: &mut Vec<SetupError>) {
        let Value::Object(section) = section else {
            mistakes.push(SetupError::option(SECTION, "expected a table of settings"));
            return;
        };
        for (key, value) in section {
            let place = format!("{SECTION}.{key}");
            if key != ENDPOINTS {
                let result = self.read_setting(key, value);
                mistakes.extend(result.err().map(|error| SetupError::option(&place, error)));
                continue;
            }
            let Value::Object(tables) = value else {
                mistakes.push(SetupError::option(&place, "expected a table for each path"));
                continue;
            };
            for (path, table) in tables {
                self.read_endpoint(path, table, mistakes);
            }
        }
    }

    /// Reads a key that stands directly in the section.
    fn read_setting(&mut self, key: &str, value: &Value) -> Result<(), String> {
        if let Some(row) = SERVER_SETTINGS.iter().find(|row| row.key == key) {
            return (row.read)(&mut self.server, value);
        }
        match ENDPOINT_SETTINGS.iter().find(|row| row.key == key && !row.method.is_empty()) {
            Some(row) => (row.read)(&mut self.general, value),
            None => Err(unknown(key, server_keys())),
        }
    }

    fn read_endpoint(&mut self, path: &str, table: &Value, mistakes: &mut Vec<SetupError>) {
        let place = format!("{SECTION}.{ENDPOINTS}.{path:?}");
        let Value::Object(table) = table else {
            mistakes.push(SetupError::option(&place, "expected a table of settings"));
            return;
        };
        if !path.starts_with('/') {
            mistakes.push(SetupError::option(&place, "a path begins with `/`"));
        }
        let existing = self.endpoints.iter().position(|(of, _)| of == path);
        let mut overrides =
            existing.map_or(PolicyOverrides::NONE, |place| self.endpoints.remove(place).1);
        for (key, value) in table {
            let result = match ENDPOINT_SETTINGS.iter().find(|row| row.key == key) {
                Some(row) => (row.read)(&mut overrides, value),
                None if SERVER_SETTINGS.iter().any(|row| row.key == key) => {
                    Err("can only be set for the whole server".to_owned())
                }
                None => Err(unknown(key, endpoint_keys())),
            };
            let place = format!("{place}.{key}");
            mistakes.extend(result.err().map(|error| SetupError::option(&place, error)));
        }
        self.endpoints.push((path.to_owned(), overrides));
    }

    /// Reads the `HERO_SSE_*` variables among `variables`, and ignores all others.
    pub(crate) fn read_environment(
        &mut self,
        variables: impl IntoIterator<Item = (String, String)>,
        mistakes: &mut Vec<SetupError>,
    ) {
        for (variable, text) in variables {
            let Some(rest) = variable.strip_prefix(VARIABLE_PREFIX) else {
                continue;
            };
            let key = pascal_case(rest);
            // Cluster managers set variables named after a service, which can be called `hero-sse`. Only what
            // resembles a key is a mistake.
            if nearest(&key, server_keys()).is_none() {
                telemetry::unknown_variable(&variable);
                continue;
            }
            // A variable is always text, so numbers and truth values are read out of it.
            let value = serde_json::from_str(&text)
                .ok()
                .filter(|value: &Value| value.is_boolean() || value.is_u64())
                .unwrap_or(Value::String(text));
            mistakes.extend(self.read_setting(&key, &value).err().map(|error| {
                let message = format_args!("variable {variable}: {error}");
                SetupError::new(SetupErrorKind::Environment, &variable, message)
            }));
        }
    }
}

/// The keys that may stand directly in the section.
fn server_keys() -> impl Iterator<Item = &'static str> + Clone {
    let general = ENDPOINT_SETTINGS.iter().filter(|row| !row.method.is_empty());
    SERVER_SETTINGS.iter().map(|row| row.key).chain(general.map(|row| row.key))
}

/// The keys that may stand in the table of an endpoint.
fn endpoint_keys() -> impl Iterator<Item = &'static str> + Clone {
    ENDPOINT_SETTINGS.iter().map(|row| row.key)
}

fn unknown(key: &str, known: impl Iterator<Item = &'static str> + Clone) -> String {
    let guess = nearest(key, known.clone());
    let guess = guess.map(|key| format!("did you mean {key}? ")).unwrap_or_default();
    let known: Vec<_> = known.collect();
    format!("unknown key; {guess}Known are {}", known.join(", "))
}

/// Returns the key that `name` resembles most, if it resembles one.
fn nearest(name: &str, known: impl Iterator<Item = &'static str>) -> Option<&'static str> {
    known
        .map(|key| (strsim::normalized_damerau_levenshtein(key, name), key))
        .filter(|(likeness, _)| *likeness >= 0.6)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, key)| key)
}

/// Reads the content of the section, for users of a configuration crate.
impl<'de> Deserialize<'de> for SseOptions {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let section = Value::deserialize(deserializer)?;
        let (mut options, mut mistakes) = (Self::default(), Vec::new());
        options.read_section(&section, &mut mistakes);
        SetupErrors::none_or(mistakes).map(|()| options).map_err(serde::de::Error::custom)
    }
}

/// The error has only the line and the kind of the mistake. The line's text may belong to another section, and
/// hold a secret of that one.
#[cfg(feature = "toml")]
fn toml(text: &str) -> Result<Value, String> {
    toml::from_str(text).map_err(|error: toml::de::Error| {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        format!("not TOML: line {line}: {}", error.message())
    })
}

#[cfg(not(feature = "toml"))]
fn toml(_: &str) -> Result<Value, String> {
    Err("TOML is read with the feature `toml` of hero-sse only: enable it, or give the file as JSON, with the ending \
         .json"
        .to_owned())
}

fn json(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"))
}

/// Turns `WRITE_TIMEOUT` into `WriteTimeout`.
fn pascal_case(variable: &str) -> String {
    let word = |word: &str| {
        let mut letters = word.chars();
        let first = letters.next().map(|first| first.to_ascii_uppercase());
        first.into_iter().chain(letters.map(|c| c.to_ascii_lowercase())).collect::<String>()
    };
    variable.split('_').map(word).collect()
}
