//! Caches key sets that change: fetched from an issuer, or read from a file.
//!
//! There is one fetch at a time, however many requests wait for it. Previous keys stay in use until there are newer
//! ones, or until they are too old.

use std::fmt::Display;
use std::io::Read as _;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_core::future::BoxFuture;
use futures_util::FutureExt as _;
use futures_util::future::Shared;
use tokio::runtime::Handle;
use tokio::task::{AbortHandle, spawn_blocking};
use tokio::time::{Instant, timeout};

use super::keys::KeySet;
use crate::telemetry;

/// Maximum size of a key set. Real sets have a few kilobytes.
pub(super) const MAX_BYTES: usize = 256 * 1024;

/// Timeout of a fetch, for which clients wait.
pub(super) const FETCH_TIMEOUT: Duration = Duration::from_secs(5);

/// Pause after a failed fetch: short for an issuer that is starting, long enough for one that is overloaded.
const RETRY_PAUSE: Duration = Duration::from_secs(5);

/// Minimum time between two log lines that say that keys cannot be fetched.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Fetches the text of a key set. The error is logged, so it holds no credentials.
pub(super) type Fetch = Arc<dyn Fn() -> BoxFuture<'static, Result<String, String>> + Send + Sync>;

/// When keys are fetched.
#[derive(Clone, Copy, Debug)]
pub(super) struct RefreshSchedule {
    /// Age after which keys are fetched again, while they stay in use.
    pub(super) max_age: Duration,
    /// Minimum time between fetches for tokens with unknown keys.
    pub(super) on_demand: Duration,
    /// Age after which keys are no longer used.
    pub(super) expiry: Duration,
}

impl RefreshSchedule {
    pub(super) const URL: Self = Self {
        max_age: Duration::from_secs(10 * 60),
        on_demand: Duration::from_secs(30),
        expiry: Duration::from_secs(24 * 60 * 60),
    };
    /// Reading a file is cheap.
    pub(super) const FILE: Self = Self {
        max_age: Duration::from_secs(5),
        on_demand: Duration::from_secs(1),
        expiry: Duration::from_secs(24 * 60 * 60),
    };
}

/// Why there are no usable keys, for the log.
pub(super) type Unavailable = String;

/// The keys of one source, as last fetched.
pub(super) struct KeyCache {
    /// Name of the source in the log.
    name: String,
    fetch: Fetch,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    keys: Option<Arc<KeySet>>,
    /// The text that the keys were read from.
    text: String,
    /// Time of the last successful fetch.
    fetched: Option<Instant>,
    /// Time and error of the last fetch, if it failed.
    failed: Option<(Instant, String)>,
    /// Time when this failure was last logged.
    logged: Option<Instant>,
    /// Time when a token with an unknown key last started a fetch.
    demanded: Option<Instant>,
    running: Option<RunningFetch>,
}

type Completion = Shared<BoxFuture<'static, ()>>;

/// A fetch in a task of its own, so that it goes on when the client that started it disconnects.
struct RunningFetch {
    task: AbortHandle,
    completion: Completion,
}

impl KeyCache {
    pub(super) fn new(name: String, fetch: Fetch) -> Arc<Self> {
        Arc::new(Self { name, fetch, state: Mutex::default() })
    }

    /// Returns the keys. Waits for a fetch if there are none, or none that may be used.
    pub(super) async fn keys(
        self: &Arc<Self>,
        schedule: RefreshSchedule,
    ) -> Result<Arc<KeySet>, Unavailable> {
        let fetch = {
            let mut state = self.lock();
            let age = state.fetched.map(|at| at.elapsed());
            let fetch = match age {
                Some(age) if age < schedule.max_age => None,
                _ => self.start_fetch(&mut state, schedule),
            };
            // After a long time without requests the keys may be very old, so the request waits for
            // newer ones. It does not wait if the last fetch failed.
            let recent = age.is_some_and(|age| age < schedule.max_age.saturating_mul(2));
            match state.usable(schedule) {
                Ok(keys) if recent || state.failed.is_some() || fetch.is_none() => {
                    return Ok(keys);
                }
                Err(why) if fetch.is_none() => return Err(why),
                _ => fetch,
            }
        };
        if let Some(fetch) = fetch {
            fetch.await;
        }
        self.lock().usable(schedule)
    }

