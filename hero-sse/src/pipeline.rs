//! One request, from top to bottom: token, principal, permission, admission, function, stream.

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Once};
use std::task::Poll;
use std::time::{Duration, SystemTime};

use axum::body::{Body, HttpBody as _};
use axum::extract::{FromRequestParts, RawPathParams, Request};
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, REFERRER_POLICY};
use http::request::Parts;
use http::{HeaderName, HeaderValue, StatusCode};
use tokio::time::Instant;

use crate::auth::{
    AccessControl, AccessRequest, AccessTarget, CallerResolved, Gate, Principal, capture,
};
use crate::client_addr::TrustedProxies;
use crate::close::CloseReason;
use crate::connections::{AdmissionError, Caller, Connections, Ended, Limits, Slot};
use crate::deadline::{SocketWatch, StreamReset};
use crate::descriptor::Declaration;
use crate::duration::random_between;
use crate::endpoint::{EventStream, OpeningStream};
use crate::frame::{EventName, LastEventId};
use crate::options::SseOptions;
use crate::permission::PermissionRule;
use crate::policy::{Method, OverLimit, Policies, Policy};
use crate::refusal::{Refusal, TOO_MANY_FAILURES};
use crate::sweeper::Sweeper;
use crate::telemetry;
use crate::writer::{End, Reauthorization, RevocableBody, Stay, Writer, write_farewell};

/// A request that is overtaken by a disconnect which means it is looked at again, so often at most.
const LOOKS: usize = 3;

/// What all requests share.
pub(crate) struct Core {
    pub(crate) options: SseOptions,
    pub(crate) proxies: TrustedProxies,
    pub(crate) gate: Gate,
    pub(crate) permits: AccessControl,
    pub(crate) connections: Connections,
    pub(crate) sweeper: Sweeper,
    pub(crate) no_transport: Once,
}

/// One mapped endpoint: its declaration, resolved against the options.
pub(crate) struct Route {
    pub(crate) path: Arc<str>,
    pub(crate) event: Option<EventName>,
    /// `None` is public.
    pub(crate) rule: Option<PermissionRule>,
    /// Whether the rule depends on the path's captures.
    keyed: bool,
    pub(crate) method: Method,
    /// Whether the log must still tell that the endpoint, which will go, is used.
    deprecated: Option<Once>,
    policies: Policies,
}

impl Route {
    pub(crate) fn new(declaration: Declaration, policies: Policies) -> Self {
        let Declaration { path, event, rule, method, deprecated, .. } = declaration;
        let deprecated = deprecated.then(Once::new);
        let keyed = rule.as_ref().is_some_and(PermissionRule::has_captures);
        Self { path: path.into(), event, rule, keyed, method, deprecated, policies }
    }

    /// The policy before there is a stream.
    fn policy(&self) -> &Policy {
        &self.policies.private
    }
}

/// Answers one request to `route`; `open` extracts the arguments and calls the function.
pub(crate) async fn answer(
    core: &Arc<Core>,
    route: &Route,
    request: Request,
    open: impl FnOnce(Request) -> OpeningStream,
) -> Response {
    let (mut parts, body) = request.into_parts();
    // Unread, it would hide the client's departure.
    let unread = route.method == Method::Get && !body.is_end_stream();
    let mut caller = None;
    let response = match enter(core, route, &mut parts, unread, &mut caller).await {
        Ok((visit, permit, slot)) => visit.proceed(route, permit, slot, parts, body, open).await,
        Err(answer) => Err(answer),
    };
    let mut response = response.unwrap_or_else(|answer| answer);
    // For layers further out, such as an access log: who asked.
    if let Some(principal) = caller {
        response.extensions_mut().insert(principal);
    }
    response
}

