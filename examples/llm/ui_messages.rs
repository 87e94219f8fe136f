//! `POST /api/chat`, as the AI SDK's `useChat` expects it: a stream of UI messages.

use axum::Json;
use hero_sse::prelude::*;
use serde::Deserialize;
use serde_json::json;

use crate::Failure;
use crate::model::{Completion, ModelError};

#[derive(Deserialize)]
pub(crate) struct Request {
    /// Not sent by `useChat` itself, but with `body: { model }` in its transport.
    model: Option<String>,
    messages: Vec<UiMessage>,
}

#[derive(Deserialize)]
struct UiMessage {
    parts: Vec<Part>,
}

#[derive(Deserialize)]
struct Part {
    #[serde(default)]
    text: String,
}

/// The header by which the AI SDK knows the protocol.
const PROTOCOL: [(&str, &str); 1] = [("x-vercel-ai-ui-message-stream", "v1")];

/// Streams the answer to the last message.
#[sse_endpoint("/api/chat", method = "post", public)]
pub(crate) async fn chat(
    Json(request): Json<Request>,
) -> Result<([(&'static str, &'static str); 1], impl Stream<Item = Result<Event, Failure>>), Refusal>
{
    let prompt: String = request
        .messages
        .last()
        .iter()
        .flat_map(|message| &message.parts)
        .map(|part| part.text.as_str())
        .collect();
    let model = request.model.as_deref().unwrap_or("toy");
    let mut completion = Completion::start(model, &prompt)
        .ok_or_else(|| Refusal::bad_request("there is no such model"))?;

    let stream = hero_sse::stream(|mut tx| async move {
        tx.send(Event::json(&json!({ "type": "start" }))?).await;
        tx.send(Event::json(&json!({ "type": "text-start", "id": "0" }))?).await;
        loop {
            match completion.next().await {
                Ok(Some(word)) => {
                    tx.send(Event::json(
                        &json!({ "type": "text-delta", "id": "0", "delta": word }),
                    )?)
                    .await;
                }
                Ok(None) => break,
                Err(ModelError::Overloaded) => {
                    let error = json!({ "type": "error", "errorText": "the model is overloaded" });
                    tx.send(Event::json(&error)?).await;
                    // Nothing follows that would make the answer look whole.
                    return Ok(());
                }
                Err(ModelError::Unreachable(error)) => return Err(error.into()),
            }
        }
        tx.send(Event::json(&json!({ "type": "text-end", "id": "0" }))?).await;
        tx.send(Event::json(&json!({ "type": "finish" }))?).await;
        tx.send(Event::text("[DONE]").last()).await;
        Ok(())
    });
    Ok((PROTOCOL, stream))
}
