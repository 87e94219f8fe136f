//! A test suite for implementations of [`TicketStore`].

use std::sync::Arc;
use std::time::Duration;

use super::ContractViolation;
use crate::auth::{TicketGrant, TicketStore};

/// Checks that a [`TicketStore`] keeps its contract, as far as a test can see it.
///
/// It takes about two seconds, and leaves nothing in a store that keeps the contract.
///
/// Use a multi-threaded runtime, so that several tasks really take a ticket at the same time:
/// `#[tokio::test(flavor = "multi_thread")]`.
///
/// # Errors
///
/// The rule that the store breaks, and what it did instead.
pub async fn ticket_store_contract(store: impl TicketStore) -> Result<(), ContractViolation> {
    check(store).await.map_err(ContractViolation)
}

async fn check(store: impl TicketStore) -> Result<(), String> {
    let store = Arc::new(store);
    let (long, short) = (Duration::from_secs(60), Duration::from_secs(1));
    let name = |n: u32| format!("{n:08x}").repeat(8);
    let text = |n: u32| format!("{{\"n\": {n}, \"text\": \"\u{fc}\\n\\u0000 \u{1f3ab}\"}}");
    let put = async |n: u32, ttl| {
        let grant = TicketGrant::new(&format!("owner {}", n % 7), &text(n));
        let put = store.put(&name(n), &grant, ttl).await;
        put.map_err(|error| format!("put: {error}"))
    };
    let take = async |key: String| store.take(&key).await.map_err(|error| format!("take: {error}"));
    let expect = |what: &str, found: Option<String>, expected: Option<String>| {
        if found == expected {
            Ok(())
        } else {
            Err(format!("{what}: {found:?} instead of {expected:?}"))
        }
    };

    let n = fastrand::u32(..0xFFFF_0000);
    expect("a key that was never put", take(name(n)).await?, None)?;
    put(n, long).await?;
    put(n + 1, long).await?;
    expect("another key", take(name(n + 2)).await?, None)?;
    expect("a part of a key", take(name(n).split_off(1)).await?, None)?;
    expect("the first take", take(name(n)).await?, Some(text(n)))?;
    expect("the second take", take(name(n)).await?, None)?;
    expect("another ticket", take(name(n + 1)).await?, Some(text(n + 1)))?;

    for n in n..n + 20 {
        put(n, long).await?;
        let takes: Vec<_> = (0..50)
            .map(|_| {
                let (store, key) = (store.clone(), name(n));
                tokio::spawn(async move { store.take(&key).await })
            })
            .collect();
        let mut taken = 0;
        for take in takes {
            let taken_by_one = take.await.map_err(|error| error.to_string())?;
            taken += usize::from(taken_by_one.map_err(|error| format!("take: {error}"))?.is_some());
        }
        if taken != 1 {
            return Err(format!("{taken} of 50 takes at the same time got the ticket"));
        }
    }

    put(n, short).await?;
    put(n + 1, long).await?;
    tokio::time::sleep(short + Duration::from_millis(500)).await;
    expect("an expired ticket", take(name(n)).await?, None)?;
    expect("a ticket that has not expired", take(name(n + 1)).await?, Some(text(n + 1)))
}
