//! An LLM server whose answers official clients read. `cargo run --bin llm`, then open the printed address, or:
//!
//! ```sh
//! curl -N http://127.0.0.1:8081/v1/chat/completions -H "authorization: Bearer sk-ann" -H "content-type: application/json" \
//!   -d '{"model": "toy", "stream": true, "messages": [{"role": "user", "content": "Hello"}]}'
//! ```
//!
//! * `openai.rs`: chat completions, as the packages `openai` (npm and PyPI) read them.
//! * `ui_messages.rs`: the stream of UI messages that `useChat` of the AI SDK reads.
//! * `model.rs`: the toy model. A real one is a request to another server, which is cancelled when it is dropped.

mod model;
mod openai;
mod ui_messages;

use std::error::Error;

use axum::Router;
use axum::response::Html;
use axum::routing::get;
use hero_sse::auth::{AuthError, Secret, authenticator_fn};
use hero_sse::prelude::*;
use hero_sse::shutdown_signal;
use lexopt::{Arg, Parser, ValueExt};
use tokio::net::TcpListener;

/// An error in the middle of a stream. It is logged, and the client receives a broken body, never the error.
type Failure = Box<dyn Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let Some(listen) = listen()? else {
        println!(
            "Usage: llm [--listen ADDR]   [default: 127.0.0.1:8081]; port 0 takes any free port"
        );
        return Ok(());
    };

    // An API key is `sk-` and a name. Each name may have two answers at a time.
    let sse = HeroSse::builder()
        .authenticator(authenticator_fn(async |key: Secret<String>| {
            match key.expose().strip_prefix("sk-") {
                Some(name) if !name.is_empty() => Ok(Principal::new(name)),
                _ => Err(AuthError::invalid("not an API key of this server")),
            }
        }))
        .build()?;
    let app = Router::new()
        .route("/", get(async || Html(include_str!("page.html"))))
        .merge(sse.routes(endpoints![openai::chat_completions, ui_messages::chat])?);

    let listener = TcpListener::bind(&listen)
        .await
        .map_err(|error| format!("cannot listen on {listen}: {error}"))?;
    println!("listening on http://{}", listener.local_addr()?);
    Ok(sse.serve(listener, app).with_graceful_shutdown(shutdown_signal()).await?)
}

fn listen() -> Result<Option<String>, lexopt::Error> {
    let mut listen = "127.0.0.1:8081".to_owned();
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
