//! Publishes events to topics of a broker, and reads them back through a second handle, as a node with a server would.
#![deny(warnings)]

use std::future::poll_fn;
use std::pin::Pin;

use hero_sse::prelude::*;
use hero_sse::topic::{MemoryBroker, PublishError};

#[derive(SseEvent)]
enum Build {
    Queued {
        job: u64,
    },
    #[sse(last)]
    Finished {
        job: u64,
        ok: bool,
    },
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let broker = MemoryBroker::new();
    let worker = Topic::builder("builds").open(&broker).await?;
    let server = Topic::<Build>::builder("builds").open(&broker).await?;
    let mut subscription = server.subscribe();

    let first = worker.publish(Build::Queued { job: 7 }).await?;
    worker.publish(Build::Finished { job: 7, ok: true }).await?;
    let refused = worker.publish(Build::Queued { job: 8 }).await;
    assert!(matches!(refused, Err(PublishError::Closed)), "{refused:?}");

    let mut received = 0;
    while poll_fn(|cx| Pin::new(&mut subscription).poll_next(cx)).await.is_some() {
        received += 1;
    }
    println!("{} {received}", first.offset());
    Ok(())
}