    /// Returns newer keys than `known`, which lack the key of a token. Fetches them if a fetch is due. `None`:
    /// there are none.
    pub(super) async fn newer(
        self: &Arc<Self>,
        known: &Arc<KeySet>,
        schedule: RefreshSchedule,
    ) -> Result<Option<Arc<KeySet>>, Unavailable> {
        let fetch = {
            let mut state = self.lock();
            if let Some(keys) = state.other_than(known) {
                return Ok(Some(keys));
            }
            let demanded = state.demanded.is_some_and(|at| at.elapsed() < schedule.on_demand);
            if demanded && state.failed.is_none() && !state.is_fetching() {
                return Ok(None);
            }
            match self.start_fetch(&mut state, schedule) {
                Some(fetch) => {
                    state.demanded = Some(Instant::now());
                    fetch
                }
                None => return Err(state.why()),
            }
        };
        fetch.await;
        let state = self.lock();
        match (state.other_than(known), &state.failed) {
            (Some(keys), _) => Ok(Some(keys)),
            (None, None) => Ok(None),
            (None, Some(_)) => Err(state.why()),
        }
    }

    /// Returns the running fetch, or starts one. `None`: the last one has failed just now.
    fn start_fetch(
        self: &Arc<Self>,
        state: &mut State,
        schedule: RefreshSchedule,
    ) -> Option<Completion> {
        if let Some(running) = state.running.as_ref().filter(|_| state.is_fetching()) {
            return Some(running.completion.clone());
        }
        let pause = RETRY_PAUSE.min(schedule.on_demand);
        if state.failed.as_ref().is_some_and(|(at, _)| at.elapsed() < pause) {
            return None;
        }
        let Ok(runtime) = Handle::try_current() else {
            state.failed =
                Some((Instant::now(), "there is no runtime to fetch them on".to_owned()));
            return None;
        };
        let cache = self.clone();
        let task = runtime.spawn(async move {
            let fetch = async { (cache.fetch)().await };
            let fetched = match timeout(FETCH_TIMEOUT, AssertUnwindSafe(fetch).catch_unwind()).await
            {
                Ok(Ok(fetched)) => fetched,
                Ok(Err(_)) => Err("fetching them panicked".to_owned()),
                Err(_) => Err(format!("no answer within {} s", FETCH_TIMEOUT.as_secs())),
            };
            cache.complete(fetched);
        });
        let abort = task.abort_handle();
        let completion = task.map(|_| ()).boxed().shared();
        state.running = Some(RunningFetch { task: abort, completion: completion.clone() });
        Some(completion)
    }

    fn complete(&self, fetched: Result<String, String>) {
        let known = self.lock().text.clone();
        let read = fetched.and_then(|text| match text {
            text if text == known && !known.is_empty() => Ok(None),
            text if text.len() > MAX_BYTES => Err(format!("they have more than {MAX_BYTES} bytes")),
            text => KeySet::jwks(&text).map(|keys| Some((text, Arc::new(keys)))),
        });
        let mut state = self.lock();
        let now = Instant::now();
        match read {
            Ok(change) => {
                state.fetched = Some(now);
                if let Some((text, keys)) = change {
                    telemetry::keys_changed(&self.name, keys.keys.len(), &keys.rejected);
                    (state.text, state.keys) = (text, Some(keys));
                } else if state.failed.is_some() {
                    telemetry::keys_back(&self.name);
                }
                (state.failed, state.logged) = (None, None);
            }
            Err(why) => {
                if state.logged.is_none_or(|at| now.duration_since(at) >= LOG_INTERVAL) {
                    telemetry::keys_missing(&self.name, &why, state.keys.is_some());
                    state.logged = Some(now);
                }
                state.failed = Some((now, format!("the keys of {}: {why}", self.name)));
            }
        }
        state.running = None;
    }

    /// Every change under the lock is complete, so a poisoned lock is safe to use.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn usable(&self, schedule: RefreshSchedule) -> Result<Arc<KeySet>, Unavailable> {
        let valid = self.fetched.is_some_and(|at| at.elapsed() < schedule.expiry);
        self.keys.clone().filter(|_| valid).ok_or_else(|| self.why())
    }

    fn other_than(&self, known: &Arc<KeySet>) -> Option<Arc<KeySet>> {
        self.keys.clone().filter(|keys| !Arc::ptr_eq(keys, known))
    }

    /// Looks at the task itself: one that was dropped with its runtime never completes its fetch.
    fn is_fetching(&self) -> bool {
        self.running.as_ref().is_some_and(|running| !running.task.is_finished())
    }

    fn why(&self) -> String {
        match &self.failed {
            Some((_, why)) => why.clone(),
            None => "the issuer's keys are not fetched yet".to_owned(),
        }
    }
}

