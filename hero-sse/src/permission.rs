//! Permissions, and the rules that endpoints make of them.

use std::borrow::Cow;
use std::convert::Infallible;
use std::fmt;

use crate::sealed;

/// A permission, such as `usage.read`. It is printable ASCII without space, quote or backslash (the `scope-token` of
/// RFC 6749, section 3.3), so that it fits into a `WWW-Authenticate` header.
///
/// Where an endpoint requires a permission, `{name}` in it is replaced by the value of that capture of the path:
/// `builds.{build}.read`. See [permissions that depend on the
/// path](crate::guide::access#permissions-that-depend-on-the-path). Everywhere else braces have no meaning.
///
/// An application with many permissions can make them of an enum:
///
/// ```
/// use hero_sse::auth::Permission;
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
#[doc(alias = "scope")]
#[doc(alias = "role")]
pub struct Permission(Cow<'static, str>);

impl Permission {
    /// Makes a permission of `name`.
    ///
    /// # Errors
    ///
    /// [`InvalidPermission`] if `name` is empty, or has a character that a scope token cannot have.
    pub fn new(name: impl Into<Cow<'static, str>>) -> Result<Self, InvalidPermission> {
        let name = name.into();
        if is_scope_token(name.as_bytes()) { Ok(Self(name)) } else { Err(InvalidPermission(name)) }
    }

    /// Makes a permission of a name that is known to be legal.
    ///
    /// # Panics
    ///
    /// If it is not legal, that is, where [`new`](Self::new) returns an error. In a constant this is a compile error.
    pub const fn from_static(name: &'static str) -> Self {
        assert!(is_scope_token(name.as_bytes()), "a permission is printable ASCII without space");
        Self(Cow::Borrowed(name))
    }

    /// Returns the permission as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn has_captures(&self) -> bool {
        self.0.contains(['{', '}'])
    }

    /// Replaces the captures by their values.
    fn resolved<'c>(&self, capture: &impl Fn(&str) -> Option<&'c str>) -> Result<Self, Unresolved> {
        if !self.has_captures() {
            return Ok(self.clone());
        }
        let unresolved = |name: &str| Unresolved(name.to_owned());
        let Captures { captures, rest } =
            split_captures(&self.0).ok_or_else(|| unresolved(&self.0))?;
        let mut text = String::new();
        for (before, name) in captures {
            text.push_str(before);
            let value = capture(name).filter(|value| can_be_a_part(value));
            text.push_str(value.ok_or_else(|| unresolved(name))?);
        }
        text.push_str(rest);
        Self::new(text).map_err(|_| unresolved(&self.0))
    }

    /// Returns what is wrong with its captures, on a path with these, which are written as `name` and `*rest`.
    fn fault(&self, of_path: &[String]) -> Option<String> {
        let Some(Captures { captures, rest }) = split_captures(&self.0) else {
            return Some(format!(
                "the permission {self} has an unmatched brace, or empty braces: braces are for captures of the \
                 path, as in `builds.{{build}}.read`"
            ));
        };
        let behind = captures.iter().skip(1).map(|(before, _)| *before).chain([rest]);
        captures.iter().zip(behind).find_map(|((before, name), behind)| {
            let bare = name.strip_prefix('*').unwrap_or(name);
            let takes_rest = |of: &String| of.strip_prefix('*') == Some(bare);
            if bare != *name || of_path.iter().any(takes_rest) {
                return Some(format!(
                    "the permission {self} has `{{{name}}}`, which takes the rest of the path: a part of a \
                     permission is one segment"
                ));
            }
            if !of_path.iter().any(|of| of == name) {
                return Some(format!(
                    "the permission {self} has `{{{name}}}`, which is not a capture of the path, prefix included"
                ));
            }
            let whole = before.ends_with(SEPARATORS)
                && (behind.is_empty() || behind.starts_with(SEPARATORS));
            (!whole).then(|| {
                format!(
                    "the permission {self} has `{{{name}}}` next to other text or at its beginning: write it \
                     between `.`, `:` or `/`, after a word of your own, as in `builds.{{build}}.read`"
                )
            })
        })
    }
}

