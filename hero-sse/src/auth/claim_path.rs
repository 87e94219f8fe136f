//! The name of a claim in a token.

use serde_json::{Map, Value};

/// Name of a claim, or a path to a claim inside others.
///
/// | given | means |
/// |---|---|
/// | `"scope"` | the claim `scope` |
/// | `"https://example.com/roles"` | the claim of that name |
/// | `"realm_access.roles"` | the claim of that name if there is one, otherwise `roles` inside `realm_access` |
/// | `["resource_access", "my.app", "roles"]` | `roles` inside `my.app` inside `resource_access` |
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimPath {
    name: Option<String>,
    path: Vec<String>,
}

impl From<&str> for ClaimPath {
    fn from(name: &str) -> Self {
        let path = name.split('.').map(str::to_owned).collect();
        Self { name: Some(name.to_owned()), path }
    }
}

impl From<String> for ClaimPath {
    fn from(name: String) -> Self {
        name.as_str().into()
    }
}

impl<const N: usize> From<[&str; N]> for ClaimPath {
    fn from(path: [&str; N]) -> Self {
        Self { name: None, path: path.map(str::to_owned).into() }
    }
}

impl ClaimPath {
    pub(super) fn find_in<'a>(&self, claims: &'a Map<String, Value>) -> Option<&'a Value> {
        if let Some(claim) = self.name.as_ref().and_then(|name| claims.get(name)) {
            return Some(claim);
        }
        let (first, rest) = self.path.split_first()?;
        rest.iter().try_fold(claims.get(first)?, |claim, name| claim.get(name))
    }
}