/// Fetches with a closure of the application.
pub(super) fn from_closure<F, T, E>(fetch: F) -> Fetch
where
    F: Fn() -> T + Send + Sync + 'static,
    T: Future<Output = Result<String, E>> + Send + 'static,
    E: Display,
{
    Arc::new(move || {
        let fetched = fetch();
        async move { fetched.await.map_err(|error| error.to_string()) }.boxed()
    })
}

/// Reads a file.
pub(super) fn from_file(path: PathBuf) -> Fetch {
    Arc::new(move || {
        let path = path.clone();
        async move {
            let read = spawn_blocking(move || read_file(&path)).await;
            read.unwrap_or_else(|_| Err("the runtime is shutting down".to_owned()))
        }
        .boxed()
    })
}

pub(super) fn read_file(path: &std::path::Path) -> Result<String, String> {
    let read = || {
        let mut text = String::new();
        let file = std::fs::File::open(path)?;
        file.take(MAX_BYTES as u64 + 1).read_to_string(&mut text)?;
        Ok::<_, std::io::Error>(text)
    };
    read().map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::time::{advance, sleep};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn set(kid: &str) -> String {
        let x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
        format!(r#"{{"keys": [{{"kty": "OKP", "crv": "Ed25519", "x": "{x}", "kid": "{kid}"}}]}}"#)
    }

    /// A source that takes a second to give a set answer, and counts requests.
    struct Source {
        answer: Mutex<Result<String, String>>,
        asked: AtomicUsize,
    }

    fn source(answer: Result<String, String>) -> (Arc<Source>, Arc<KeyCache>) {
        let source = Arc::new(Source { answer: Mutex::new(answer), asked: AtomicUsize::new(0) });
        let asked = source.clone();
        let fetch = from_closure(move || {
            let source = asked.clone();
            async move {
                source.asked.fetch_add(1, Ordering::SeqCst);
                sleep(SECOND).await;
                let answer = source.answer.lock().expect("no panic");
                answer.clone()
            }
        });
        (source, KeyCache::new("a test".to_owned(), fetch))
    }

    impl Source {
        fn set_answer(&self, answer: Result<String, String>) {
            *self.answer.lock().expect("no panic") = answer;
        }

        fn asked(&self) -> usize {
            self.asked.load(Ordering::SeqCst)
        }
    }

    fn down() -> Result<String, String> {
        Err("down".to_owned())
    }

    #[tokio::test(start_paused = true)]
    async fn many_unknown_keys_start_one_fetch_per_interval_and_a_refresh_by_age_delays_nobody() {
        let (source, cache) = source(Ok(set("a")));
        let many: Vec<_> = (0..50).map(|_| cache.keys(RefreshSchedule::URL)).collect();
        let many = futures_util::future::join_all(many).await;
        assert_eq!(source.asked(), 1, "one fetch for all");
        let known = many[0].clone().expect("keys");
        let asks = |_| cache.newer(&known, RefreshSchedule::URL);
        // The first fetch was not on demand, so the first unknown key starts another at once.
        for found in futures_util::future::join_all((0..50).map(asks)).await {
            assert!(found.expect("an answer").is_none());
        }
        assert_eq!(source.asked(), 2);
        source.set_answer(Ok(set("b")));
        for _ in 0..50 {
            assert!(cache.newer(&known, RefreshSchedule::URL).await.expect("an answer").is_none());
        }
        assert_eq!(source.asked(), 2, "not before the interval is over");
        advance(RefreshSchedule::URL.on_demand).await;
        let newer =
            cache.newer(&known, RefreshSchedule::URL).await.expect("an answer").expect("new keys");
        assert_eq!(source.asked(), 3);
        // Refreshed by age, while the old keys stay in use.
        source.set_answer(Ok(set("c")));
        advance(RefreshSchedule::URL.max_age).await;
        let start = Instant::now();
        assert!(Arc::ptr_eq(&cache.keys(RefreshSchedule::URL).await.expect("keys"), &newer));
        assert_eq!(start.elapsed(), Duration::ZERO);
        sleep(2 * SECOND).await;
        assert_eq!(source.asked(), 4);
        assert!(!Arc::ptr_eq(&cache.keys(RefreshSchedule::URL).await.expect("keys"), &newer));
        // After a long time without requests, old keys are not used without a fetch.
        source.set_answer(Ok(set("d")));
        let old = cache.keys(RefreshSchedule::URL).await.expect("keys");
        advance(3 * RefreshSchedule::URL.max_age).await;
        assert!(!Arc::ptr_eq(&cache.keys(RefreshSchedule::URL).await.expect("keys"), &old));
    }

    #[tokio::test(start_paused = true)]
    async fn keys_stay_in_use_for_a_day_while_the_issuer_is_down() {
        let (source, cache) = source(down());
        assert!(cache.keys(RefreshSchedule::URL).await.is_err());
        assert!(cache.keys(RefreshSchedule::URL).await.is_err());
        assert_eq!(source.asked(), 1, "the second did not ask again");
        source.set_answer(Ok(set("a")));
        advance(RETRY_PAUSE).await;
        let keys = cache.keys(RefreshSchedule::URL).await.expect("keys");
        source.set_answer(down());
        let why = cache.newer(&keys, RefreshSchedule::URL).await.err().expect("an error");
        assert!(why.contains("a test") && why.contains("down"), "{why}");
        assert!(
            cache.newer(&keys, RefreshSchedule::URL).await.is_err(),
            "unknown, so the token is not refused as invalid"
        );
        assert_eq!(source.asked(), 3);
        let start = Instant::now();
        while start.elapsed() + SECOND < RefreshSchedule::URL.expiry {
            advance(RefreshSchedule::URL.max_age / 2).await;
            let asked = Instant::now();
            if start.elapsed() + SECOND < RefreshSchedule::URL.expiry {
                assert!(Arc::ptr_eq(&cache.keys(RefreshSchedule::URL).await.expect("keys"), &keys));
                assert_eq!(
                    asked.elapsed(),
                    Duration::ZERO,
                    "no request waits for an issuer that is down"
                );
            }
            sleep(SECOND).await;
        }
        advance(2 * SECOND).await;
        assert!(cache.keys(RefreshSchedule::URL).await.is_err(), "a day is enough");
        source.set_answer(Ok(set("a")));
        advance(RETRY_PAUSE).await;
        assert!(cache.keys(RefreshSchedule::URL).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_fetch_goes_on_without_its_client_and_fails_if_it_hangs_or_panics() {
        let (source, cache) = source(Ok(set("a")));
        assert!(
            timeout(SECOND / 2, cache.keys(RefreshSchedule::URL)).await.is_err(),
            "the client disconnects"
        );
        sleep(SECOND).await;
        assert!(cache.keys(RefreshSchedule::URL).await.is_ok());
        assert_eq!(source.asked(), 1);

        let hangs = from_closure(std::future::pending::<Result<String, String>>);
        let cache = KeyCache::new("a test".to_owned(), hangs);
        let start = Instant::now();
        assert!(cache.keys(RefreshSchedule::URL).await.is_err());
        assert_eq!(start.elapsed(), FETCH_TIMEOUT);

        let panics =
            from_closure(|| -> std::future::Ready<Result<String, String>> { panic!("on purpose") });
        let cache = KeyCache::new("a test".to_owned(), panics);
        assert!(
            cache.keys(RefreshSchedule::URL).await.err().expect("an error").contains("panicked")
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_invalid_set_changes_nothing_and_an_empty_one_removes_all_keys() {
        let (source, cache) = source(Ok(set("a")));
        let keys = cache.keys(RefreshSchedule::URL).await.expect("keys");
        let huge = format!("{}{}", set("b"), " ".repeat(MAX_BYTES));
        for bad in ["", "<html>", "{}", &huge] {
            source.set_answer(Ok(bad.to_owned()));
            advance(RefreshSchedule::URL.on_demand).await;
            assert!(cache.newer(&keys, RefreshSchedule::URL).await.is_err());
            assert!(Arc::ptr_eq(&cache.keys(RefreshSchedule::URL).await.expect("keys"), &keys));
        }
        source.set_answer(Ok(r#"{"keys": []}"#.to_owned()));
        advance(RefreshSchedule::URL.on_demand).await;
        let none =
            cache.newer(&keys, RefreshSchedule::URL).await.expect("an answer").expect("a new set");
        assert!(none.keys.is_empty());
    }

    #[test]
    fn a_fetch_that_was_dropped_with_its_runtime_is_repeated() {
        let (source, cache) = source(Ok(set("a")));
        let runtime = || {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            runtime.enable_all().start_paused(true).build().expect("a runtime")
        };
        let first = runtime();
        let left =
            first.block_on(async { timeout(SECOND / 2, cache.keys(RefreshSchedule::URL)).await });
        assert!(left.is_err());
        drop(first);
        assert!(runtime().block_on(cache.keys(RefreshSchedule::URL)).is_ok());
        assert_eq!(source.asked(), 2);
        // Without a runtime there is an error, not a panic.
        let outside = from_closure(|| std::future::ready(Ok::<_, String>(set("a"))));
        let cache = KeyCache::new("a test".to_owned(), outside);
        assert!(
            futures_util::FutureExt::now_or_never(cache.keys(RefreshSchedule::URL))
                .expect("at once")
                .is_err()
        );
    }
}
