//! The answer of a language model, passed on under the plain profile: whole, failed, cut, silent, abandoned.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{Response, StatusCode};
use axum::response::IntoResponse;
use axum::routing::post;
use futures_util::{Stream, StreamExt, stream};
use hero_sse::adopt::{self, Adopted};
use hero_sse::prelude::*;
use hero_sse::{CloseReason, HeroSse};
use tokio::net::TcpListener;

use crate::plain::{self, Answer, End};
use crate::support::testing;
use crate::support::{Alive, Server, eventually};

/// What the model sends, in pieces that end anywhere.
const PIECES: [&str; 4] = [
    ": processing\n\ndata: {\"choices\":[{\"delta\":",
    "{\"content\":\"Hel\"}}]}\r\n\r",
    "\n: ping\n\nevent: error\ndata: {\"content\":\"lo\"}\n\nda",
    "ta: [DONE]\n\n",
];

const WHOLE: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"Hel\"}}]}\n\n\
     event: error\ndata: {\"content\":\"lo\"}\n\ndata: [DONE]\n\n";

/// A fake server of OpenAI's protocol. The question says how it behaves.
async fn model(State(alive): State<Alive>, question: Bytes) -> axum::response::Response {
    let pieces = |count: usize, pause: u64| {
        stream::iter(PIECES).take(count).then(move |piece| async move {
            tokio::time::sleep(Duration::from_millis(pause)).await;
            Ok(piece)
        })
    };
    let broken = || stream::iter([Err(io::Error::other("the model crashed"))]);
    let body = match &question[..] {
        b"whole" => Body::from_stream(alive.watch(pieces(4, 5))),
        b"slow" => Body::from_stream(alive.watch(pieces(4, 300))),
        b"crash" => Body::from_stream(alive.watch(pieces(3, 5).chain(broken()))),
        b"ends early" => Body::from_stream(alive.watch(pieces(2, 5).chain(end_of_block()))),
        b"ends inside" => Body::from_stream(alive.watch(pieces(3, 5))),
        b"silent" => Body::from_stream(alive.watch(pieces(2, 5).chain(stream::pending()))),
        b"endless" => {
            let event = format!("data: {}\n\n", "x".repeat(1000));
            let events = stream::repeat(Bytes::from(event)).map(Ok::<_, Infallible>);
            Body::from_stream(alive.watch(events))
        }
        b"limited" => {
            return (StatusCode::TOO_MANY_REQUESTS, "{\"error\":\"secret\"}").into_response();
        }
        b"no head" => std::future::pending().await,
        other => panic!("{other:?}"),
    };
    ([("content-type", "text/event-stream")], body).into_response()
}

fn end_of_block() -> impl Stream<Item = io::Result<&'static str>> {
    stream::iter([Ok("\n")])
}

#[derive(Clone)]
struct Gateway {
    client: reqwest::Client,
    model: SocketAddr,
}

async fn pass_on(State(gateway): State<Gateway>, question: Bytes) -> Result<Adopted, Refusal> {
    let question = gateway.client.post(format!("http://{}/", gateway.model)).body(question);
    let answer = tokio::time::timeout(Duration::from_millis(500), question.send())
        .await
        .map_err(|_| Refusal::new(StatusCode::GATEWAY_TIMEOUT, "the model does not answer"))?
        .map_err(|_| Refusal::new(StatusCode::BAD_GATEWAY, "the model cannot be reached"))?;
    let answer = adopt::response(Response::from(answer))?;
    Ok(answer
        .idle_timeout(Duration::from_secs(2))
        .last_event(|event| event.data() == Some("[DONE]")))
}

#[sse_endpoint("/chat", method = "post", public)]
async fn chat(gateway: State<Gateway>, question: Bytes) -> Result<Adopted, Refusal> {
    pass_on(gateway, question).await
}

#[sse_endpoint("/native", method = "post", profile = "native", public)]
async fn native(gateway: State<Gateway>, question: Bytes) -> Result<Adopted, Refusal> {
    pass_on(gateway, question).await
}

#[sse_endpoint("/early", method = "post", early = true, heartbeat = "100ms", public)]
async fn early(gateway: State<Gateway>, question: Bytes) -> Result<Adopted, Refusal> {
    pass_on(gateway, question).await
}

/// A model, and a gateway in front of it.
struct Scene {
    sse: HeroSse,
    server: Server,
    /// The answers that the model is sending.
    alive: Alive,
}

impl Scene {
    async fn open(toml: &str) -> Self {
        let alive = Alive::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let app: Router = Router::new().route("/", post(model)).with_state(alive.clone());
        tokio::spawn(axum::serve(listener, app).into_future());
        let sse = plain::sse(toml);
        let gateway = Gateway { client: reqwest::Client::new(), model: address };
        let app = sse.routes(endpoints![chat, native, early]).expect("routes").with_state(gateway);
        let server = Server::start(&sse, app).await;
        Self { sse, server, alive }
    }