/// Everything that comes before the application's function; `caller` is who it turned out to be.
async fn enter(
    core: &Arc<Core>,
    route: &Route,
    parts: &mut Parts,
    unread: bool,
    caller: &mut Option<Principal>,
) -> Result<(AuthenticatedRequest, Permit, Slot), Response> {
    let mut by_ticket = false;
    for _ in 0..LOOKS {
        let visit = AuthenticatedRequest::begin(core, parts, route.policy()).await;
        let visit = visit
            .map_err(|refusal| turned_down(core, route, refusal, core.gate.by_ticket(parts)))?;
        by_ticket = visit.by_ticket;
        caller.clone_from(&visit.principal);
        let target = RequestTarget::of(core, route.keyed, parts).await;
        let permit = visit.permit(route, target).await?;
        if unread {
            let refusal = Refusal::bad_request("a request by GET has no body here".to_owned());
            return Err(refuse(&route.path, refusal));
        }
        match visit.admit(route) {
            Ok(slot) => return Ok((visit, permit, slot)),
            // A ticket is spent: there is nothing left to look at.
            Err(AdmissionError::Changed) if by_ticket => break,
            Err(AdmissionError::Changed) => {}
            Err(no_place) => return Err(turned_away(route, no_place, by_ticket)),
        }
    }
    Err(unverified(core, route, by_ticket))
}

/// What a request wants, as an authorizer and permissions with captures see it; nothing where nobody
/// would look at it.
#[derive(Default)]
pub(crate) struct RequestTarget {
    path: Box<str>,
    captures: Box<[(Box<str>, Box<str>)]>,
}

impl RequestTarget {
    pub(crate) async fn of(core: &Core, keyed: bool, parts: &mut Parts) -> Self {
        if !keyed && !core.permits.has_authorizer() {
            return Self::default();
        }
        let path = parts.uri.path().into();
        // A path without captures, or with one that is no text.
        let captures = RawPathParams::from_request_parts(parts, &()).await.ok();
        let captures = captures.iter().flatten().map(|(key, value)| (key.into(), value.into()));
        Self { path, captures: captures.collect() }
    }
}

/// That a caller may have the stream, and since when that is known.
struct Permit {
    /// `None` where nothing was asked for.
    asked: Option<Arc<AccessRequest>>,
    since: Instant,
}

/// A request whose caller is known, on its way to a stream.
pub(crate) struct AuthenticatedRequest {
    core: Arc<Core>,
    principal: Option<Principal>,
    /// Whether it came by a ticket, which is spent: the same request cannot open its stream again.
    by_ticket: bool,
    address: Option<IpAddr>,
    /// The disconnects there were before anything was looked at.
    looked_at: u64,
    cursor: Result<LastEventId, Refusal>,
    socket: Option<Arc<SocketWatch>>,
    /// Over HTTP/2, under our own transport.
    reset: Option<StreamReset>,
    version: http::Version,
    head_only: bool,
}

impl AuthenticatedRequest {
    /// Token and principal.
    pub(crate) async fn begin(
        core: &Arc<Core>,
        parts: &Parts,
        policy: &Policy,
    ) -> Result<Self, Refusal> {
        let looked_at = core.connections.disconnects();
        let caller = core.gate.caller(parts, policy.token_sources, looked_at);
        let (principal, looked_at) = caller.await?;
        let cursor = LastEventId::from_parts(parts);
        let socket = parts.extensions.get::<Arc<SocketWatch>>().cloned();
        if socket.is_none() {
            core.no_transport.call_once(telemetry::no_transport);
        }
        Ok(Self {
            core: core.clone(),
            principal,
            by_ticket: core.gate.by_ticket(parts),
            address: core.proxies.client_of(parts),
            looked_at,
            cursor: cursor.map_err(|error| Refusal::bad_request(error.to_string())),
            socket,
            reset: parts.extensions.get::<StreamReset>().cloned(),
            version: parts.version,
            head_only: parts.method == http::Method::HEAD,
        })
    }

