//! One request, from top to bottom: token, principal, permission, admission, function, stream.

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Once};
use std::task::Poll;
use std::time::{Duration, SystemTime};

use axum::body::{Body, HttpBody as _};
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, REFERRER_POLICY};
use http::request::Parts;
use http::{HeaderName, HeaderValue, StatusCode};
use tokio::time::Instant;

use crate::auth::{Gate, LookedFor, Principal};
use crate::close::CloseReason;
use crate::connections::{Caller, Connections, Limits, NoPlace, Slot};
use crate::deadline::{SocketWatch, StreamReset};
use crate::descriptor::{Declaration, Method};
use crate::endpoint::{EventStream, Opening};
use crate::frame::{EventName, LastEventId};
use crate::options::SseOptions;
use crate::permission::PermissionRule;
use crate::policy::{OverLimit, Policy, TokenSource};
use crate::refusal::{Refusal, TOO_MANY_FAILURES};
use crate::sweeper::Sweeper;
use crate::telemetry;
use crate::writer::{End, Lent, Writer, write_farewell};

/// What all requests share.
pub(crate) struct Kit {
    pub(crate) options: SseOptions,
    pub(crate) gate: Gate,
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
    pub(crate) method: Method,
    /// Whether the log must still tell that the endpoint, which will go, is used.
    deprecated: Option<Once>,
    pub(crate) policy: Arc<Policy>,
}

impl Route {
    pub(crate) fn new(declaration: Declaration, options: &SseOptions) -> Self {
        let Declaration { path, event, rule, method, deprecated, overrides, .. } = declaration;
        let mut policy = options.policy(&path, &overrides);
        // Whoever can send a body can send a header.
        if method == Method::Post {
            policy.token_sources = policy.token_sources.without(TokenSource::Query);
        }
        let deprecated = deprecated.then(Once::new);
        Self { path: path.into(), event, rule, method, deprecated, policy: Arc::new(policy) }
    }
}

/// Answers one request to `route`; `open` extracts the arguments and calls the function.
pub(crate) async fn answer(
    kit: &Arc<Kit>,
    route: &Route,
    request: Request,
    open: impl FnOnce(Request) -> Opening,
) -> Response {
    let (parts, body) = request.into_parts();
    let visit = match Visit::begin(kit, &parts, &route.policy).await {
        Ok(visit) => visit,
        Err(refusal) => return turned_down(kit, route, refusal, kit.gate.by_ticket(&parts)),
    };
    let principal = visit.principal.clone();
    let mut response = match visit.proceed(route, parts, body, open).await {
        Ok(stream) => stream,
        Err(answer) => answer,
    };
    // For layers further out, such as an access log: who asked.
    if let Some(principal) = principal {
        response.extensions_mut().insert(principal);
    }
    response
}

/// A request whose caller is known, on its way to a stream.
pub(crate) struct Visit {
    kit: Arc<Kit>,
    principal: Option<Principal>,
    /// Whether it came by a ticket, which is spent: the same request cannot open its stream again.
    by_ticket: bool,
    address: Option<IpAddr>,
    cursor: Result<LastEventId, Refusal>,
    socket: Option<Arc<SocketWatch>>,
    /// Over HTTP/2, under our own transport.
    reset: Option<StreamReset>,
    version: http::Version,
    head_only: bool,
}

