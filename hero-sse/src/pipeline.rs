//! One request, from top to bottom: token, principal, permission, admission, function, stream.
//!
//! [`handle`] is where an endpoint's request starts. A `SseContext` takes the same steps, but its handler runs
//! between the first and the second: [`AuthenticatedRequest::authenticate`], the handler,
//! [`AuthenticatedRequest::answer_with`].
//!
//! Every step before the stream's head either succeeds, or returns the response that answers the request in
//! place of a stream: `Result<_, Response>`.

mod lifetime;
mod route;

use std::future::poll_fn;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Once};
use std::task::Poll;
use std::time::{Duration, SystemTime};

use axum::body::{Body, HttpBody as _};
use axum::extract::{FromRequestParts, RawPathParams, Request};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::StatusCode;
use http::request::Parts;
use tokio::time::{Instant, timeout};

use self::lifetime::scheduled_end;
pub(crate) use self::route::Route;
use self::route::{head_response, stream_response};
use crate::auth::{
    AccessControl, AccessRequest, AccessTarget, CallerResolved, Gate, Principal, StreamCaller,
    capture,
};
use crate::client_addr::TrustedProxies;
use crate::close::CloseReason;
use crate::connections::{
    AdmissionError, Attribution, Caller, Connection, Connections, Limits, Slot,
};
use crate::delivery::{Delivery, Sweeper};
use crate::endpoint::{EventStream, OpeningStream};
use crate::frame::LastEventId;
use crate::options::SseOptions;
use crate::permission::PermissionRule;
use crate::policy::{Method, Policy, StreamKind};
use crate::refusal::{Refusal, RefusalFormat, described};
use crate::telemetry;
use crate::writer::{Lifetime, OpenedStream, Opening, Reauthorization, Source, Writer};

/// How often a request is checked, at most: again after each disconnect that overtakes it.
const MAX_CHECKS: usize = 3;

/// The time in which the end of an empty body must arrive. A gateway sends it with the head or right after it.
const EMPTY_BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// What all requests share.
pub(crate) struct Core {
    pub(crate) options: SseOptions,
    pub(crate) proxies: TrustedProxies,
    pub(crate) gate: Gate,
    pub(crate) access: AccessControl,
    pub(crate) connections: Connections,
    pub(crate) sweeper: Sweeper,
    /// The format of refusals. `None`: problem details.
    pub(crate) refusals: Option<RefusalFormat>,
    /// Logs once that connections are not guarded.
    pub(crate) unguarded: Once,
}

/// Extracts the arguments of an endpoint's function and calls it. Boxed, as the future of [`handle`] is, so that the
/// steps of a request are compiled once with this crate and not in each application.
pub(crate) type Open = Box<dyn FnOnce(Request) -> OpeningStream + Send>;

/// Answers one request to `route`.
pub(crate) fn handle(
    core: Arc<Core>,
    route: Arc<Route>,
    request: Request,
    open: Open,
) -> BoxFuture<'static, Response> {
    Box::pin(async move { answer(&core, &route, request, open).await })
}

async fn answer(core: &Arc<Core>, route: &Arc<Route>, request: Request, open: Open) -> Response {
    let (mut parts, mut body) = request.into_parts();
    let mut principal = None;
    let admitted = admit(core, route, &mut parts, &mut body, &mut principal).await;
    let opened = match admitted {
        Ok((request, permit, slot)) => {
            request.open_stream(route, permit, slot, parts, body, open).await
        }
        Err(response) => Err(response),
    };
    let mut response = opened.unwrap_or_else(|response| response);
    response = route.formatted(response);
    // For outer layers, such as an access log.
    if let Some(principal) = principal {
        response.extensions_mut().insert(principal);
    }
    response
}

