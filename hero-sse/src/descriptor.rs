//! The declaration of an endpoint, before any options are known.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt::Display;

use axum::response::Response;

use crate::event::TrapNames;
use crate::frame::EventName;
use crate::permission::{Captures, InvalidPermission, PermissionRule, split_captures};
use crate::policy::settings::descriptor_methods;
use crate::policy::settings::types::*;
use crate::policy::{Method, PolicyOverrides};
use crate::refusal::{RefusalFormat, RefusalInfo};
use crate::setup::{SetupError, SetupErrorKind};
use crate::telemetry;

/// The declaration of one endpoint, made by `#[sse_endpoint]`.
///
/// It is constant data. Your code can read it; generated code fills it in.
#[derive(Clone, Debug)]
pub struct Descriptor {
    pub(crate) name: &'static str,
    pub(crate) path: &'static str,
    pub(crate) docs: &'static str,
    pub(crate) location: Location,
    pub(crate) event: Option<&'static str>,
    pub(crate) access: Access,
    pub(crate) method: Method,
    pub(crate) deprecated: bool,
    pub(crate) captures: Option<usize>,
    pub(crate) headed: bool,
    pub(crate) refusals: Option<fn(&RefusalInfo<'_>) -> Response>,
    pub(crate) traps: TrapNames,
    pub(crate) overrides: PolicyOverrides,
}

/// The permissions that a declaration requires, or the text that cannot be one.
pub type Rule = Result<PermissionRule, InvalidPermission>;

/// Where an endpoint is declared.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Location {
    pub(crate) file: &'static str,
    pub(crate) line: u32,
}

/// The callers that may open an endpoint.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Access {
    /// All callers: the endpoint is declared `public`.
    Public,
    /// Callers with a valid token and, if there is a rule, its permissions.
    Token { rule: Option<fn() -> Rule> },
}

impl Descriptor {
    /// Declares an endpoint called `name` at `path`, relative to where it will be mounted.
    pub const fn new(name: &'static str, path: &'static str) -> Self {
        Self {
            name,
            path,
            docs: "",
            location: Location { file: "", line: 0 },
            event: None,
            access: Access::Token { rule: None },
            method: Method::Get,
            deprecated: false,
            captures: None,
            headed: false,
            refusals: None,
            traps: TrapNames::NONE,
            overrides: PolicyOverrides::NONE,
        }
    }

    /// Returns the endpoint's name, which is the function's.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Returns the path as declared, without the prefix it is mounted at.
    pub const fn path(&self) -> &'static str {
        self.path
    }

    /// Returns the doc comment of the function.
    pub const fn documentation(&self) -> &'static str {
        self.docs
    }

    /// Returns whether the endpoint is declared `deprecated`.
    pub const fn is_deprecated(&self) -> bool {
        self.deprecated
    }

    /// Sets the file and line of the declaration.
    #[doc(hidden)]
    #[must_use]
    pub const fn at(mut self, file: &'static str, line: u32) -> Self {
        self.location = Location { file, line };
        self
    }

    /// Sets the doc comment.
    #[doc(hidden)]
    #[must_use]
    pub const fn docs(mut self, docs: &'static str) -> Self {
        self.docs = docs;
        self
    }

    /// Sets the name of events without a name of their own.
    #[doc(hidden)]
    #[must_use]
    pub const fn event(mut self, name: &'static str) -> Self {
        self.event = Some(name);
        self
    }

    /// Sets the permissions that a caller needs. A function, because not all of them are constant.
    #[doc(hidden)]
    #[must_use]
    pub const fn permission(mut self, rule: fn() -> Rule) -> Self {
        self.access = Access::Token { rule: Some(rule) };
        self
    }

    /// Opens the endpoint to all callers.
    #[doc(hidden)]
    #[must_use]
    pub const fn public(mut self) -> Self {
        self.access = Access::Public;
        self
    }

    /// Sets the method.
    #[doc(hidden)]
    #[must_use]
    pub const fn method(mut self, method: Method) -> Self {
        self.method = method;
        self
    }

    /// Marks the endpoint as deprecated.
    #[doc(hidden)]
    #[must_use]
    pub const fn deprecated(mut self) -> Self {
        self.deprecated = true;
        self
    }

    /// Says that the function returns headers with its stream.
    #[doc(hidden)]
    #[must_use]
    pub const fn headed(mut self) -> Self {
        self.headed = true;
        self
    }

    /// Sets the format of refusals.
    #[doc(hidden)]
    #[must_use]
    pub const fn refusals(mut self, format: fn(&RefusalInfo<'_>) -> Response) -> Self {
        self.refusals = Some(format);
        self
    }

    /// Sets how many captures an argument takes by position, if it does.
    #[doc(hidden)]
    #[must_use]
    pub const fn captures(mut self, captures: Option<usize>) -> Self {
        if captures.is_some() {
            self.captures = captures;
        }
        self
    }
}

