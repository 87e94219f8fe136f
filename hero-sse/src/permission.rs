//! What a caller must be allowed to do before a stream opens.

use std::borrow::Cow;
use std::fmt;

/// A permission's name, such as `usage.read`: printable ASCII without space, quote or backslash
/// (the scope token of RFC 6749, section 3.3), so that it can stand in a `WWW-Authenticate` header.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Permission(Cow<'static, str>);

impl Permission {
    /// Checks `name`.
    ///
    /// # Errors
    ///
    /// [`InvalidPermission`] when it is empty or holds a character outside a scope token.
    pub fn new(name: impl Into<Cow<'static, str>>) -> Result<Self, InvalidPermission> {
        let name = name.into();
        let legal = |byte: &u8| matches!(byte, 0x21 | 0x23..=0x5B | 0x5D..=0x7E);
        if !name.is_empty() && name.as_bytes().iter().all(legal) {
            Ok(Self(name))
        } else {
            Err(InvalidPermission(name.into_owned()))
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text that is no permission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidPermission(String);

impl fmt::Display for InvalidPermission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = &self.0;
        write!(
            f,
            "{text:?} is no permission: write printable ASCII without space, `\"` or `\\`, such as \
             \"usage.read\""
        )
    }
}

impl std::error::Error for InvalidPermission {}

/// Which permissions open an endpoint: all that are listed must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PermissionRule(Vec<Permission>);

impl PermissionRule {
    /// The rule that also asks for `permission`.
    #[must_use]
    pub fn and(mut self, permission: Permission) -> Self {
        self.0.push(permission);
        self
    }

    /// Whether a valid token is all it asks for.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The permissions that `held` lacks; none means that the rule is met.
    pub(crate) fn missing(&self, held: impl Fn(&Permission) -> bool) -> Vec<&Permission> {
        self.0.iter().filter(|permission| !held(permission)).collect()
    }

    /// Every permission the rule names, joined by spaces: the `scope` of a challenge (RFC 6750).
    pub(crate) fn scope(&self) -> String {
        self.0.iter().map(Permission::as_str).collect::<Vec<_>>().join(" ")
    }
}