    fn request(path: &str, question: &str) -> String {
        let length = question.len();
        format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n{question}")
    }

    async fn ask(&self, path: &str, question: &str) -> Answer {
        let socket = tokio::net::TcpStream::connect(self.server.address).await.expect("a socket");
        plain::ask(socket, &Self::request(path, question)).await
    }

    async fn nothing_is_left(&self) {
        eventually("the answer of the model is dropped", || self.alive.count() == 0).await;
        eventually("the slot is free", || self.sse.connections().is_empty()).await;
    }
}

#[tokio::test]
async fn a_whole_answer_arrives_whole_and_nothing_else() {
    let scene = Scene::open("").await;
    let answer = scene.ask("/chat", "whole").await;
    assert_eq!((answer.body.as_str(), &answer.end), (WHOLE, &End::Clean));
    assert!(answer.head.contains("content-type: text/event-stream"), "{}", answer.head);
    assert_eq!(scene.sse.connections().closed(CloseReason::LastEvent), 1);
    scene.nothing_is_left().await;
}

#[tokio::test]
async fn heartbeats_are_between_whole_events() {
    let scene = Scene::open("HeartbeatInterval = \"100ms\"").await;
    let answer = scene.ask("/chat", "slow").await;
    assert_eq!(answer.end, End::Clean);
    let events: Vec<_> = WHOLE.split_inclusive("\n\n").collect();
    let mut heartbeats = 0;
    let mut rest = answer.body.as_str();
    for event in events {
        while let Some(after) = rest.strip_prefix(":\n") {
            (heartbeats, rest) = (heartbeats + 1, after);
        }
        rest = rest.strip_prefix(event).unwrap_or_else(|| panic!("{event:?} in {rest:?}"));
    }
    assert!(rest.is_empty() && heartbeats >= 6, "{heartbeats}: {rest:?}");
}

#[tokio::test]
async fn an_answer_that_is_not_whole_breaks_the_body() {
    let scene = Scene::open("").await;
    let questions = ["crash", "ends early", "ends inside", "silent"];
    for question in questions {
        let answer = scene.ask("/chat", question).await;
        let sent = answer.body.trim_end_matches(":\n");
        assert!(WHOLE.starts_with(sent) && sent.ends_with("\n\n"), "{question}: {sent}");
        assert_ne!(answer.end, End::Clean, "{question}");
        scene.nothing_is_left().await;
    }
    assert_eq!(scene.sse.connections().closed(CloseReason::StreamError), questions.len() as u64);
}

#[tokio::test]
async fn what_the_model_refuses_or_never_answers_is_a_status() {
    let scene = Scene::open("").await;
    for (question, status) in [("limited", 502), ("no head", 504)] {
        let request = testing::connect(scene.server.address, "/chat").method(http::Method::POST);
        let error = request.body(question).await.expect_err("a refusal");
        assert_eq!(error.status.map(|status| status.as_u16()), Some(status), "{question}");
        assert_eq!(error.headers["content-type"], "application/problem+json");
        assert!(!error.body.contains("secret"), "{}", error.body);
        scene.nothing_is_left().await;
    }
}

/// The function still waits for the model, up to its own timeout.
#[tokio::test]
async fn with_early_a_model_without_a_head_has_heartbeats_and_then_a_broken_body() {
    let scene = Scene::open("").await;
    let answer = scene.ask("/early", "no head").await;
    assert!(answer.head.starts_with("HTTP/1.1 200 "), "{}", answer.head);
    assert!(answer.body.len() >= 3 * ":\n".len(), "{}", answer.body);
    assert_eq!(answer.body.replace(":\n", ""), "");
    assert_ne!(answer.end, End::Clean);
    let answer = scene.ask("/early", "whole").await;
    assert_eq!((answer.body.replace(":\n", "").as_str(), answer.end), (WHOLE, End::Clean));
    scene.nothing_is_left().await;
}

#[tokio::test]
async fn a_client_that_leaves_stops_the_model() {
    let scene = Scene::open("").await;
    for question in ["endless", "silent"] {
        let mut socket =
            tokio::net::TcpStream::connect(scene.server.address).await.expect("a socket");
        let request = Scene::request("/chat", question);
        tokio::io::AsyncWriteExt::write_all(&mut socket, request.as_bytes()).await.expect("sent");
        eventually("the model answers", || scene.alive.count() == 1).await;
        drop(socket);
        scene.nothing_is_left().await;
    }
}

#[tokio::test]
async fn a_native_stream_has_its_closing_event_and_refuses_names_that_break_an_event_source() {
    let scene = Scene::open("").await;
    let answer = scene.ask("/native", "whole").await;
    assert_eq!(answer.end, End::Clean);
    assert!(
        answer.body.contains("\"Hel\"") && !answer.body.contains("event: error"),
        "{}",
        answer.body
    );
    let (_, close) = answer.body.split_once("event: hero.close\n").expect("the closing event");
    assert!(close.contains("{\"reason\":\"stream_error\""), "{close}");
    scene.nothing_is_left().await;
}