impl Descriptor {
    /// Sets the names of the events that an `EventSource` passes to handlers of its own.
    #[doc(hidden)]
    #[must_use]
    pub const fn traps(mut self, of_stream: TrapNames, of_result: TrapNames) -> Self {
        self.traps = of_stream.or(of_result);
        self
    }
}

/// Called by generated code: one method for each key that is a setting.
impl Descriptor {
    descriptor_methods!();
}

/// Says how to write captures.
pub(crate) const MALFORMED_CAPTURES: &str =
    "the path's captures are malformed: write `{name}`, and `{*rest}` at the end";

const PUBLIC_AND_PERMISSION: &str = "is public and requires a permission; choose one";

/// A declaration with checked texts, which the server maps.
#[derive(Clone, Debug)]
pub(crate) struct Declaration {
    /// Includes the prefix that it is mounted at.
    pub(crate) path: String,
    prefix: usize,
    pub(crate) location: Location,
    pub(crate) event: Option<EventName>,
    /// `None`: public.
    pub(crate) rule: Option<PermissionRule>,
    pub(crate) method: Method,
    pub(crate) deprecated: bool,
    /// Whether the function returns headers with its stream.
    pub(crate) headed: bool,
    /// Its own format of refusals.
    pub(crate) refusals: Option<RefusalFormat>,
    /// Names of its events that an `EventSource` passes to handlers of its own.
    pub(crate) traps: TrapNames,
    pub(crate) overrides: PolicyOverrides,
}

impl Declaration {
    /// Declares an endpoint that requires a valid token and changes no setting.
    pub(crate) fn new(prefix: &str, path: &str, location: Location) -> Self {
        Self {
            path: format!("{prefix}{path}"),
            prefix: prefix.len(),
            location,
            event: None,
            rule: Some(PermissionRule::any_token()),
            method: Method::Get,
            deprecated: false,
            headed: false,
            refusals: None,
            traps: TrapNames::NONE,
            overrides: PolicyOverrides::NONE,
        }
    }

    /// Checks `descriptor`, and adds its mistakes to `mistakes`.
    pub(crate) fn from_descriptor(
        prefix: &str,
        descriptor: &Descriptor,
        mistakes: &mut Vec<SetupError>,
    ) -> Self {
        let mut declaration = Self::new(prefix, descriptor.path, descriptor.location);
        declaration.overrides = descriptor.overrides.clone();
        declaration.method = descriptor.method;
        declaration.deprecated = descriptor.deprecated;
        declaration.headed = descriptor.headed;
        declaration.refusals =
            descriptor.refusals.map(|format| RefusalFormat::new(format, telemetry::panicked));
        declaration.traps = descriptor.traps;
        if let Some(name) = descriptor.event {
            declaration.name_events(name, mistakes);
        }
        // The macro has compared them with the declared path; a prefix can have more.
        let captures = captures_and_literals(&declaration.path).map(|(captures, _)| captures.len());
        if let (Some(taken), Some(captures)) = (descriptor.captures, captures)
            && taken != captures
        {
            mistakes.push(declaration.mistake(&format_args!(
                "its `Path` takes captures by position ({taken}), and with the prefix there are {captures}: \
                 take them by name, with a struct"
            )));
        }
        match descriptor.access {
            Access::Public => declaration.open_to_all(mistakes),
            Access::Token { rule: None } => {}
            Access::Token { rule: Some(rule) } => declaration.require(rule(), mistakes),
        }
        declaration
    }

    pub(crate) fn name_events(
        &mut self,
        name: impl Into<Cow<'static, str>>,
        to: &mut Vec<SetupError>,
    ) {
        match EventName::new(name) {
            Ok(name) => self.event = Some(name),
            Err(error) => to.push(self.mistake(&error)),
        }
    }

    /// Returns the name `error` or `open` that its events have, if they have one.
    pub(crate) fn trap(&self) -> Option<&str> {
        let declared = self.event.as_ref().filter(|name| name.is_trap()).map(EventName::as_str);
        let default = self.traps.default.filter(|_| self.event.is_none());
        declared.or(self.traps.own).or(default)
    }

