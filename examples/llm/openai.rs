//! `POST /v1/chat/completions`, as OpenAI's clients expect it.

use std::time::{SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use hero_sse::prelude::*;
use hero_sse::server::RefusalInfo;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::Failure;
use crate::model::{Completion, ModelError};

#[derive(Deserialize)]
pub(crate) struct Request {
    model: String,
    messages: Vec<Message>,
    #[serde(default)]
    stream: bool,
}

#[derive(Deserialize)]
struct Message {
    content: String,
}

/// Streams the answer, or returns it as JSON if the request says so.
#[sse_endpoint(
    "/v1/chat/completions",
    method = "post",
    max_per_principal = 2,
    refusals = refused
)]
pub(crate) async fn chat_completions(
    Json(request): Json<Request>,
) -> Result<impl Stream<Item = Result<Event, Failure>>, Response> {
    let prompt =
        request.messages.last().map(|message| message.content.as_str()).unwrap_or_default();
    // Before the stream opens, an error is a response with a status.
    let Some(mut completion) = Completion::start(&request.model, prompt) else {
        let unknown = format!("there is no model {:?}; try \"toy\"", request.model);
        return Err(Refusal::new(StatusCode::NOT_FOUND, unknown).into_response());
    };
    let head = head(&request.model);
    if !request.stream {
        return Err(whole(&mut completion, head).await);
    }

    Ok(hero_sse::stream(|mut tx| async move {
        loop {
            match completion.next().await {
                Ok(Some(word)) => {
                    tx.send(Event::json(&chunk(&head, &json!({ "content": word }), None))?).await
                }
                Ok(None) => break,
                // In the middle, an error that the client shall read is an event.
                Err(ModelError::Overloaded) => {
                    tx.send(Event::json(&error("the model is overloaded", "server_error"))?).await;
                    // Nothing follows that would make the answer look whole.
                    return Ok(());
                }
                // After any other error the body breaks: the client must not take what it has for the whole answer.
                Err(ModelError::Unreachable(error)) => return Err(error.into()),
            }
        }
        tx.send(Event::json(&chunk(&head, &json!({}), Some("stop")))?).await;
        tx.send(Event::text("[DONE]").last()).await;
        Ok(())
    }))
}

/// A response without a stream, in the format of OpenAI's own errors. Status and headers stay.
fn refused(refusal: &RefusalInfo<'_>) -> Json<Value> {
    let kind = match refusal.status() {
        StatusCode::UNAUTHORIZED => "authentication_error",
        StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
        status if status.is_client_error() => "invalid_request_error",
        _ => "server_error",
    };
    Json(error(refusal.detail(), kind))
}

async fn whole(completion: &mut Completion, mut head: Value) -> Response {
    let mut content = String::new();
    loop {
        match completion.next().await {
            Ok(Some(word)) => content += &word,
            Ok(None) => break,
            Err(_) => {
                return Refusal::new(StatusCode::BAD_GATEWAY, "the model failed").into_response();
            }
        }
    }
    head["object"] = "chat.completion".into();
    let message = json!({ "role": "assistant", "content": content });
    head["choices"] = json!([{ "index": 0, "message": message, "finish_reason": "stop" }]);
    Json(head).into_response()
}

/// What all chunks of an answer share.
fn head(model: &str) -> Value {
    let created = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    json!({ "id": format!("chatcmpl-{created}"), "object": "chat.completion.chunk", "created": created, "model": model })
}

fn chunk(head: &Value, delta: &Value, finish_reason: Option<&str>) -> Value {
    let mut chunk = head.clone();
    chunk["choices"] = json!([{ "index": 0, "delta": delta, "finish_reason": finish_reason }]);
    chunk
}

/// An error as OpenAI's clients read it, in a response or in an event.
fn error(message: &str, kind: &str) -> Value {
    json!({ "error": { "message": message, "type": kind, "param": null, "code": null } })
}
