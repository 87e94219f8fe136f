//! All endpoints of a server: which path is taken, and what opens at a URL's path.

use crate::descriptor::{Declaration, Location, MALFORMED_CAPTURES};
use crate::permission::PermissionRule;
use crate::policy::Method;
use crate::refusal::Refusal;

/// All endpoints that have been mapped.
#[derive(Clone, Default)]
pub(super) struct Mapped {
    /// Each path has the index of its first entry.
    routes: matchit::Router<usize>,
    entries: Vec<Entry>,
}

#[derive(Clone)]
struct Entry {
    path: String,
    method: Method,
    location: Location,
    rule: Option<PermissionRule>,
}

impl Mapped {
    pub(super) fn has(&self, path: &str) -> bool {
        self.entries.iter().any(|entry| entry.path == path)
    }

    /// Returns the permissions of the endpoint that answers `GET` at the path of a URL; `None`: public.
    pub(super) fn opened_by(&self, path: &str) -> Result<Option<PermissionRule>, Refusal> {
        let found = self.routes.at(path).map_err(|_| NotFound)?;
        let first = self.entries.get(*found.value).ok_or(NotFound)?;
        let get = |entry: &&Entry| entry.method == Method::Get && entry.path == first.path;
        let entry = self.entries.iter().find(get).ok_or(NotFound)?;
        // Not decoded: a value that can be part of a permission is never encoded.
        let capture = |name: &str| found.params.get(name);
        Ok(entry.rule.as_ref().map(|rule| rule.resolved(&capture)).transpose()?)
    }

    /// Adds a path to the router that axum uses, because axum itself panics on conflicts.
    pub(super) fn enter(&mut self, declaration: &Declaration) -> Result<(), String> {
        declaration.check_path()?;
        let Declaration { path, method, location, rule, .. } = declaration;
        let (method, location) = (*method, *location);
        let same = |entry: &&Entry| entry.path == *path && entry.method == method;
        if let Some(first) = self.entries.iter().find(same) {
            return Err(taken(path, Some(&first.location)));
        }
        // The router knows only paths: it would refuse the second method of one.
        if !self.has(path) {
            let place = self.entries.len();
            self.routes.insert(path, place).map_err(|error| match error {
                matchit::InsertError::Conflict { with } => {
                    let found = self.routes.at(&with).ok();
                    let first = found.and_then(|found| self.entries.get(*found.value));
                    taken(&with, first.map(|first| &first.location))
                }
                _ => MALFORMED_CAPTURES.to_owned(),
            })?;
        }
        self.entries.push(Entry { path: path.clone(), method, location, rule: rule.clone() });
        Ok(())
    }
}

/// No endpoint answers `GET` at that path.
pub(super) struct NotFound;

impl From<NotFound> for Refusal {
    fn from(NotFound: NotFound) -> Self {
        Self::not_found("no stream is opened by GET at this path")
    }
}

fn taken(path: &str, first: Option<&Location>) -> String {
    let place = first.map(|l| format!(" ({}:{})", l.file, l.line)).unwrap_or_default();
    format!("the path is taken by {path}{place}")
}