/// The separators between the parts of a permission. No value of a capture has one.
const SEPARATORS: [char; 3] = ['.', ':', '/'];

/// The longest value of a capture in a permission. A hash of 512 bits in hexadecimal fits.
const MAX_VALUE: usize = 128;

/// Whether a value has only characters that URLs do not encode, and no `.`. So it is one part of a permission, not
/// two, and not the `*` of a grant.
fn can_be_a_part(value: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'~');
    (1..=MAX_VALUE).contains(&value.len()) && value.bytes().all(plain)
}

/// A permission or a path, split at its captures.
pub(crate) struct Captures<'a> {
    /// The text before each capture, and the capture's name: `name` of `{name}`, `*rest` of `{*rest}`.
    pub(crate) captures: Vec<(&'a str, &'a str)>,
    /// The text after the last capture.
    pub(crate) rest: &'a str,
}

/// Splits a text at its captures. Returns `None` if a brace has no partner, or if nothing is between two.
pub(crate) fn split_captures(text: &str) -> Option<Captures<'_>> {
    let (mut captures, mut rest) = (Vec::new(), text);
    while let Some((before, capture)) = rest.split_once('{') {
        let (name, behind) = capture.split_once('}')?;
        if name.is_empty() || name.contains('{') || before.contains('}') {
            return None;
        }
        captures.push((before, name));
        rest = behind;
    }
    (!rest.contains('}')).then_some(Captures { captures, rest })
}

/// The error for a request whose path has no value for this capture, or a value that cannot be a part of a
/// permission. It does not have the value, which the client chose: that goes into no header and no log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unresolved(String);

impl fmt::Display for Unresolved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.0;
        write!(
            f,
            "the path's `{name}` cannot be part of a permission: that takes 1 to {MAX_VALUE} letters, digits, \
             `-`, `_` or `~`"
        )
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

/// The error for a text that is not a permission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidPermission(Cow<'static, str>);

impl fmt::Display for InvalidPermission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = &self.0;
        write!(
            f,
            "{text:?} is not a permission: write printable ASCII without space, `\"` or `\\`, such as \
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

/// A value that a permission can be made of: a string, a [`Permission`], or a type of yours with
/// `impl From<Scope> for Permission`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a permission",
    label = "a permission cannot be made of this",
    note = "write a string, a constant of type `&str` or `Permission`, or a value of a type with `impl \
            From<{Self}> for Permission`"
)]
pub trait IntoPermission: Sized {
    #[doc(hidden)]
    fn sealed(_: sealed::Token);

    /// Makes the permission.
    ///
    /// # Errors
    ///
    /// [`InvalidPermission`] if the text cannot be one.
    fn into_permission(self) -> Result<Permission, InvalidPermission>;

    /// Makes a rule that requires this permission alone.
    ///
    /// # Errors
    ///
    /// Same as [`into_permission`](Self::into_permission).
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
    fn sealed(_: sealed::Token) {}

    fn into_permission(self) -> Result<Permission, InvalidPermission> {
        self.try_into().map_err(Into::into)
    }
}

/// The permissions that an endpoint requires.
///
/// ```
/// use hero_sse::auth::{Permission, PermissionRule};
///
/// let one = |name| Permission::new(name).map(PermissionRule::One);
/// let rule = PermissionRule::All(vec![
///     one("usage.read")?,
///     PermissionRule::Any(vec![one("tenant.member")?, one("admin")?]),
/// ]);
/// assert_eq!(rule.to_string(), "usage.read and (tenant.member or admin)");
/// # Ok::<(), hero_sse::auth::InvalidPermission>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PermissionRule {
    /// One permission.
    One(Permission),
    /// All of these. An empty list accepts any valid token.
    All(Vec<PermissionRule>),
    /// At least one of these. An empty list accepts nobody.
    Any(Vec<PermissionRule>),
}

impl PermissionRule {
    /// Accepts any valid token.
    pub(crate) const fn any_token() -> Self {
        Self::All(Vec::new())
    }

    /// Makes a rule that requires both this and `other`.
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