/// Takes every step before the endpoint's function. `principal` is set as soon as it is known.
async fn admit(
    core: &Arc<Core>,
    route: &Route,
    parts: &mut Parts,
    body: &mut Body,
    principal: &mut Option<Principal>,
) -> Result<(AuthenticatedRequest, Permit, Slot), Response> {
    let by_ticket = core.gate.has_ticket(parts);
    for _ in 0..MAX_CHECKS {
        let request = AuthenticatedRequest::authenticate(core, parts, route.policy()).await;
        let request = request.map_err(|refusal| refuse(core, route, refusal, by_ticket))?;
        principal.clone_from(&request.principal);
        let target = RequestTarget::of(core, route.rule_has_captures, parts).await;
        let permit = request.authorize(route, target).await?;
        if route.method == Method::Get {
            read_empty(body).await.map_err(|refusal| route.refuse(refusal))?;
        }
        match request.take_slot(route) {
            Ok(slot) => return Ok((request, permit, slot)),
            // A ticket is spent: it cannot be checked again.
            Err(AdmissionError::Changed) if by_ticket => break,
            Err(AdmissionError::Changed) => {}
            Err(error) => return Err(route.reject(error, !by_ticket)),
        }
    }
    Err(unverified(core, route, by_ticket))
}

/// Reads the body of a `GET` to its end. An unread body would hide that the client has disconnected.
///
/// Gateways frame "no body" as an empty one: a last chunk over HTTP/1.1, a `DATA` frame without bytes over HTTP/2. It may
/// arrive after the head. The client holds no slot meanwhile.
async fn read_empty(body: &mut Body) -> Result<(), Refusal> {
    if body.is_end_stream() {
        return Ok(());
    }
    let read = async {
        while let Some(frame) = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await {
            // An error is a malformed or incomplete body.
            if frame.map_or(true, |frame| frame.data_ref().is_some_and(|data| !data.is_empty())) {
                return Err(Refusal::bad_request("a request by GET has no body here"));
            }
        }
        Ok(())
    };
    timeout(EMPTY_BODY_TIMEOUT, read).await.unwrap_or_else(|_| Err(Refusal::body_timeout()))
}

/// The path and the captures of a request, for authorizers and for permissions with captures. Empty where
/// neither needs them.
#[derive(Default)]
pub(crate) struct RequestTarget {
    path: Box<str>,
    captures: Box<[(Box<str>, Box<str>)]>,
}

impl RequestTarget {
    pub(crate) async fn of(core: &Core, rule_has_captures: bool, parts: &mut Parts) -> Self {
        if !rule_has_captures && !core.access.has_authorizer() {
            return Self::default();
        }
        let path = parts.uri.path().into();
        // Fails for a path without captures, and for a capture that is not UTF-8.
        let captures = RawPathParams::from_request_parts(parts, &()).await.ok();
        let captures = captures.iter().flatten().map(|(key, value)| (key.into(), value.into()));
        Self { path, captures: captures.collect() }
    }
}

/// The caller's permission to open the stream.
struct Permit {
    /// What was asked for. `None` if the endpoint asks nothing of an anonymous caller.
    access_request: Option<Arc<AccessRequest>>,
    /// When it was checked.
    since: Instant,
}

/// A request whose caller is known.
pub(crate) struct AuthenticatedRequest {
    core: Arc<Core>,
    principal: Option<Principal>,
    /// A ticket opens one stream, so the same request cannot open it again.
    by_ticket: bool,
    address: Option<IpAddr>,
    /// The id that the handler knows already.
    id: Option<u64>,
    /// Number of disconnects before the caller was checked.
    disconnects_before: u64,
    /// Why the caller's cookie was not accepted.
    refused_cookie: Option<Refusal>,
    cursor: LastEventId,
    delivery: Delivery,
    head_only: bool,
}

impl AuthenticatedRequest {
    /// Step 1: checks the token or ticket, and determines the principal.
    pub(crate) async fn authenticate(
        core: &Arc<Core>,
        parts: &Parts,
        policy: &Policy,
    ) -> Result<Self, Refusal> {
        let disconnects = core.connections.disconnects();
        let caller = core.gate.caller(parts, policy.token_sources, disconnects);
        let StreamCaller { principal, disconnects, refused_cookie } = caller.await?;
        let cursor = LastEventId::from_parts(parts);
        let delivery = Delivery::of(parts);
        if delivery.is_unguarded() {
            core.unguarded.call_once(telemetry::unguarded);
        }
        Ok(Self {
            core: core.clone(),
            principal,
            by_ticket: core.gate.has_ticket(parts),
            address: core.proxies.client_of(parts),
            id: None,
            disconnects_before: disconnects,
            refused_cookie,
            cursor,
            delivery,
            head_only: parts.method == http::Method::HEAD,
        })
    }

