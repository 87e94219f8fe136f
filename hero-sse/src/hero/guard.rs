//! Streams under other servers than [`HeroSse::serve`].

use std::any::Any;
use std::convert::Infallible;
use std::fmt;
use std::future::{Ready, ready};
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::extract::ConnectInfo;
use axum::serve::{IncomingStream, Listener};
use http::{Extensions, Request};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tower::Service;

use super::HeroSse;
use crate::delivery::{GuardedIo, SocketWatch};
use crate::redact::{RedactLayer, Removed, redact};
use crate::telemetry;
use crate::transport::set_up;

impl HeroSse {
    /// Prepares a listener and an application for `axum::serve`. Prefer [`serve`](Self::serve), which does more.
    ///
    /// | | `guard` | `serve` |
    /// |---|---|---|
    /// | write timeout, peer timeout, small kernel buffers | yes | yes |
    /// | tokens leave the URI before any layer of `app` runs | yes | yes |
    /// | requests carry [`ConnectInfo`] | yes | yes |
    /// | a stalled HTTP/2 client | its stream is dropped; it notices when it reads again | its stream is reset |
    /// | a shutdown ends the streams | call [`drain`](Self::drain) when it begins | yes |
    /// | bounds of hyper's buffers, timeout for clients that send no request | no | yes |
    ///
    /// The graceful shutdown of `axum::serve` waits for streams, so it must begin with [`drain`](Self::drain).
    /// `into_make_service_with_connect_info` is not needed.
    ///
    /// ```no_run
    /// # async fn run(sse: hero_sse::HeroSse, app: hero_sse::axum::Router) -> std::io::Result<()> {
    /// let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    /// let (listener, app) = sse.guard(listener, app);
    /// hero_sse::axum::serve(listener, app)
    ///     .with_graceful_shutdown(async move {
    ///         hero_sse::shutdown_signal().await;
    ///         sse.drain();
    ///     })
    ///     .await
    /// # }
    /// ```
    pub fn guard<L: Listener, A>(
        &self,
        listener: L,
        app: A,
    ) -> (GuardedListener<L>, GuardedApp<A>) {
        telemetry::guarded();
        self.0.readiness.start();
        (GuardedListener { sse: self.clone(), listener }, GuardedApp { sse: self.clone(), app })
    }

    /// Guards one connection, for servers other than `axum::serve`. Returns the guarded socket and the service for
    /// the connection's requests.
    ///
    /// It must get the socket before anything is read or written through it, TLS included. What it does and what
    /// only [`serve`](Self::serve) does is in the table of [`guard`](Self::guard). Requests carry [`ConnectInfo`]
    /// if the socket is a [`TcpStream`].
    ///
    /// For `axum-server` 0.8, write an acceptor. It works with and without TLS on top of it:
    ///
    /// ```
    /// # mod axum_server { pub mod accept {
    /// #     pub trait Accept<I, S> {
    /// #         type Stream; type Service; type Future;
    /// #         fn accept(&self, stream: I, service: S) -> Self::Future;
    /// #     }
    /// # } }
    /// use std::future::{Ready, ready};
    /// use std::io;
    ///
    /// use axum_server::accept::Accept;
    /// use hero_sse::HeroSse;
    /// use hero_sse::server::{GuardedIo, GuardedService};
    /// use tokio::net::TcpStream;
    ///
    /// #[derive(Clone)]
    /// struct Guard(HeroSse);
    ///
    /// impl<S> Accept<TcpStream, S> for Guard {
    ///     type Stream = GuardedIo<TcpStream>;
    ///     type Service = GuardedService<S>;
    ///     type Future = Ready<io::Result<(Self::Stream, Self::Service)>>;
    ///
    ///     fn accept(&self, socket: TcpStream, service: S) -> Self::Future {
    ///         ready(Ok(self.0.guard_connection(socket, service)))
    ///     }
    /// }
    ///
    /// // axum_server::from_tcp(listener)?.acceptor(Guard(sse)).serve(app.into_make_service())
    /// // over TLS: .acceptor(RustlsAcceptor::new(config).acceptor(Guard(sse)))
    /// ```
    pub fn guard_connection<I, S>(&self, socket: I, service: S) -> (GuardedIo<I>, GuardedService<S>)
    where
        I: AsyncRead + AsyncWrite + Unpin + Any,
    {
        let peer = (&socket as &dyn Any).downcast_ref::<TcpStream>();
        let peer = peer.and_then(|socket| socket.peer_addr().ok());
        let socket = self.guarded(socket);
        let service = self.service(service, socket.watch(), peer);
        (socket, service)
    }

