//! What a caller must be allowed to do before a stream opens.

use std::borrow::Cow;
use std::convert::Infallible;
use std::fmt;

/// A permission's name, such as `usage.read`: printable ASCII without space, quote or backslash
/// (the scope token of RFC 6749, section 3.3), so that it can stand in a `WWW-Authenticate` header.
///
/// An application with many of them gives them names of its own:
///
/// ```
/// use hero_sse::Permission;
///
/// enum Scope { UsageRead, BuildsRead }
///
/// impl From<Scope> for Permission {
///     fn from(scope: Scope) -> Self {
///         Self::from_static(match scope {
///             Scope::UsageRead => "usage.read",
///             Scope::BuildsRead => "builds.read",
///         })
///     }
/// }
/// ```
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
        if is_scope_token(name.as_bytes()) { Ok(Self(name)) } else { Err(InvalidPermission(name)) }
    }

    /// The permission of a name that is known to be legal.
    ///
    /// # Panics
    ///
    /// When it is not, as [`new`](Self::new) would tell. In a constant the compiler finds out.
    pub const fn from_static(name: &'static str) -> Self {
        assert!(is_scope_token(name.as_bytes()), "a permission is printable ASCII without space");
        Self(Cow::Borrowed(name))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

const fn is_scope_token(mut name: &[u8]) -> bool {
    if name.is_empty() {
        return false;
    }
    while let [byte, rest @ ..] = name {
        if !matches!(byte, 0x21 | 0x23..=0x5B | 0x5D..=0x7E) {
            return false;
        }
        name = rest;
    }
    true
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<&'static str> for Permission {
    type Error = InvalidPermission;

    fn try_from(name: &'static str) -> Result<Self, InvalidPermission> {
        Self::new(name)
    }
}

impl TryFrom<String> for Permission {
    type Error = InvalidPermission;

    fn try_from(name: String) -> Result<Self, InvalidPermission> {
        Self::new(name)
    }
}

/// A text that is no permission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidPermission(Cow<'static, str>);

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

impl From<Infallible> for InvalidPermission {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

/// What can name a permission: a string, a [`Permission`], or a type of yours from which one can be
/// made (`impl From<Scope> for Permission`).
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a permission",
    label = "no permission can be made of this",
    note = "write a string, a constant of type `&str` or `Permission`, or a value of a type with `impl \
            From<{Self}> for Permission`"
)]
pub trait IntoPermission: Sized {
    /// The permission.
    ///
    /// # Errors
    ///
    /// [`InvalidPermission`] when the text cannot be one.
    fn into_permission(self) -> Result<Permission, InvalidPermission>;

    /// The rule that asks for it alone.
    ///
    /// # Errors
    ///
    /// As [`into_permission`](Self::into_permission).
    fn into_rule(self) -> Result<PermissionRule, InvalidPermission> {
        self.into_permission().map(PermissionRule::One)
    }
}

#[diagnostic::do_not_recommend]
impl<T> IntoPermission for T
where
    T: TryInto<Permission>,
    T::Error: Into<InvalidPermission>,
{
    fn into_permission(self) -> Result<Permission, InvalidPermission> {
        self.try_into().map_err(Into::into)
    }
}

/// Which permissions open an endpoint.
///
/// ```
/// use hero_sse::{Permission, PermissionRule};
///
/// let one = |name| Permission::new(name).map(PermissionRule::One);
/// let rule = PermissionRule::All(vec![
///     one("usage.read")?,
///     PermissionRule::Any(vec![one("tenant.member")?, one("admin")?]),
/// ]);
/// assert_eq!(rule.to_string(), "usage.read and (tenant.member or admin)");
/// # Ok::<(), hero_sse::InvalidPermission>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PermissionRule {
    /// This one.
    One(Permission),
    /// All of these; of none, any valid token.
    All(Vec<PermissionRule>),
    /// One of these at least; of none, nobody.
    Any(Vec<PermissionRule>),
}

impl PermissionRule {
    /// A valid token is enough.
    pub(crate) const fn any_token() -> Self {
        Self::All(Vec::new())
    }