    /// Step 2: checks the permission. Then answers requests that need no stream: with a cursor at the end of
    /// the stream, and by `HEAD`.
    async fn authorize(&self, route: &Route, target: RequestTarget) -> Result<Permit, Response> {
        let since = Instant::now();
        let access_request = match (&self.principal, &route.rule) {
            (Some(caller), rule) => {
                Some(self.check_permission(caller, rule.as_ref(), route, target).await?)
            }
            (None, Some(_)) => {
                let refusal = self.refused_cookie.clone().unwrap_or_else(Refusal::no_token);
                return Err(route.refuse(refusal));
            }
            (None, None) => None,
        };
        // `204` tells a browser not to reconnect.
        if self.cursor.is_end() && !route.policy().profile.is_plain() {
            return Err(StatusCode::NO_CONTENT.into_response());
        }
        if self.head_only {
            return Err(head_response());
        }
        Ok(Permit { access_request, since })
    }

    async fn check_permission(
        &self,
        caller: &Principal,
        rule: Option<&PermissionRule>,
        route: &Route,
        target: RequestTarget,
    ) -> Result<Arc<AccessRequest>, Response> {
        // An authenticator may round times, or cache for too long. The stream would end at once.
        if caller.expires_at().is_some_and(|expiry| expiry <= SystemTime::now()) {
            return Err(route.refuse(Refusal::invalid_token("the token has expired")));
        }
        // A public endpoint asks for no permission, but a caller with a token is known by it.
        let rule = rule.map_or_else(
            || Ok(PermissionRule::any_token()),
            |rule| rule.resolved(&|name| capture(&target.captures, name)),
        );
        let rule = rule.map_err(|unresolved| route.refuse(unresolved.into()))?;
        let RequestTarget { path, captures } = target;
        let access_request = Arc::new(AccessRequest {
            principal: caller.clone(),
            rule,
            target: Some(AccessTarget { endpoint: route.path.clone(), path, captures }),
        });
        let Core { access, connections, .. } = &*self.core;
        let checked = connections.timed(&route.path, access.check(access_request.clone())).await;
        checked
            .map(|()| access_request)
            .map_err(|refusal| refuse(&self.core, route, refusal, self.by_ticket))
    }

    /// Step 3: admission. It comes before user code does any work for the stream.
    fn take_slot(&self, route: &Route) -> Result<Slot, AdmissionError> {
        let (path, policy) = (&route.path, route.policy());
        let limits = Limits {
            total: self.core.options.server.max_connections,
            per_path: policy.max_connections,
            per_principal: policy.max_per_principal,
            per_address: policy.max_per_address,
            connects_per_minute: self.core.options.server.connects_per_minute,
        };
        let slot = self.core.connections.admit(path, self.caller(), &limits)?;
        if !policy.direct_events {
            slot.refuse_direct_events();
        }
        Ok(slot)
    }

