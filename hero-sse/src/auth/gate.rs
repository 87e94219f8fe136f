//! Authenticates requests: finds the credential, checks where it comes from, and has it verified.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Once};
use std::time::SystemTime;

use axum::extract::{FromRequestParts, OptionalFromRequestParts};
use futures_util::FutureExt;
use http::request::Parts;
use http::{Method, StatusCode};

use super::attempts::Attempts;
#[cfg(feature = "testing")]
use super::principal::TestPrincipal;
use super::site_policy::SitePolicy;
use super::token::{self, Credential};
use super::{AuthError, Authenticator, Principal, Tickets};
use crate::policy::{TokenSource, TokenSources};
use crate::redact::QueryTokens;
use crate::refusal::Refusal;
use crate::secret::Secret;
use crate::telemetry::{self, VerificationFailures};

/// Authenticates every request of one server.
#[derive(Clone)]
pub(crate) struct Gate {
    pub(crate) authenticator: Option<Arc<dyn Authenticator>>,
    /// Where a token may be located on routes that are not endpoints.
    pub(crate) sources: TokenSources,
    /// Name of the cookie that holds tokens.
    pub(crate) cookie: Option<Arc<str>>,
    pub(crate) site_policy: Arc<SitePolicy>,
    pub(crate) tickets: Option<Arc<Tickets>>,
    pub(crate) attempts: Arc<Attempts>,
    pub(crate) failures: Arc<VerificationFailures>,
    /// Identifies this server among those that share a ticket store.
    pub(crate) instance: u64,
}

impl Gate {
    /// Authenticates a request for a stream, by ticket or token. `disconnects` is their number now.
    pub(crate) async fn caller(
        &self,
        parts: &Parts,
        sources: TokenSources,
        disconnects: u64,
    ) -> Result<StreamCaller, Refusal> {
        let Some((tickets, mut found)) = self.tickets_of(parts) else {
            return self.caller_by_token(parts, sources, disconnects).await;
        };
        self.check_host(parts)?;
        let (Some(ticket), true) = (found.pop(), found.is_empty()) else {
            return Err(Refusal::invalid_request("the parameter ticket is repeated"));
        };
        // Cookies do not count here: a browser sends them with every request.
        let sent = TokenSources::of(&[TokenSource::Header, TokenSource::Query]);
        if !matches!(token::bearer_token(parts, sent, None), Ok(None)) {
            return Err(Refusal::invalid_request("a ticket came with another credential"));
        }
        // A link preview must not spend the ticket, and must not reveal whether it is valid.
        if parts.method == Method::HEAD {
            return Err(Refusal::invalid_request("a ticket is for one GET"));
        }
        let redeemed = async { tickets.redeem(parts, &ticket).await };
        let (principal, checked_at) = self.verify(parts, "ticket store", redeemed).await?;
        // Another server's count of disconnects cannot be compared with ours.
        let ours = checked_at.instance == self.instance;
        let disconnects = if ours { checked_at.disconnects } else { disconnects };
        Ok(StreamCaller { principal: Some(principal), disconnects, refused_cookie: None })
    }

    async fn caller_by_token(
        &self,
        parts: &Parts,
        sources: TokenSources,
        disconnects: u64,
    ) -> Result<StreamCaller, Refusal> {
        let expired = |caller: &Principal| {
            caller.expires_at().is_some_and(|expiry| expiry <= SystemTime::now())
        };
        let refusal = match self.principal(parts, sources).await {
            Ok(Some(caller)) if expired(&caller) => Refusal::invalid_token("the token has expired"),
            Ok(principal) => {
                return Ok(StreamCaller { principal, disconnects, refused_cookie: None });
            }
            Err(refusal) => refusal,
        };
        // A browser sends a cookie by itself, also a stale one. What a client sends on purpose must be right.
        // Nor may others behind its address, whose cookies failed, keep it out.
        let of_caller = matches!(
            refusal.status(),
            StatusCode::UNAUTHORIZED | StatusCode::BAD_REQUEST | StatusCode::TOO_MANY_REQUESTS
        );
        let by_cookie = of_caller
            && matches!(token::bearer_token(parts, sources.without_cookie(), None), Ok(None));
        match by_cookie {
            true => {
                Ok(StreamCaller { principal: None, disconnects, refused_cookie: Some(refusal) })
            }
            false => Err(refusal),
        }
    }

    /// Returns whether the request has a ticket. Then the same URL cannot open its stream again.
    pub(crate) fn has_ticket(&self, parts: &Parts) -> bool {
        self.tickets_of(parts).is_some()
    }