    /// The rule that also asks for `other`.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match self {
            Self::All(mut rules) => {
                rules.push(other);
                Self::All(rules)
            }
            first => Self::All(vec![first, other]),
        }
    }

    /// Whether a valid token is all it asks for.
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Self::All(rules) if rules.iter().all(Self::is_empty))
    }

    /// What is asked for in vain, of somebody who has the permissions that `held` knows; `None` means
    /// that the rule is met.
    pub(crate) fn unmet(&self, held: &impl Fn(&Permission) -> bool) -> Option<Self> {
        match self {
            Self::One(permission) => (!held(permission)).then(|| self.clone()),
            Self::All(rules) => {
                let mut unmet: Vec<_> = rules.iter().filter_map(|rule| rule.unmet(held)).collect();
                match unmet.len() {
                    0 => None,
                    1 => unmet.pop(),
                    _ => Some(Self::All(unmet)),
                }
            }
            Self::Any(rules) => {
                let met = rules.iter().any(|rule| rule.unmet(held).is_none());
                (!met).then(|| self.clone())
            }
        }
    }

    /// Every permission it names, in its order; one that is named twice is there twice.
    pub(crate) fn permissions(&self) -> Vec<&Permission> {
        match self {
            Self::One(permission) => vec![permission],
            Self::All(rules) | Self::Any(rules) => {
                rules.iter().flat_map(Self::permissions).collect()
            }
        }
    }

    /// Permissions that together would do, joined by spaces: the `scope` of a challenge (RFC 6750,
    /// section 3). Where several sets would, the one named first.
    pub(crate) fn scope(&self) -> String {
        let mut names = Vec::new();
        self.collect(&mut names);
        names.join(" ")
    }

    fn collect<'a>(&'a self, names: &mut Vec<&'a str>) {
        match self {
            Self::One(permission) if names.contains(&permission.as_str()) => {}
            Self::One(permission) => names.push(permission.as_str()),
            Self::All(rules) => rules.iter().for_each(|rule| rule.collect(names)),
            Self::Any(rules) => rules.iter().take(1).for_each(|rule| rule.collect(names)),
        }
    }
}

/// As a sentence would say it: `usage.read and (tenant.member or admin)`.
impl fmt::Display for PermissionRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (rules, word) = match self {
            Self::One(permission) => return permission.fmt(f),
            Self::All(rules) if rules.is_empty() => return f.write_str("a valid token"),
            Self::Any(rules) if rules.is_empty() => return f.write_str("what nobody has"),
            Self::All(rules) => (rules, " and "),
            Self::Any(rules) => (rules, " or "),
        };
        for (n, rule) in rules.iter().enumerate() {
            if n > 0 {
                f.write_str(word)?;
            }
            match rule {
                Self::All(inner) | Self::Any(inner) if inner.len() > 1 && rules.len() > 1 => {
                    write!(f, "({rule})")?;
                }
                rule => rule.fmt(f)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(name: &'static str) -> PermissionRule {
        PermissionRule::One(Permission::from_static(name))
    }

    #[test]
    fn rules_nest_and_tell_what_is_missing() {
        use PermissionRule::{All, Any};
        let rule = All(vec![one("a"), Any(vec![one("b"), All(vec![one("c"), one("d")])])]);
        for (held, missing) in [
            ("", Some("a and (b or (c and d))")),
            ("a", Some("b or (c and d)")),
            ("b", Some("a")),
            ("ac", Some("b or (c and d)")),
            ("ab", None),
            ("acd", None),
            ("abcd", None),
        ] {
            let unmet = rule.unmet(&|permission| held.contains(permission.as_str()));
            assert_eq!(unmet.map(|rule| rule.to_string()).as_deref(), missing, "{held}");
        }
        assert_eq!(rule.scope(), "a b");
        assert!(All(vec![]).unmet(&|_| false).is_none() && All(vec![]).is_empty());
        assert!(Any(vec![]).unmet(&|_| true).is_some() && !Any(vec![]).is_empty());
    }
}