    async fn proceed(
        self,
        route: &Route,
        permit: Permit,
        mut slot: Slot,
        mut parts: Parts,
        body: Body,
        open: impl FnOnce(Request) -> OpeningStream,
    ) -> Result<Response, Response> {
        self.introduce(&mut parts);
        let opening = async { open(Request::from_parts(parts, body)).await };
        let opening = AssertUnwindSafe(slot.origin().timed(opening)).catch_unwind();
        let mut opening = Box::pin(opening);
        // What a `POST` has begun it may finish, unless its caller must not have it.
        let asked = poll_fn(|cx| match slot.poll_asked(cx) {
            Some(reason) if route.method == Method::Get || reason.is_withdrawal() => {
                Poll::Ready(reason)
            }
            _ => Poll::Pending,
        });
        let opened = tokio::select! {
            biased;
            reason = asked => {
                // Its drop is the application's code as well.
                if catch_unwind(AssertUnwindSafe(|| drop(opening))).is_err() {
                    telemetry::panicked(&route.path, "endpoint function's drop");
                }
                slot.close(reason);
                return Err(withdrawn(route, reason, self.by_ticket));
            }
            opened = &mut opening => opened.unwrap_or_else(|_| {
                telemetry::panicked(&route.path, "endpoint function");
                Err(refuse(&route.path, Refusal::internal()))
            }),
        };
        match opened {
            Ok(events) => Ok(self.stream(route, permit, slot, events)),
            Err(answer) => {
                slot.withdraw();
                Err(no_success(&route.path, answer))
            }
        }
    }

    /// Tells the extractors of this request who is asking. The answer is final: the kit's gate would look
    /// again by the kit's rules instead of the endpoint's.
    pub(crate) fn introduce(&self, parts: &mut Parts) {
        parts.extensions.insert(CallerResolved);
        if let Some(principal) = &self.principal {
            parts.extensions.insert(principal.clone());
        }
    }

    /// The steps of a stream that the application has made already.
    pub(crate) async fn answer(
        self,
        route: &Route,
        target: RequestTarget,
        events: EventStream,
    ) -> Response {
        let permit = match self.permit(route, target).await {
            Ok(permit) => permit,
            Err(answer) => return answer,
        };
        match self.admit(route) {
            Ok(slot) => self.stream(route, permit, slot, events),
            // The handler has run: there is no way back to its token.
            Err(AdmissionError::Changed) => unverified(&self.core, route, self.by_ticket),
            Err(no_place) => turned_away(route, no_place, self.by_ticket),
        }
    }

    pub(crate) fn principal(&self) -> Option<&Principal> {
        self.principal.as_ref()
    }

    pub(crate) fn cursor(&self) -> Option<&LastEventId> {
        self.cursor.as_ref().ok()
    }

    /// Permission; then what needs no stream: a cursor at the end, and `HEAD`.
    async fn permit(&self, route: &Route, target: RequestTarget) -> Result<Permit, Response> {
        let since = Instant::now();
        let asked = match (&self.principal, &route.rule) {
            (Some(who), rule) => Some(self.authorized(who, rule.as_ref(), route, target).await?),
            (None, Some(_)) => return Err(refuse(&route.path, Refusal::no_token())),
            (None, None) => None,
        };
        match &self.cursor {
            Err(refusal) => Err(refuse(&route.path, refusal.clone())),
            // To a browser `204` means: do not come back.
            Ok(cursor) if cursor.is_end() => Err(StatusCode::NO_CONTENT.into_response()),
            Ok(_) if self.head_only => Err(head(unsized_body(Bytes::new()))),
            Ok(_) => Ok(Permit { asked, since }),
        }
    }

