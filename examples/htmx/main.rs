//! A task list that all visitors share, without a line of JavaScript: the server renders HTML fragments, and htmx puts
//! them into the page. `cargo run --bin htmx`, then open the printed address in two windows.
//!
//! * `GET /` renders the whole page, with the position of the topic. The stream begins after it, so that no task is
//!   missing between page and stream, and none is there twice.
//! * `/tasks/stream` sends each new task as an unnamed event, which `sse-swap="message"` appends to the list.
//! * A client that missed events receives the whole list again, which htmx swaps by its id (`hx-swap-oob`).
//! * The last event, `closed`, ends the stream. The page closes its connection because of `sse-close="closed"`.

use std::error::Error;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Html;
use axum::routing::{get, post};
use axum::{Form, Router};
use hero_sse::prelude::*;
use hero_sse::shutdown_signal;
use hero_sse::topic::PublishError;
use lexopt::{Arg, Parser, ValueExt};
use serde::Deserialize;
use tokio::net::TcpListener;

/// What a page receives: HTML. Lines of it may break anywhere, since a client joins them again.
#[derive(Clone, SseEvent)]
#[sse(data = "text")]
enum Fragment {
    /// An item of the list.
    #[sse(unnamed)]
    Task(String),
    /// The whole list.
    #[sse(unnamed)]
    List(String),
    /// What stands in place of the form.
    #[sse(last)]
    Closed(String),
}

/// The list and its topic. One lock holds both in step.
#[derive(Clone)]
struct Board {
    tasks: Arc<Mutex<Vec<String>>>,
    topic: Topic<Fragment>,
}

impl Board {
    fn new() -> Self {
        Self { tasks: Arc::default(), topic: Topic::new("tasks") }
    }

    fn tasks(&self) -> MutexGuard<'_, Vec<String>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, text: &str) -> Result<(), PublishError> {
        let mut tasks = self.tasks();
        self.topic.publish_now(Fragment::Task(item(text)))?;
        tasks.push(text.to_owned());
        Ok(())
    }

    fn items(tasks: &[String]) -> String {
        tasks.iter().map(|task| item(task)).collect()
    }
}

fn item(task: &str) -> String {
    format!("<li>{}</li>\n", escape(task))
}

/// Visitors write the tasks, so they are text, and never HTML.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

async fn page(State(board): State<Board>) -> Html<String> {
    let tasks = board.tasks();
    let page = include_str!("page.html")
        .replace("{position}", &board.topic.position().to_string())
        .replace("{items}", &Board::items(&tasks));
    Html(page)
}

/// The fragments of all changes.
#[sse_endpoint("/tasks/stream", public)]
async fn task_stream(State(board): State<Board>) -> Subscription<Fragment> {
    let topic = board.topic.clone();
    topic.subscribe().on_gap(move |_| {
        let items = Board::items(&board.tasks());
        let list = format!("<ul id=\"tasks\" hx-swap-oob=\"innerHTML\">{items}</ul>");
        std::future::ready(Ok(vec![Fragment::List(list)]))
    })
}

#[derive(Deserialize)]
struct NewTask {
    text: String,
}

async fn add(State(board): State<Board>, Form(task): Form<NewTask>) -> Result<StatusCode, Refusal> {
    board.add(task.text.trim())?;
    Ok(StatusCode::NO_CONTENT)
}

async fn close(State(board): State<Board>) -> Result<StatusCode, Refusal> {
    board.topic.publish_now(Fragment::Closed("The list is closed.".to_owned()))?;
    Ok(StatusCode::NO_CONTENT)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let Some(listen) = listen()? else {
        println!(
            "Usage: htmx [--listen ADDR]   [default: 127.0.0.1:8082]; port 0 takes any free port"
        );
        return Ok(());
    };
    let sse = HeroSse::builder().build()?;
    let app = Router::new()
        .route("/", get(page))
        .route("/tasks", post(add))
        .route("/close", post(close))
        .merge(sse.routes(endpoints![task_stream])?)
        .with_state(Board::new());

    let listener = TcpListener::bind(&listen)
        .await
        .map_err(|error| format!("cannot listen on {listen}: {error}"))?;
    println!("listening on http://{}", listener.local_addr()?);
    Ok(sse.serve(listener, app).with_graceful_shutdown(shutdown_signal()).await?)
}

fn listen() -> Result<Option<String>, lexopt::Error> {
    let mut listen = "127.0.0.1:8082".to_owned();
    let mut parser = Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Long("listen") => listen = parser.value()?.string()?,
            Arg::Long("help") | Arg::Short('h') => return Ok(None),
            other => return Err(other.unexpected()),
        }
    }
    Ok(Some(listen))
}