    fn caller(&self) -> Caller<'_> {
        let Self { address, id, disconnects_before, .. } = *self;
        Caller { principal: self.principal.as_ref(), address, id, disconnects_before }
    }

    /// Returns what the stream will be for user code if it is admitted at `path`, and keeps its id.
    pub(crate) fn connection(&mut self, path: &Arc<str>) -> Connection {
        let connection = self.core.connections.reserve(path, self.caller());
        self.id = Some(connection.id());
        connection
    }

    /// Step 4: runs the endpoint's function, then starts its stream.
    async fn open_stream(
        self,
        route: &Arc<Route>,
        permit: Permit,
        mut slot: Slot,
        mut parts: Parts,
        body: Body,
        open: Open,
    ) -> Result<Response, Response> {
        self.attach_principal(&mut parts);
        parts.extensions.insert(slot.connection());
        let opening = async { open(Request::from_parts(parts, body)).await };
        let opening = AssertUnwindSafe(slot.attribution().timed(opening)).catch_unwind();
        let mut opening = Box::pin(opening);
        if route.policy().early {
            let opening = self.open_early(route, slot.attribution(), opening);
            return Ok(self.start(route, permit, slot, Source::Opening(opening)));
        }
        // The function of a `POST` may finish what it has begun, unless access is withdrawn.
        let end_request = poll_fn(|cx| match slot.poll_end_request(cx) {
            Some(reason) if route.method == Method::Get || reason.is_withdrawal() => {
                Poll::Ready(reason)
            }
            _ => Poll::Pending,
        });
        let opened = tokio::select! {
            biased;
            reason = end_request => {
                drop_user_value(opening, route, "endpoint function's drop");
                slot.close(reason);
                return Err(route.ended_before_start(reason, !self.by_ticket));
            }
            opened = &mut opening => opened.unwrap_or_else(|_| {
                telemetry::panicked(&route.path, "endpoint function");
                Err(route.refuse(Refusal::internal()))
            }),
        };
        match opened {
            Ok(events) => Ok(self.start_stream(route, permit, slot, events)),
            Err(response) => {
                slot.release_unused();
                Err(route.checked_answer(response))
            }
        }
    }

    /// Passes the principal to the request's extractors, as a final answer. An extractor would otherwise check
    /// the token again, by the general rules instead of the endpoint's.
    pub(crate) fn attach_principal(&self, parts: &mut Parts) {
        parts.extensions.insert(CallerResolved);
        if let Some(principal) = &self.principal {
            parts.extensions.insert(principal.clone());
        }
    }

    /// Step 5: the response. Its body is the stream's writer.
    fn start_stream(
        self,
        route: &Route,
        permit: Permit,
        slot: Slot,
        events: EventStream,
    ) -> Response {
        let mut events = match resumed(events, route, &self.cursor) {
            Ok(events) => events,
            Err(Unsendable::Fault(fault)) => {
                slot.release_unused();
                telemetry::unusable_stream(&route.path, &fault);
                return route.refuse(Refusal::internal());
            }
            Err(Unsendable::Gap) => {
                slot.attribution().gap();
                slot.release_unused();
                return route.refuse(Refusal::missed_events());
            }
        };
        let head = events.take_head();
        let mut response = self.start(route, permit, slot, Source::Ready(events));
        if let Some(head) = head {
            route.add_head(&mut response, *head);
        }
        response
    }

    /// Step 4 after the head: what the function returns goes to the stream's writer.
    fn open_early(
        &self,
        route: &Arc<Route>,
        attribution: Attribution,
        function: impl Future<Output = std::thread::Result<Result<EventStream, Response>>>
        + Send
        + 'static,
    ) -> Opening {
        let (cursor, principal) = (self.cursor.clone(), self.principal.clone());
        let end = scheduled_end(route.policy(), principal.as_ref());
        let (route, of_stream) = (route.clone(), attribution.clone());
        let method = route.method;
        let function = async move {
            let failed = |error: String| {
                telemetry::stream_error(&route.path, of_stream.id(), &error);
                CloseReason::StreamError
            };
            let mut events = match function.await {
                Err(_) => {
                    telemetry::panicked(&route.path, "endpoint function");
                    return Err(CloseReason::StreamPanic);
                }
                Ok(Err(response)) => return Err(failed(described(response))),
                Ok(Ok(events)) => events,
            };
            if events.take_head().is_some() {
                telemetry::head_too_late(&route.path, of_stream.id());
            }
            let events = match resumed(events, &route, &cursor) {
                Ok(events) => events,
                Err(Unsendable::Fault(fault)) => return Err(failed(fault)),
                Err(Unsendable::Gap) => {
                    of_stream.gap();
                    return Err(CloseReason::Gap);
                }
            };
            let policy = route.policies.of(events.kind()).clone();
            let end = match events.kind() {
                StreamKind::Private => end,
                StreamKind::Subscription => scheduled_end(&policy, principal.as_ref()),
            };
            Ok(OpenedStream { events, name: route.event.clone(), policy, end })
        };
        Opening::new(Box::pin(function), method, attribution)
    }

    /// Starts the stream of a source that can be sent.
    fn start(self, route: &Route, permit: Permit, mut slot: Slot, source: Source) -> Response {
        let kind = match &source {
            Source::Ready(events) => events.kind(),
            Source::Opening(_) => StreamKind::Private,
        };
        let policy = route.policies.of(kind);
        let Core { access, sweeper, .. } = &*self.core;
        // The claims of a token never change, so only an authorizer's answer is worth another check.
        let recheck =
            permit.access_request.zip(policy.reauthorize).filter(|_| access.has_authorizer());
        let reauthorization = recheck.map(|(access_request, interval)| {
            let (access, attribution) = (access.clone(), slot.attribution());
            Box::new(Reauthorization::new(
                access,
                access_request,
                attribution,
                interval,
                permit.since,
            ))
        });
        let end = scheduled_end(policy, self.principal.as_ref());
        let drain_timeout = self.core.options.server.drain_timeout;
        let can_reopen = !self.by_ticket;
        let lifetime = Lifetime { end, reauthorization, drain_timeout, can_reopen };
        slot.opened();
        route.log_if_deprecated();
        let (event, policy) = (route.event.clone(), policy.clone());
        let write_timeout = policy.write_timeout;
        stream_response(self.delivery.body(write_timeout, sweeper, slot, |slot, delivery| {
            Writer::new(source, event, policy, slot, delivery, lifetime)
        }))
    }

    /// The remaining steps for a stream that the handler has made already.
    pub(crate) async fn answer_with(
        self,
        route: &Route,
        target: RequestTarget,
        events: EventStream,
    ) -> Response {
        let permit = match self.authorize(route, target).await {
            Ok(permit) => permit,
            Err(response) => return route.formatted(response),
        };
        let response = match self.take_slot(route) {
            Ok(slot) => self.start_stream(route, permit, slot, events),
            // The handler has run, so the token cannot be checked again.
            Err(AdmissionError::Changed) => unverified(&self.core, route, self.by_ticket),
            Err(error) => route.reject(error, !self.by_ticket),
        };
        route.formatted(response)
    }

    pub(crate) fn principal(&self) -> Option<&Principal> {
        self.principal.as_ref()
    }

    pub(crate) fn cursor(&self) -> &LastEventId {
        &self.cursor
    }
}