    /// Returns the tickets of a request. An empty parameter is not a ticket.
    fn tickets_of(&self, parts: &Parts) -> Option<(&Tickets, Vec<Secret<String>>)> {
        let tickets = self.tickets.as_deref()?;
        // A client that can send a body can send a header.
        if parts.method != Method::GET && parts.method != Method::HEAD {
            return None;
        }
        let mut found = QueryTokens::of(parts).tickets;
        found.retain(|ticket| !ticket.expose().is_empty());
        (!found.is_empty()).then_some((tickets, found))
    }

    /// Authenticates a request by its token. `None`: it has no token.
    pub(crate) async fn principal(
        &self,
        parts: &Parts,
        sources: TokenSources,
    ) -> Result<Option<Principal>, Refusal> {
        #[cfg(feature = "testing")]
        if let Some(test) = parts.extensions.get::<TestPrincipal>() {
            return Ok(Some(test.0.clone()));
        }
        self.check_host(parts)?;
        let found = match token::bearer_token(parts, sources, self.cookie.as_deref()) {
            Ok(found) => found,
            Err(refusal) => {
                self.attempts.check(parts)?;
                return Err(self.count_failure(parts, refusal));
            }
        };
        let Some(Credential { token, source }) = found else { return Ok(None) };
        if source == TokenSource::Cookie {
            self.site_policy.check_cookie(parts).map_err(|foreign| {
                telemetry::foreign_page(parts.uri.path(), foreign.origin, foreign.host);
                Refusal::forbidden(foreign.why)
            })?;
        }
        let Some(authenticator) = &self.authenticator else { return Ok(None) };
        let authenticated = async { authenticator.authenticate(&token).await };
        self.verify(parts, "authenticator", authenticated).await.map(Some)
    }

    /// Refuses requests for a host that is not one of the allowed hosts.
    fn check_host(&self, parts: &Parts) -> Result<(), Refusal> {
        match self.site_policy.allows_host(parts) {
            true => Ok(()),
            false => Err(Refusal::forbidden("this host is not served here")),
        }
    }

    /// Verifies a credential, unless too many attempts from its address have failed.
    async fn verify<T>(
        &self,
        parts: &Parts,
        verifier: &'static str,
        // An async block of the caller, so that a panic before its first await is caught as well.
        verification: impl Future<Output = Result<T, AuthError>>,
    ) -> Result<T, Refusal> {
        self.attempts.check(parts)?;
        match AssertUnwindSafe(verification).catch_unwind().await {
            Ok(Ok(found)) => Ok(found),
            Ok(Err(AuthError::InvalidToken(invalid))) => {
                Err(self.count_failure(parts, Refusal::invalid_token(invalid.reason())))
            }
            Ok(Err(AuthError::Unavailable(why))) => {
                self.failures.log(parts.uri.path(), verifier, &why);
                Err(Refusal::unavailable())
            }
            Err(_) => {
                telemetry::panicked(parts.uri.path(), verifier);
                Err(Refusal::internal())
            }
        }
    }

    /// Counts a credential that was refused with `401`. A malformed request is not an attempt.
    fn count_failure(&self, parts: &Parts, refusal: Refusal) -> Refusal {
        if refusal.status() == StatusCode::UNAUTHORIZED {
            self.attempts.record_failure(parts);
        }
        refusal
    }
}

/// The caller of a request for a stream.
pub(crate) struct StreamCaller {
    /// `None`: it has no credential that is accepted.
    pub(crate) principal: Option<Principal>,
    /// Number of disconnects when the credential's token was checked.
    pub(crate) disconnects: u64,
    /// Why the only credential, a cookie, was not accepted. A public endpoint serves such a caller as nobody.
    pub(crate) refused_cookie: Option<Refusal>,
}

impl<S: Send + Sync> FromRequestParts<S> for Principal {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        caller(parts).await?.ok_or_else(Refusal::no_token)
    }
}

impl<S: Send + Sync> OptionalFromRequestParts<S> for Principal {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, Refusal> {
        caller(parts).await
    }
}

/// Marks a request whose caller the endpoint has determined. Extractors must not authenticate it again.
#[derive(Clone)]
pub(crate) struct CallerResolved;

/// Returns the caller that the endpoint has determined. On other routes, authenticates the request.
async fn caller(parts: &mut Parts) -> Result<Option<Principal>, Refusal> {
    static LOGGED: Once = Once::new();
    if let Some(principal) = parts.extensions.get::<Principal>() {
        return Ok(Some(principal.clone()));
    }
    if parts.extensions.get::<CallerResolved>().is_some() {
        return Ok(None);
    }
    let Some(gate) = parts.extensions.get::<Gate>().cloned() else {
        LOGGED.call_once(telemetry::no_gate);
        return Ok(None);
    };
    let principal = gate.principal(parts, gate.sources).await?;
    if let Some(principal) = &principal {
        parts.extensions.insert(principal.clone());
    }
    Ok(principal)
}
