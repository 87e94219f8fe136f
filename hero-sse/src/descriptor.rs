//! What a declaration says of an endpoint, before any options are known.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt::Display;
use std::time::Duration;

use crate::frame::EventName;
use crate::permission::{Permission, PermissionRule};
use crate::policy::PolicyOverrides;

/// The declaration of one endpoint: const data, made by `#[sse_endpoint]` or by the builder.
///
/// Its methods are what generated code calls; an application reads it.
#[derive(Clone, Debug)]
pub struct Descriptor {
    pub(crate) name: &'static str,
    pub(crate) path: &'static str,
    pub(crate) docs: &'static str,
    pub(crate) location: Location,
    pub(crate) event: Option<&'static str>,
    pub(crate) access: Access,
    pub(crate) overrides: PolicyOverrides,
}

/// Where an endpoint is declared.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Location {
    pub(crate) file: &'static str,
    pub(crate) line: u32,
}

/// Who may open an endpoint.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Access {
    /// Anybody: somebody wrote `public`.
    Public,
    /// Whoever holds a valid token and this permission, where one is named.
    Token { permission: Option<&'static str> },
}

impl Descriptor {
    /// An endpoint called `name` at `path`, relative to where it will be mounted.
    pub const fn new(name: &'static str, path: &'static str) -> Self {
        Self {
            name,
            path,
            docs: "",
            location: Location { file: "", line: 0 },
            event: None,
            access: Access::Token { permission: None },
            overrides: PolicyOverrides::NONE,
        }
    }

    /// The endpoint's name: the function's.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// The path as declared.
    pub const fn path(&self) -> &'static str {
        self.path
    }

    /// The doc comment of the function.
    pub const fn documentation(&self) -> &'static str {
        self.docs
    }

    /// The declaration's file and line.
    #[doc(hidden)]
    #[must_use]
    pub const fn at(mut self, file: &'static str, line: u32) -> Self {
        self.location = Location { file, line };
        self
    }

    /// The doc comment.
    #[doc(hidden)]
    #[must_use]
    pub const fn docs(mut self, docs: &'static str) -> Self {
        self.docs = docs;
        self
    }

    /// The name of items that bring none of their own.
    #[doc(hidden)]
    #[must_use]
    pub const fn event(mut self, name: &'static str) -> Self {
        self.event = Some(name);
        self
    }

    /// The permission that a caller needs.
    #[doc(hidden)]
    #[must_use]
    pub const fn permission(mut self, permission: &'static str) -> Self {
        self.access = Access::Token { permission: Some(permission) };
        self
    }

    /// Open to anybody.
    #[doc(hidden)]
    #[must_use]
    pub const fn public(mut self) -> Self {
        self.access = Access::Public;
        self
    }

    /// The heartbeat's interval.
    #[doc(hidden)]
    #[must_use]
    pub const fn heartbeat_millis(mut self, millis: u64) -> Self {
        self.overrides.heartbeat = Some(Some(Duration::from_millis(millis)));
        self
    }

    /// No heartbeat.
    #[doc(hidden)]
    #[must_use]
    pub const fn heartbeat_off(mut self) -> Self {
        self.overrides.heartbeat = Some(None);
        self
    }

    /// The write timeout.
    #[doc(hidden)]
    #[must_use]
    pub const fn write_timeout_millis(mut self, millis: u64) -> Self {
        self.overrides.write_timeout = Some(Some(Duration::from_millis(millis)));
        self
    }

    /// No write timeout.
    #[doc(hidden)]
    #[must_use]
    pub const fn write_timeout_off(mut self) -> Self {
        self.overrides.write_timeout = Some(None);
        self
    }

    /// The reconnection time.
    #[doc(hidden)]
    #[must_use]
    pub const fn retry_millis(mut self, millis: u64) -> Self {
        self.overrides.retry = Some(Duration::from_millis(millis));
        self
    }
}