/// Why a stream that the function returned cannot be sent.
enum Unsendable {
    /// A mistake of the application.
    Fault(String),
    /// The client has missed events, and a plain stream cannot tell it.
    Gap,
}

/// Lets a stream continue after the client's last event. One that cannot be sent is dropped.
fn resumed(
    mut events: EventStream,
    route: &Route,
    cursor: &LastEventId,
) -> Result<EventStream, Unsendable> {
    let checked = events.check().map_err(Unsendable::Fault).and_then(|()| {
        events.resume(cursor);
        let is_plain = route.policies.of(events.kind()).profile.is_plain();
        match is_plain && events.has_unanswered_gap() {
            true => Err(Unsendable::Gap),
            false => Ok(()),
        }
    });
    match checked {
        Ok(()) => Ok(events),
        Err(why) => {
            drop_user_value(events, route, "stream's drop");
            Err(why)
        }
    }
}

/// Drops a value of the application. The drop is user code as well.
fn drop_user_value<T>(value: T, route: &Route, what: &'static str) {
    if catch_unwind(AssertUnwindSafe(|| drop(value))).is_err() {
        telemetry::panicked(&route.path, what);
    }
}

/// Answers with a refusal. One that says nothing about the caller itself counts and is answered as a rejected
/// request: the caller may retry.
fn refuse(core: &Core, route: &Route, refusal: Refusal, by_ticket: bool) -> Response {
    let error = match refusal.failures() {
        Some(wait) => AdmissionError::FailedAttempts(wait),
        None if refusal.is_unverified() => AdmissionError::Unverified,
        None => return route.refuse(refusal),
    };
    core.connections.count_rejected(&route.path, error);
    route.reject(error, !by_ticket)
}

/// Answers a request whose caller cannot be verified any more.
fn unverified(core: &Core, route: &Route, by_ticket: bool) -> Response {
    core.connections.count_rejected(&route.path, AdmissionError::Unverified);
    route.reject(AdmissionError::Unverified, !by_ticket)
}
