//! The client of the crate `eventsource-client`, with its defaults.

use std::time::Duration;

use eventsource_client::{Client, ClientBuilder, Error, SSE};
use futures_util::TryStreamExt;
use launchdarkly_sdk_transport::HyperTransport;
use serde_json::{Value, json};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let task: Value = serde_json::from_str(&std::env::args().nth(1).unwrap_or_default())?;
    let transport = HyperTransport::builder().connect_timeout(Duration::from_secs(5)).build_http()?;
    let closes = task["setting"] == "close";
    let client = ClientBuilder::for_url(task["url"].as_str().unwrap_or_default())?.build_with_transport(transport);
    let mut stream = client.stream();
    loop {
        match stream.try_next().await {
            Ok(Some(SSE::Connected(_))) => println!("{}", json!({ "open": true })),
            Ok(Some(SSE::Event(event))) => {
                println!("{}", json!({ "event": event.event_type, "id": event.id, "data": event.data }));
                // It does not know that 204 means the end.
                let close: Value = serde_json::from_str(&event.data).unwrap_or_default();
                if closes && event.event_type == "hero.close" && close["reconnect"] == false {
                    break;
                }
            }
            Ok(Some(SSE::Comment(_))) => {}
            // The stream goes on after this error.
            Err(Error::Eof) => println!("{}", json!({ "cut": true })),
            Err(Error::UnexpectedResponse(response, _)) => {
                println!("{}", json!({ "error": "refused", "status": response.status() }));
            }
            Err(error) => println!("{}", json!({ "cut": true, "message": error.to_string() })),
            Ok(None) => break,
        }
    }
    println!("{}", json!({ "end": true }));
    Ok(())
}