const PUBLIC_AND_PERMISSION: &str = "is public and asks for a permission; choose one";

/// A declaration whose texts have been checked: what the kit maps and serves.
#[derive(Clone, Debug)]
pub(crate) struct Declaration {
    /// With the prefix it is mounted at.
    pub(crate) path: String,
    prefix: usize,
    pub(crate) location: Location,
    pub(crate) event: Option<EventName>,
    /// `None` is public.
    pub(crate) rule: Option<PermissionRule>,
    pub(crate) overrides: PolicyOverrides,
}

impl Declaration {
    /// An endpoint that asks for a valid token and changes no setting.
    pub(crate) fn new(prefix: &str, path: &str, location: Location) -> Self {
        Self {
            path: format!("{prefix}{path}"),
            prefix: prefix.len(),
            location,
            event: None,
            rule: Some(PermissionRule::default()),
            overrides: PolicyOverrides::NONE,
        }
    }

    /// Checks what `descriptor` says; the mistakes join `mistakes`.
    pub(crate) fn from_descriptor(
        prefix: &str,
        descriptor: &Descriptor,
        mistakes: &mut Vec<String>,
    ) -> Self {
        let mut declaration = Self::new(prefix, descriptor.path, descriptor.location);
        declaration.overrides = descriptor.overrides.clone();
        if let Some(name) = descriptor.event {
            declaration.name_events(name, mistakes);
        }
        match descriptor.access {
            Access::Public => declaration.open_to_all(mistakes),
            Access::Token { permission: None } => {}
            Access::Token { permission: Some(name) } => declaration.require(name, mistakes),
        }
        declaration
    }

    pub(crate) fn name_events(&mut self, name: impl Into<Cow<'static, str>>, to: &mut Vec<String>) {
        match EventName::new(name) {
            Ok(name) => self.event = Some(name),
            Err(error) => to.push(self.mistake(&error)),
        }
    }

    pub(crate) fn require(&mut self, name: impl Into<Cow<'static, str>>, to: &mut Vec<String>) {
        match (Permission::new(name), self.rule.take()) {
            (Ok(permission), Some(rule)) => self.rule = Some(rule.and(permission)),
            (Ok(_), None) => to.push(self.mistake(&PUBLIC_AND_PERMISSION)),
            (Err(error), rule) => {
                self.rule = rule;
                to.push(self.mistake(&error));
            }
        }
    }

    pub(crate) fn open_to_all(&mut self, to: &mut Vec<String>) {
        if self.rule.take().is_some_and(|rule| !rule.is_empty()) {
            to.push(self.mistake(&PUBLIC_AND_PERMISSION));
        }
    }

    /// What a path must be, beyond what the router finds out.
    pub(crate) fn check_path(&self) -> Result<(), &'static str> {
        let (prefix, path) = self.path.split_at_checked(self.prefix).unwrap_or_default();
        if !path.starts_with('/') {
            return Err("the path must begin with `/`");
        }
        if !prefix.is_empty() && (!prefix.starts_with('/') || prefix.ends_with('/')) {
            return Err("the prefix must begin with `/` and not end with one");
        }
        let illegal = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '?' | '#');
        if self.path.contains(illegal) {
            return Err("a path has no white space, `?` or `#`: it could never match");
        }
        if self.path.split('/').any(|segment| segment.starts_with([':', '*'])) {
            return Err("captures are written `{name}` and `{*rest}`");
        }
        let mut names = HashSet::new();
        let captures = self.path.split('{').skip(1).filter_map(|rest| rest.split('}').next());
        if captures.map(|name| name.trim_start_matches('*')).any(|name| !names.insert(name)) {
            return Err("two captures have the same name");
        }
        Ok(())
    }

    /// A mistake in this declaration, with its place in front.
    pub(crate) fn mistake(&self, what: &dyn Display) -> String {
        let (Location { file, line }, path) = (self.location, &self.path);
        format!("{file}:{line}: endpoint {path}: {what}")
    }
}