    /// Returns a layer that removes tokens from requests, for a router under a server without
    /// [`serve`](Self::serve) and [`guard`](Self::guard).
    ///
    /// `access_token` leaves the URI, and so does `ticket` on a server with tickets. The values of credential headers print
    /// as `Sensitive`. The layer must be the outermost one, so add it last: layers outside of it see the token. Under `serve` and
    /// `guard` it has no effect.
    ///
    /// ```no_run
    /// # async fn run(
    /// #     sse: hero_sse::HeroSse,
    /// #     app: hero_sse::axum::Router,
    /// #     listener: tokio::net::TcpListener,
    /// # ) -> std::io::Result<()> {
    /// let app = app.layer(sse.redact_layer());
    /// hero_sse::axum::serve(listener, app).await
    /// # }
    /// ```
    pub fn redact_layer(&self) -> RedactLayer {
        RedactLayer { removed: self.removed_parameters() }
    }

    fn guarded<I: AsyncRead + AsyncWrite + Unpin + Any>(&self, socket: I) -> GuardedIo<I> {
        let peer_timeout = self.core().options.server.peer_timeout;
        set_up(&socket, peer_timeout);
        GuardedIo::new(socket, Arc::new(SocketWatch::default()), peer_timeout)
    }

    fn service<S, P>(
        &self,
        service: S,
        watch: &Arc<SocketWatch>,
        peer: Option<P>,
    ) -> GuardedService<S>
    where
        P: Clone + Send + Sync + 'static,
    {
        let mut extensions = Extensions::new();
        self.prepare(&mut extensions);
        extensions.insert(watch.clone());
        if let Some(peer) = peer {
            extensions.insert(ConnectInfo(peer));
        }
        GuardedService { service, extensions, removed: self.removed_parameters() }
    }
}

/// A listener whose connections are guarded, made by [`HeroSse::guard`].
#[derive(Debug)]
pub struct GuardedListener<L> {
    sse: HeroSse,
    listener: L,
}

impl<L: Listener> Listener for GuardedListener<L> {
    type Io = GuardedIo<L::Io>;
    type Addr = L::Addr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let (socket, peer) = self.listener.accept().await;
        (self.sse.guarded(socket), peer)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// The application of a [`GuardedListener`], made by [`HeroSse::guard`]. `axum::serve` takes it.
#[derive(Clone)]
pub struct GuardedApp<A> {
    sse: HeroSse,
    app: A,
}

impl<L, A> Service<IncomingStream<'_, GuardedListener<L>>> for GuardedApp<A>
where
    L: Listener,
    L::Addr: Clone + Sync + 'static,
    A: Clone,
{
    type Response = GuardedService<A>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, connection: IncomingStream<'_, GuardedListener<L>>) -> Self::Future {
        let (watch, peer) = (connection.io().watch(), connection.remote_addr().clone());
        ready(Ok(self.sse.service(self.app.clone(), watch, Some(peer))))
    }
}

impl<A> fmt::Debug for GuardedApp<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuardedApp").finish_non_exhaustive()
    }
}

/// The service for the requests of one guarded connection, made by [`HeroSse::guard_connection`].
#[derive(Clone)]
pub struct GuardedService<S> {
    service: S,
    /// Added to each request.
    extensions: Extensions,
    removed: Removed,
}

impl<S, B> Service<Request<B>> for GuardedService<S>
where
    S: Service<Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> S::Future {
        redact(&mut request, self.removed);
        if let Some(watch) = self.extensions.get::<Arc<SocketWatch>>() {
            watch.request();
        }
        request.extensions_mut().extend(self.extensions.clone());
        self.service.call(request)
    }
}

impl<S> fmt::Debug for GuardedService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuardedService").finish_non_exhaustive()
    }
}