    /// Returns whether it accepts any valid token.
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Self::All(rules) if rules.iter().all(Self::is_empty))
    }

    /// Returns what a caller lacks that has the permissions for which `held` returns true. `None`: the caller
    /// fulfils the rule.
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

    /// Returns whether the required permissions depend on the request's path.
    pub(crate) fn has_captures(&self) -> bool {
        self.permissions().into_iter().any(Permission::has_captures)
    }

    /// Replaces the captures by their values.
    pub(crate) fn resolved<'c>(
        &self,
        capture: &impl Fn(&str) -> Option<&'c str>,
    ) -> Result<Self, Unresolved> {
        let all = |rules: &[Self]| -> Result<Vec<Self>, Unresolved> {
            rules.iter().map(|rule| rule.resolved(capture)).collect()
        };
        match self {
            Self::One(permission) => permission.resolved(capture).map(Self::One),
            Self::All(rules) => all(rules).map(Self::All),
            Self::Any(rules) => all(rules).map(Self::Any),
        }
    }

    /// Returns what is wrong with the captures of its permissions, on a path with these.
    pub(crate) fn faults(&self, of_path: &[String]) -> Vec<String> {
        let permissions = self.permissions().into_iter();
        permissions.filter_map(|permission| permission.fault(of_path)).collect()
    }

    /// Returns all its permissions, in order and with duplicates.
    pub(crate) fn permissions(&self) -> Vec<&Permission> {
        match self {
            Self::One(permission) => vec![permission],
            Self::All(rules) | Self::Any(rules) => {
                rules.iter().flat_map(Self::permissions).collect()
            }
        }
    }

    /// Returns permissions that together fulfil the rule, joined by spaces: the `scope` of a challenge (RFC 6750,
    /// section 3). Of several alternatives it takes the first.
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

/// Writes the rule as in a sentence: `usage.read and (tenant.member or admin)`.
impl fmt::Display for PermissionRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (rules, word) = match self {
            Self::One(permission) => return permission.fmt(f),
            Self::All(rules) if rules.is_empty() => return f.write_str("a valid token"),
            Self::Any(rules) if rules.is_empty() => {
                return f.write_str("a permission that nobody has");
            }
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
    fn rules_nest_and_return_what_is_missing() {
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

    #[test]
    fn captures_become_their_values_throughout_a_rule() {
        use PermissionRule::{All, Any};
        let rule = All(vec![one("a"), Any(vec![one("b.{x}.read"), one("c:{y}/{x}")])]);
        let capture = |name: &str| match name {
            "x" => Some("7"),
            "y" => Some("t-1_~Z"),
            _ => None,
        };
        let resolved = rule.resolved(&capture).expect("a rule");
        assert_eq!(resolved.to_string(), "a and (b.7.read or c:t-1_~Z/7)");
        assert!(rule.has_captures() && !resolved.has_captures() && !one("a").has_captures());
        assert_eq!(one("b.{z}").resolved(&capture), Err(Unresolved("z".to_owned())));
        // Set-up rejects these. If one got through, it would open nothing.
        for odd in ["b.{x", "b.x}", "b.{}", "b.{{x}}", "}b.{x}"] {
            assert!(one(odd).resolved(&capture).is_err(), "{odd}");
        }
    }

    #[test]
    fn a_value_is_exactly_one_part_of_a_permission() {
        let resolved = |value: &str| one("b.{x}.read").resolved(&|_| Some(value));
        let longest = "a".repeat(MAX_VALUE);
        for good in ["1", "A-z_0~9", longest.as_str()] {
            assert!(resolved(good).is_ok(), "{good}");
        }
        let too_long = "a".repeat(MAX_VALUE + 1);
        for odd in ["", too_long.as_str(), "é", "\u{ff11}"] {
            assert!(resolved(odd).is_err(), "{odd}");
        }
        let good = |c: char| c.is_ascii_alphanumeric() || "-_~".contains(c);
        for odd in (0..=0xffu8).map(char::from).filter(|c| !good(*c)) {
            assert!(resolved(&format!("1{odd}2")).is_err(), "{odd:?}");
        }
    }
}
