//! Mistakes in a set-up, collected: an application sees all of them at once.

use std::fmt;

/// A mistake in the set-up, one of [`SetupErrors`].
///
/// `Display` is the whole message: what is wrong, where, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SetupError {
    kind: SetupErrorKind,
    subject: String,
    message: String,
}

/// The part of the set-up that a [`SetupError`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SetupErrorKind {
    /// Options from a file, from a text or from code.
    Options,
    /// An environment variable.
    Environment,
    /// The declaration of an endpoint or of the route for tickets.
    Endpoint,
    /// The authenticator or the tickets.
    Auth,
    /// A certificate or its key.
    Tls,
}

impl SetupError {
    /// Creates a mistake in the set-up of an authenticator, for
    /// [`Authenticator::mistakes`](crate::auth::Authenticator::mistakes).
    ///
    /// The message says what is wrong and what to write instead.
    pub fn auth(message: impl fmt::Display) -> Self {
        Self::new(SetupErrorKind::Auth, "", message)
    }

    pub(crate) fn new(kind: SetupErrorKind, subject: &str, message: impl fmt::Display) -> Self {
        let (subject, message) = (subject.to_owned(), message.to_string());
        Self { kind, subject, message }
    }

    /// A mistake in the options, whose message begins with its subject.
    pub(crate) fn option(subject: &str, what: impl fmt::Display) -> Self {
        Self::new(SetupErrorKind::Options, subject, format_args!("{subject}: {what}"))
    }

    /// Puts the place in front of the message.
    pub(crate) fn within(mut self, place: &str) -> Self {
        self.message = format!("{place}: {}", self.message);
        self
    }

    /// Returns which part of the set-up is wrong.
    pub fn kind(&self) -> SetupErrorKind {
        self.kind
    }

    /// Returns what exactly is wrong: the key (`SseOptions.WriteTimeout`), the variable
    /// (`HERO_SSE_WRITE_TIMEOUT`), the endpoint's path or the file. Empty for the authenticator, the tickets
    /// and certificates.
    pub fn subject(&self) -> &str {
        &self.subject
    }
}

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for SetupError {}

/// All mistakes in a set-up. There is at least one.
///
/// `Debug` prints the same text as `Display`, so that a `main` which returns the error stays readable.
#[derive(Clone, PartialEq, Eq)]
pub struct SetupErrors(Vec<SetupError>);

impl SetupErrors {
    /// Fails with the mistakes, if there are any.
    pub(crate) fn none_or(mistakes: Vec<SetupError>) -> Result<(), Self> {
        if mistakes.is_empty() { Ok(()) } else { Err(Self(mistakes)) }
    }

    #[cfg(feature = "tls")]
    pub(crate) fn tls(messages: impl IntoIterator<Item = String>) -> Self {
        let mistake = |message| SetupError::new(SetupErrorKind::Tls, "", message);
        Self(messages.into_iter().map(mistake).collect())
    }

    /// Iterates over the mistakes, in the order in which they were found.
    pub fn iter(&self) -> std::slice::Iter<'_, SetupError> {
        self.0.iter()
    }
}

impl<'a> IntoIterator for &'a SetupErrors {
    type Item = &'a SetupError;
    type IntoIter = std::slice::Iter<'a, SetupError>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl IntoIterator for SetupErrors {
    type Item = SetupError;
    type IntoIter = std::vec::IntoIter<SetupError>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl fmt::Display for SetupErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [only] => only.fmt(f),
            all => {
                write!(f, "{} mistakes:", all.len())?;
                all.iter().try_for_each(|mistake| write!(f, "\n  - {mistake}"))
            }
        }
    }
}

impl fmt::Debug for SetupErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for SetupErrors {}