    async fn authorized(
        &self,
        who: &Principal,
        rule: Option<&PermissionRule>,
        route: &Route,
        target: RequestTarget,
    ) -> Result<Arc<AccessRequest>, Response> {
        // An authenticator may round, or remember for too long; the stream would end as it begins.
        if who.expires_at().is_some_and(|expiry| expiry <= SystemTime::now()) {
            return Err(refuse(&route.path, Refusal::invalid_token("the token has expired")));
        }
        // Who brings a token where none is needed is known by it all the same.
        let rule = rule.map_or_else(
            || Ok(PermissionRule::any_token()),
            |rule| rule.resolved(&|name| capture(&target.captures, name)),
        );
        let rule = rule.map_err(|unresolved| refuse(&route.path, unresolved.into()))?;
        let RequestTarget { path, captures } = target;
        let asked = Arc::new(AccessRequest {
            principal: who.clone(),
            rule,
            target: Some(AccessTarget { endpoint: route.path.clone(), path, captures }),
        });
        let Core { permits, connections, .. } = &*self.core;
        let checked = connections.timed(&route.path, permits.check(asked.clone())).await;
        checked
            .map(|()| asked)
            .map_err(|refusal| turned_down(&self.core, route, refusal, self.by_ticket))
    }

    /// Admission, before any of the application's work starts.
    fn admit(&self, route: &Route) -> Result<Slot, AdmissionError> {
        let (path, policy) = (&route.path, route.policy());
        let limits = Limits {
            total: self.core.options.server.max_connections,
            on_path: policy.max_connections,
            of_subject: policy.max_per_principal,
            of_address: policy.max_per_address,
            connects_per_minute: self.core.options.server.connects_per_minute,
        };
        let (principal, address) = (self.principal.as_ref(), self.address);
        let caller = Caller { principal, address, looked_at: self.looked_at };
        self.core.connections.admit(path, caller, &limits)
    }

    /// The stream's answer: its head, and the writer as its body.
    fn stream(
        self,
        route: &Route,
        permit: Permit,
        slot: Slot,
        mut events: EventStream,
    ) -> Response {
        events.resume(self.cursor());
        let policy = route.policies.of(events.kind());
        let (timeout, sweeper) = (policy.write_timeout, &self.core.sweeper);
        let socket = self.socket.map(|socket| socket.arm(timeout));
        // Over HTTP/1.1 a client that takes nothing blocks its socket, which then tells.
        let socket_tells = socket.is_some() && self.version != http::Version::HTTP_2;
        let permits = Some(&self.core.permits).filter(|permits| permits.has_authorizer());
        let reauthorize = permits.zip(permit.asked).zip(policy.reauthorize);
        let reauthorize = reauthorize.map(|((permits, asked), every)| {
            Reauthorization::new(permits.clone(), asked, slot.origin(), every, permit.since)
        });
        let end = end(policy, self.principal.as_ref());
        let stay = Stay { end, reauthorize, again: !self.by_ticket };
        match (&self.reset, &socket) {
            (Some(reset), _) => {
                let reset = reset.clone();
                slot.on_cut(move |_| reset.0.cancel());
            }
            (None, Some(socket)) if socket_tells => {
                let hold = socket.hold();
                slot.on_cut(move |Ended(ended)| hold.cut(ended));
            }
            // It is lent.
            _ => {}
        }
        let (name, policy) = (route.event.clone(), policy.clone());
        slot.opened();
        if let Some(once) = &route.deprecated {
            once.call_once(|| telemetry::deprecated(&route.path));
        }
        let writer = |note| Writer::new(events, name, policy, slot, socket, note, stay);
        head(match self.reset {
            Some(reset) => {
                let give_up = move || {
                    reset.0.cancel();
                    true
                };
                Body::from_stream(writer(sweeper.watch(timeout, true, give_up)))
            }
            None if socket_tells => Body::from_stream(writer(None)),
            None => Body::from_stream(RevocableBody::new(sweeper, timeout, writer)),
        })
    }
}

/// When a stream under this policy, for this caller, must end.
fn end(policy: &Policy, principal: Option<&Principal>) -> Option<End> {
    // Streams that were opened together must not reconnect together.
    let age =
        policy.max_age.map(|age| (random_between(age.mul_f64(0.8), age), CloseReason::MaxAge));
    let token = principal.and_then(Principal::expires_at).map(|expiry| {
        let left = expiry.duration_since(SystemTime::now()).unwrap_or_default();
        (life_of_token(left), CloseReason::TokenExpired)
    });
    let (after, reason) = [age, token].into_iter().flatten().min_by_key(|(after, _)| *after)?;
    Some(End { at: Instant::now().checked_add(after)?, reason })
}