impl Visit {
    /// Token and principal.
    pub(crate) async fn begin(
        kit: &Arc<Kit>,
        parts: &Parts,
        policy: &Policy,
    ) -> Result<Self, Refusal> {
        let principal = kit.gate.visitor(parts, policy.token_sources).await?;
        let cursor = LastEventId::from_parts(parts);
        let socket = parts.extensions.get::<Arc<SocketWatch>>().cloned();
        if socket.is_none() {
            kit.no_transport.call_once(telemetry::no_transport);
        }
        Ok(Self {
            kit: kit.clone(),
            principal,
            by_ticket: kit.gate.by_ticket(parts),
            address: kit.options.proxies.client_of(parts),
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
        mut parts: Parts,
        body: Body,
        open: impl FnOnce(Request) -> Opening,
    ) -> Result<Response, Response> {
        self.permit(route)?;
        // Unread, it would hide the client's departure.
        if route.method == Method::Get && !body.is_end_stream() {
            let refusal = Refusal::bad_request("a request by GET has no body here".to_owned());
            return Err(refuse(&route.path, refusal));
        }
        let mut slot = self.admit(route)?;
        self.introduce(&mut parts);
        let opening = async { open(Request::from_parts(parts, body)).await };
        let opening = AssertUnwindSafe(slot.origin().timed(opening)).catch_unwind();
        // What a `POST` has begun it may finish.
        let asked = poll_fn(|cx| match slot.poll_asked(cx) {
            Some(reason) if route.method == Method::Get => Poll::Ready(reason),
            _ => Poll::Pending,
        });
        let opened = tokio::select! {
            biased;
            reason = asked => {
                slot.close(reason);
                return Err(turned_away(route, NoPlace::Draining, self.by_ticket));
            }
            opened = opening => opened.unwrap_or_else(|_| {
                telemetry::panicked(&route.path, "endpoint function");
                Err(refuse(&route.path, Refusal::internal()))
            }),
        };
        match opened {
            Ok(events) => Ok(self.stream(route, slot, events)),
            Err(answer) => {
                slot.withdraw();
                Err(no_success(&route.path, answer))
            }
        }
    }

    /// Tells the extractors of this request who is asking. The answer is final: the gate goes, which
    /// would look again, by the kit's rules instead of the endpoint's.
    pub(crate) fn introduce(&self, parts: &mut Parts) {
        parts.extensions.remove::<Gate>();
        parts.extensions.insert(LookedFor);
        if let Some(principal) = &self.principal {
            parts.extensions.insert(principal.clone());
        }
    }

    /// The steps of a stream that the application has made already.
    pub(crate) fn answer(self, route: &Route, events: EventStream) -> Response {
        let admitted = self.permit(route).and_then(|()| self.admit(route));
        match admitted {
            Ok(slot) => self.stream(route, slot, events),
            Err(answer) => answer,
        }
    }

    pub(crate) fn principal(&self) -> Option<&Principal> {
        self.principal.as_ref()
    }

    pub(crate) fn cursor(&self) -> Option<&LastEventId> {
        self.cursor.as_ref().ok()
    }

    /// Permission; then what needs no stream: a cursor at the end, and `HEAD`.
    fn permit(&self, route: &Route) -> Result<(), Response> {
        if let Some(rule) = &route.rule {
            let principal = self.principal.as_ref().ok_or_else(Refusal::no_token);
            principal.and_then(|who| who.meets(rule)).map_err(|r| refuse(&route.path, r))?;
        }
        match &self.cursor {
            Err(refusal) => Err(refuse(&route.path, refusal.clone())),
            // To a browser `204` means: do not come back.
            Ok(cursor) if cursor.is_end() => Err(StatusCode::NO_CONTENT.into_response()),
            Ok(_) if self.head_only => Err(head(unsized_body(Bytes::new()))),
            Ok(_) => Ok(()),
        }
    }

    /// Admission, before any of the application's work starts.
    fn admit(&self, route: &Route) -> Result<Slot, Response> {
        let Route { path, policy, .. } = route;
        let limits = Limits {
            total: self.kit.options.max_connections,
            on_path: policy.max_connections,
            of_subject: policy.max_per_principal,
            of_address: policy.max_per_address,
            connects_per_minute: self.kit.options.connects_per_minute,
        };
        let caller = Caller { principal: self.principal.as_ref(), address: self.address };
        let admitted = self.kit.connections.admit(path, caller, &limits);
        admitted.map_err(|no_place| turned_away(route, no_place, self.by_ticket))
    }

    /// The stream's answer: its head, and the writer as its body.
    fn stream(self, route: &Route, slot: Slot, events: EventStream) -> Response {
        let (timeout, sweeper) = (route.policy.write_timeout, &self.kit.sweeper);
        let socket = self.socket.map(|socket| socket.arm(timeout));
        // Over HTTP/1.1 a client that takes nothing blocks its socket, which then tells.
        let socket_tells = socket.is_some() && self.version != http::Version::HTTP_2;
        let end = end(&route.policy, self.principal.as_ref());
        let (name, policy) = (route.event.clone(), route.policy.clone());
        slot.opened();
        if let Some(once) = &route.deprecated {
            once.call_once(|| telemetry::deprecated(&route.path));
        }
        let again = !self.by_ticket;
        let writer = |note| Writer::new(events, name, policy, slot, socket, note, end, again);
        head(match self.reset {
            Some(reset) => {
                let give_up = move || {
                    reset.0.cancel();
                    true
                };
                Body::from_stream(writer(sweeper.watch(timeout, true, give_up)))
            }
            None if socket_tells => Body::from_stream(writer(None)),
            None => Body::from_stream(Lent::new(sweeper, timeout, writer)),
        })
    }
}

/// When a stream under this policy, for this caller, must end.
fn end(policy: &Policy, principal: Option<&Principal>) -> Option<End> {
    // Spread, so that streams which began together do not come back together.
    let spread = |whole: Duration, share: f64| whole.mul_f64(1.0 - share * fastrand::f64());
    let age = policy.max_age.map(|age| (spread(age, 0.2), CloseReason::MaxAge));
    let token = principal.and_then(Principal::expires_at).map(|expiry| {
        let left = expiry.duration_since(SystemTime::now()).unwrap_or_default();
        (spread(left, 0.1), CloseReason::TokenExpired)
    });
    let (after, reason) = [age, token].into_iter().flatten().min_by_key(|(after, _)| *after)?;
    Some(End { at: Instant::now().checked_add(after)?, reason })
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
fn turned_down(kit: &Kit, route: &Route, refusal: Refusal, by_ticket: bool) -> Response {
    let no_place = match refusal.failures() {
        Some(wait) => NoPlace::Failures(wait),
        None if refusal.is_unverified() => NoPlace::Unverified,
        None => return refuse(&route.path, refusal),
    };
    kit.connections.count_turned_away(&route.path, no_place);
    turned_away(route, no_place, by_ticket)
}

fn refuse(path: &str, refusal: Refusal) -> Response {
    telemetry::refused(path, refusal.status().as_u16(), refusal.detail());
    refusal.into_response()
}

/// No place: for browsers a stream that asks them to come back, for others a status.
fn turned_away(route: &Route, no_place: NoPlace, by_ticket: bool) -> Response {
    let wait = match no_place {
        NoPlace::Churn(wait) | NoPlace::Failures(wait) => wait,
        _ => Duration::ZERO,
    };
    let retry = route.policy.farewell_retry(no_place.reason(), wait);
    match route.policy.over_limit {
        OverLimit::Retry => {
            let mut farewell = BytesMut::new();
            write_farewell(&mut farewell, no_place.reason(), retry, !by_ticket);
            head(unsized_body(farewell.freeze()))
        }
        OverLimit::Refuse => {
            use StatusCode as S;
            let (status, detail) = match no_place {
                NoPlace::Unverified => return refuse(&route.path, Refusal::unavailable()),
                NoPlace::Draining => (S::SERVICE_UNAVAILABLE, "the server is stopping"),
                NoPlace::Closed => (S::SERVICE_UNAVAILABLE, "this endpoint is closed for now"),
                NoPlace::Total => (S::SERVICE_UNAVAILABLE, "too many open streams on this server"),
                NoPlace::Path => (S::SERVICE_UNAVAILABLE, "too many open streams of this endpoint"),
                NoPlace::Subject => (S::TOO_MANY_REQUESTS, "too many open streams of yours"),
                NoPlace::Address => {
                    (S::TOO_MANY_REQUESTS, "too many open streams from your address")
                }
                NoPlace::Churn(_) => {
                    (S::TOO_MANY_REQUESTS, "you opened too many streams within a minute")
                }
                NoPlace::Failures(_) => (S::TOO_MANY_REQUESTS, TOO_MANY_FAILURES),
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
