//! The decoder of the crate `sse-stream`, which `rmcp` uses, over `reqwest`.

use futures_util::TryStreamExt;
use serde_json::{Value, json};
use sse_stream::SseByteStream;

async fn read(task: &Value) -> Result<(), Box<dyn std::error::Error>> {
    let text = |key: &str| task[key].as_str().unwrap_or_default().to_owned();
    let request = reqwest::Client::new().post(text("url")).body(text("body"));
    let response = request.send().await?;
    if let Err(error) = response.error_for_status_ref() {
        println!("{}", json!({ "error": error.to_string(), "status": response.status().as_u16() }));
        return Ok(());
    }
    println!("{}", json!({ "open": true }));
    let mut events = SseByteStream::new(response.bytes_stream());
    while let Some(event) = events.try_next().await? {
        let name = event.event.as_deref().unwrap_or("message");
        println!("{}", json!({ "event": name, "id": event.id, "data": event.data }));
    }
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let task = serde_json::from_str(&std::env::args().nth(1).unwrap_or_default()).unwrap_or_default();
    match read(&task).await {
        Ok(()) => println!("{}", json!({ "end": true })),
        Err(error) => println!("{}", json!({ "end": true, "error": error.to_string() })),
    }
}