/// How long a stream goes on a token that is accepted for so long. Whoever comes back with what is left
/// of it gets a tenth at most the next time, and in the last minute everything: few streams a token.
fn life_of_token(left: Duration) -> Duration {
    const EXACT: Duration = Duration::from_secs(60);
    if left <= EXACT { left } else { random_between(left.mul_f64(0.9), left) }
}

/// What a function refuses with. Most successes would be its mistake: without the head of a stream
/// an `EventSource` gives up on them without a word.
fn no_success(path: &str, answer: Response) -> Response {
    let status = answer.status();
    if !status.is_success() || status == StatusCode::NO_CONTENT {
        return answer;
    }
    telemetry::refused_with_success(path, status.as_u16());
    Refusal::internal().into_response()
}

/// A refusal, as far as it says something of the caller.
fn turned_down(core: &Core, route: &Route, refusal: Refusal, by_ticket: bool) -> Response {
    let no_place = match refusal.failures() {
        Some(wait) => AdmissionError::Failures(wait),
        None if refusal.is_unverified() => AdmissionError::Unverified,
        None => return refuse(&route.path, refusal),
    };
    core.connections.count_turned_away(&route.path, no_place);
    turned_away(route, no_place, by_ticket)
}

/// Nobody can say any more that the caller may have a stream.
fn unverified(core: &Core, route: &Route, by_ticket: bool) -> Response {
    core.connections.count_turned_away(&route.path, AdmissionError::Unverified);
    turned_away(route, AdmissionError::Unverified, by_ticket)
}

/// The stream was asked to go before its function had made it.
fn withdrawn(route: &Route, reason: CloseReason, by_ticket: bool) -> Response {
    match reason {
        CloseReason::Revoked => refuse(&route.path, Refusal::revoked()),
        CloseReason::TokenExpired => {
            refuse(&route.path, Refusal::invalid_token("the token has expired"))
        }
        CloseReason::Unverified => turned_away(route, AdmissionError::Unverified, by_ticket),
        _ => turned_away(route, AdmissionError::Draining, by_ticket),
    }
}

fn refuse(path: &str, refusal: Refusal) -> Response {
    telemetry::refused(path, refusal.status().as_u16(), refusal.detail());
    refusal.into_response()
}

/// No place: for browsers a stream that asks them to come back, for others a status.
fn turned_away(route: &Route, no_place: AdmissionError, by_ticket: bool) -> Response {
    let wait = match no_place {
        AdmissionError::RateLimited(wait) | AdmissionError::Failures(wait) => wait,
        _ => Duration::ZERO,
    };
    let retry = route.policy().closing_retry(no_place.reason(), wait);
    match route.policy().over_limit {
        OverLimit::Retry => {
            let mut farewell = BytesMut::new();
            write_farewell(&mut farewell, no_place.reason(), retry, !by_ticket);
            head(unsized_body(farewell.freeze()))
        }
        OverLimit::Refuse => {
            use StatusCode as S;
            let (status, detail) = match no_place {
                AdmissionError::Unverified | AdmissionError::Changed => {
                    return refuse(&route.path, Refusal::unavailable());
                }
                AdmissionError::Draining => (S::SERVICE_UNAVAILABLE, "the server is stopping"),
                AdmissionError::Closed => {
                    (S::SERVICE_UNAVAILABLE, "this endpoint is closed for now")
                }
                AdmissionError::Total => {
                    (S::SERVICE_UNAVAILABLE, "too many open streams on this server")
                }
                AdmissionError::Path => {
                    (S::SERVICE_UNAVAILABLE, "too many open streams of this endpoint")
                }
                AdmissionError::Subject => (S::TOO_MANY_REQUESTS, "too many open streams of yours"),
                AdmissionError::Address => {
                    (S::TOO_MANY_REQUESTS, "too many open streams from your address")
                }
                AdmissionError::RateLimited(_) => {
                    (S::TOO_MANY_REQUESTS, "you opened too many streams within a minute")
                }
                AdmissionError::Failures(_) => (S::TOO_MANY_REQUESTS, TOO_MANY_FAILURES),
            };
            let seconds = retry.as_secs_f64().ceil() as u64;
            refuse(&route.path, Refusal::busy(status, detail, seconds))
        }
    }
}