    pub(crate) fn require(&mut self, rule: Rule, to: &mut Vec<SetupError>) {
        match (rule, self.rule.take()) {
            (Ok(more), Some(rule)) if rule.is_empty() => self.rule = Some(more),
            (Ok(more), Some(rule)) => self.rule = Some(rule.and(more)),
            (Ok(_), None) => to.push(self.mistake(&PUBLIC_AND_PERMISSION)),
            (Err(error), rule) => {
                self.rule = rule;
                to.push(self.mistake(&error));
            }
        }
    }

    pub(crate) fn open_to_all(&mut self, to: &mut Vec<SetupError>) {
        if self.rule.take().is_some_and(|rule| !rule.is_empty()) {
            to.push(self.mistake(&PUBLIC_AND_PERMISSION));
        }
    }

    /// Returns what is wrong with the captures in its permissions.
    pub(crate) fn permission_faults(&self) -> Vec<String> {
        let rule = self.rule.as_ref().filter(|rule| rule.has_captures());
        // Malformed braces of the path are a fault of their own.
        rule.zip(captures_and_literals(&self.path))
            .map(|(rule, (captures, _))| rule.faults(&captures))
            .unwrap_or_default()
    }

    /// Finds what is wrong with a path, except for what the router finds.
    pub(crate) fn check_path(&self) -> Result<(), String> {
        let (prefix, path) = self.path.split_at_checked(self.prefix).unwrap_or_default();
        if !path.starts_with('/') {
            return Err("the path must begin with `/`".to_owned());
        }
        if !prefix.is_empty() && (!prefix.starts_with('/') || prefix.ends_with('/')) {
            return Err("the prefix must begin with `/` and not end with one".to_owned());
        }
        let Some((captures, literals)) = captures_and_literals(&self.path) else {
            return Err(MALFORMED_CAPTURES.to_owned());
        };
        let illegal = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '?' | '#');
        if literals.contains(illegal) {
            return Err("a path has no white space, `?` or `#`: it could never match".to_owned());
        }
        if let Some(c) = literals.chars().find(|c| !c.is_ascii() || r#""<>^`|\"#.contains(*c)) {
            let encoded: String = c.to_string().bytes().map(|b| format!("%{b:02X}")).collect();
            return Err(format!("no URL contains `{c}`: write `{encoded}`"));
        }
        // `%2e` is a dot to clients, too.
        let mut segments = self.path.split('/').map(|s| s.to_ascii_lowercase().replace("%2e", "."));
        if segments.any(|segment| segment == "." || segment == "..") {
            return Err("clients resolve `.` and `..`: it could never match".to_owned());
        }
        if self.path.split('/').any(|segment| segment.starts_with([':', '*'])) {
            return Err("captures are written `{name}` and `{*rest}`".to_owned());
        }
        let mut names = HashSet::new();
        // The router finds `{*}`, which has no name.
        for name in captures.iter().map(|name| name.strip_prefix('*').unwrap_or(name)) {
            let of_name = |c: char| c == '_' || c.is_alphanumeric();
            if name.starts_with(char::is_numeric) || !name.chars().all(of_name) {
                return Err(format!(
                    "the capture `{name}` must be named by letters, digits and `_`, no digit first"
                ));
            }
            if !name.is_empty() && !names.insert(name) {
                return Err("two captures have the same name".to_owned());
            }
        }
        Ok(())
    }

    /// Makes an error of a mistake in this declaration, whose place comes first.
    pub(crate) fn mistake(&self, what: &dyn Display) -> SetupError {
        let (Location { file, line }, path) = (self.location, &self.path);
        let message = format_args!("{file}:{line}: endpoint {path}: {what}");
        SetupError::new(SetupErrorKind::Endpoint, path, message)
    }
}

/// Returns the names of a path's captures and the text around them; `None` if its braces are malformed. `{{`
/// and `}}` are braces of the text.
fn captures_and_literals(path: &str) -> Option<(Vec<String>, String)> {
    let path = path.replace("{{", "").replace("}}", "");
    let Captures { captures, rest } = split_captures(&path)?;
    let literals = captures.iter().map(|(before, _)| *before).chain([rest]).collect();
    Some((captures.iter().map(|(_, name)| (*name).to_owned()).collect(), literals))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// The macros read paths by themselves, from the same table.
    #[test]
    fn captures_are_read_as_the_macros_read_them() {
        let table = include_str!("../../tests/captures.json");
        let table: BTreeMap<String, Vec<String>> = serde_json::from_str(table).expect("JSON");
        assert!(table.len() > 10);
        for (path, captures) in table {
            let read = captures_and_literals(&path).map(|(captures, _)| captures);
            assert_eq!(read, Some(captures), "{path}");
        }
    }
}