/// A body whose length the head does not tell, as no stream's does.
fn unsized_body(bytes: Bytes) -> Body {
    Body::from_stream(futures_util::stream::iter([Ok::<_, Infallible>(bytes)]))
}

/// The head of every stream. `no-transform` and `x-accel-buffering` keep intermediaries from
/// collecting or recoding it; the URL, which may hold a token, is nobody's referrer.
fn head(body: Body) -> Response {
    const HEADERS: [(HeaderName, &str); 4] = [
        (CONTENT_TYPE, "text/event-stream"),
        (CACHE_CONTROL, "no-cache, no-store, no-transform"),
        (HeaderName::from_static("x-accel-buffering"), "no"),
        (REFERRER_POLICY, "no-referrer"),
    ];
    let mut response = Response::new(body);
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::StreamKind;

    /// However unlucky the moments at which its streams end, a token opens few of them.
    #[test]
    fn no_token_opens_more_than_a_few_streams_one_after_another() {
        for whole in [1, 29, 59, 60, 61, 66, 67, 600, 3_600, 86_400, 30 * 86_400] {
            let whole = Duration::from_secs(whole) + Duration::from_millis(987);
            for _ in 0..2_000 {
                let (mut left, mut streams) = (whole, 0);
                while !left.is_zero() {
                    let life = life_of_token(left);
                    assert!(life <= left && life >= left.mul_f64(0.9), "{life:?} of {left:?}");
                    left -= life;
                    streams += 1;
                }
                let tenths = (whole.as_secs_f64() / 60.0).log10().max(0.0).ceil() as u32;
                assert!(streams <= tenths + 1, "{streams} streams of {whole:?}");
            }
        }
    }

    #[test]
    fn what_comes_first_ends_a_stream_and_says_so() {
        let seconds = Duration::from_secs;
        let policies =
            |age: Option<Duration>| SseOptions::default().max_age(age).general_policies();
        let policy = |age| policies(age).private;
        let token = |left| Principal::new("ann").valid_until(SystemTime::now() + seconds(left));
        for (age, left, reason) in [
            (Some(seconds(100)), Some(1_000), Some(CloseReason::MaxAge)),
            (Some(seconds(1_000)), Some(100), Some(CloseReason::TokenExpired)),
            (Some(seconds(100)), None, Some(CloseReason::MaxAge)),
            (None, Some(50), Some(CloseReason::TokenExpired)),
            (None, None, None),
        ] {
            let end = end(&policy(age), left.map(token).as_ref());
            assert_eq!(end.map(|end| end.reason), reason, "{age:?} {left:?}");
        }
        let unset = SseOptions::default().general_policies();
        assert!(end(&unset.private, None).is_none(), "a cut would lose a private stream's work");
        let of_topic = end(unset.of(StreamKind::Subscription), None).expect("an end");
        let life = of_topic.at.saturating_duration_since(Instant::now());
        assert!(life > seconds(24 * 60 - 1) && life <= seconds(30 * 60), "{life:?}");
        assert!(end(policies(None).of(StreamKind::Subscription), None).is_none(), "off is off");
        let end = end(&policy(None), Some(&token(50))).expect("an end");
        let left = end.at.saturating_duration_since(Instant::now());
        assert!(left > seconds(49) && left <= seconds(50), "not to the moment: {left:?}");
    }
}
