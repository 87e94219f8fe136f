//! Key sets that change: fetched from an issuer, read from a file. One fetch at a time, however many
//! wait for it; keys once had serve on while there are no newer ones.

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

/// Real sets have a few kilobytes.
pub(super) const MAX_BYTES: usize = 256 * 1024;

/// Clients wait for a fetch.
const PATIENCE: Duration = Duration::from_secs(5);

/// After a failure: soon enough for an issuer that starts, seldom enough for one that suffers.
const AFTER_FAILURE: Duration = Duration::from_secs(5);

/// How often the log is told that keys cannot be had.
const REMINDER: Duration = Duration::from_secs(60);

/// The text of a key set, or why there is none: for the log, without credentials.
pub(super) type Fetch = Arc<dyn Fn() -> BoxFuture<'static, Result<String, String>> + Send + Sync>;

/// How old keys may become.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// After this long they are fetched anew, while the old ones serve.
    pub(super) refresh: Duration,
    /// How far apart fetches are that tokens with unknown keys ask for.
    pub(super) on_demand: Duration,
    /// After this long without news they serve no more.
    pub(super) keep: Duration,
}

impl Pace {
    pub(super) const URL: Self = Self {
        refresh: Duration::from_secs(10 * 60),
        on_demand: Duration::from_secs(30),
        keep: Duration::from_secs(24 * 60 * 60),
    };
    /// A file is at hand, so a look costs next to nothing.
    pub(super) const FILE: Self = Self {
        refresh: Duration::from_secs(5),
        on_demand: Duration::from_secs(1),
        keep: Duration::from_secs(24 * 60 * 60),
    };
}

/// The keys cannot be had, for this reason.
pub(super) type Down = String;

/// The keys of one source, as they were last had.
pub(super) struct KeyCache {
    /// What the log calls the source.
    name: String,
    fetch: Fetch,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    keys: Option<Arc<KeySet>>,
    /// What they were read from.
    text: String,
    /// When the source last answered.
    had: Option<Instant>,
    /// When it last did not, and why, if it has not answered since.
    failed: Option<(Instant, String)>,
    /// When the log was told of that.
    told: Option<Instant>,
    /// When a token with an unknown key last had them fetched.
    demanded: Option<Instant>,
    flight: Option<Flight>,
}

/// A fetch in a task of its own: it goes on when the client that caused it leaves.
struct Flight {
    task: AbortHandle,
    landed: Shared<BoxFuture<'static, ()>>,
}

impl KeyCache {
    pub(super) fn new(name: String, fetch: Fetch) -> Arc<Self> {
        Arc::new(Self { name, fetch, state: Mutex::default() })
    }

    /// The keys, fetched first where there are none, or none that may serve.
    pub(super) async fn keys(self: &Arc<Self>, pace: Pace) -> Result<Arc<KeySet>, Down> {
        let landed = {
            let mut state = self.lock();
            let age = state.had.map(|had| had.elapsed());
            let landed = match age {
                Some(age) if age < pace.refresh => None,
                _ => self.fetched(&mut state, pace),
            };
            // Where nobody asked for long the old keys may be very old. An issuer that is known to be
            // down is not waited for.
            let recent = age.is_some_and(|age| age < pace.refresh.saturating_mul(2));
            match state.serving(pace) {
                Ok(keys) if recent || state.failed.is_some() || landed.is_none() => {
                    return Ok(keys);
                }
                Err(why) if landed.is_none() => return Err(why),
                _ => landed,
            }
        };
        if let Some(landed) = landed {
            landed.await;
        }
        self.lock().serving(pace)
    }

    /// Keys that came after `known`, which lack what a token asks for; `None` where there are none.
    pub(super) async fn newer(
        self: &Arc<Self>,
        known: &Arc<KeySet>,
        pace: Pace,
    ) -> Result<Option<Arc<KeySet>>, Down> {
        let landed = {
            let mut state = self.lock();
            if let Some(keys) = state.other_than(known) {
                return Ok(Some(keys));
            }
            let demanded = state.demanded.is_some_and(|at| at.elapsed() < pace.on_demand);
            if demanded && state.failed.is_none() && !state.is_flying() {
                return Ok(None);
            }
            match self.fetched(&mut state, pace) {
                Some(landed) => {
                    state.demanded = Some(Instant::now());
                    landed
                }
                None => return Err(state.why()),
            }
        };
        landed.await;
        let state = self.lock();
        match (state.other_than(known), &state.failed) {
            (Some(keys), _) => Ok(Some(keys)),
            (None, None) => Ok(None),
            (None, Some(_)) => Err(state.why()),
        }
    }

    /// The fetch that is under way, or a new one; `None` where the last has only just failed.
    fn fetched(
        self: &Arc<Self>,
        state: &mut State,
        pace: Pace,
    ) -> Option<Shared<BoxFuture<'static, ()>>> {
        if let Some(flight) = state.flight.as_ref().filter(|_| state.is_flying()) {
            return Some(flight.landed.clone());
        }
        let pause = AFTER_FAILURE.min(pace.on_demand);
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
            let fetched = match timeout(PATIENCE, AssertUnwindSafe(fetch).catch_unwind()).await {
                Ok(Ok(fetched)) => fetched,
                Ok(Err(_)) => Err("fetching them panicked".to_owned()),
                Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
            };
            cache.land(fetched);
        });
        let abort = task.abort_handle();
        let landed = task.map(|_| ()).boxed().shared();
        state.flight = Some(Flight { task: abort, landed: landed.clone() });
        Some(landed)
    }

    fn land(&self, fetched: Result<String, String>) {
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
                state.had = Some(now);
                if let Some((text, keys)) = change {
                    telemetry::keys_changed(&self.name, keys.keys.len(), &keys.bad);
                    (state.text, state.keys) = (text, Some(keys));
                } else if state.failed.is_some() {
                    telemetry::keys_back(&self.name);
                }
                (state.failed, state.told) = (None, None);
            }
            Err(why) => {
                if state.told.is_none_or(|at| now.duration_since(at) >= REMINDER) {
                    telemetry::keys_missing(&self.name, &why, state.keys.is_some());
                    state.told = Some(now);
                }
                state.failed = Some((now, format!("the keys of {}: {why}", self.name)));
            }
        }
        state.flight = None;
    }

    /// Nothing is left half done under the lock, so a poisoned one is still sound.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn serving(&self, pace: Pace) -> Result<Arc<KeySet>, Down> {
        let kept = self.had.is_some_and(|had| had.elapsed() < pace.keep);
        self.keys.clone().filter(|_| kept).ok_or_else(|| self.why())
    }

    fn other_than(&self, known: &Arc<KeySet>) -> Option<Arc<KeySet>> {
        self.keys.clone().filter(|keys| !Arc::ptr_eq(keys, known))
    }

    /// A task that was dropped with its runtime never lands.
    fn is_flying(&self) -> bool {
        self.flight.as_ref().is_some_and(|flight| !flight.task.is_finished())
    }

    fn why(&self) -> String {
        match &self.failed {
            Some((_, why)) => why.clone(),
            None => "the issuer's keys are not there".to_owned(),
        }
    }
}

/// Fetches with a closure of the application's.
pub(super) fn by<F, T, E>(fetch: F) -> Fetch
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

#[cfg(feature = "jwks-url")]
pub(super) use self::http::Location;

#[cfg(feature = "jwks-url")]
mod http {
    use std::error::Error;
    use std::sync::{Arc, OnceLock};

    use futures_util::FutureExt as _;
    use reqwest::header::ACCEPT;
    use reqwest::{Client, StatusCode, Url, redirect};

    use super::{Fetch, MAX_BYTES, PATIENCE};

    /// Where an issuer publishes its keys.
    #[derive(Clone)]
    pub(in crate::auth) struct Location {
        url: Url,
        client: Arc<OnceLock<Result<Client, String>>>,
    }

    impl Location {
        pub(in crate::auth) fn new(url: &str) -> Result<Self, String> {
            let url = Url::parse(url).map_err(|error| format!("the URL of the keys: {error}"))?;
            if !matches!(url.scheme(), "https" | "http") || url.host_str().is_none() {
                return Err("the URL of the keys must begin with `https://` and a host".to_owned());
            }
            Ok(Self { url, client: Arc::default() })
        }

        /// Without what may be a credential.
        pub(in crate::auth) fn name(&self) -> String {
            let (origin, path) = (self.url.origin().ascii_serialization(), self.url.path());
            format!("{origin}{path}")
        }

        /// Whether anybody on the way could put in keys of its own.
        pub(in crate::auth) fn is_open_to_others(&self) -> bool {
            self.url.scheme() == "http" && !self.is_loopback()
        }

        fn is_loopback(&self) -> bool {
            let host = self.url.host_str().unwrap_or_default();
            let host = host.trim_start_matches('[').trim_end_matches(']');
            let address = host.parse::<std::net::IpAddr>();
            host == "localhost" || address.is_ok_and(|address| address.is_loopback())
        }

        /// Made once, where it is first needed: it reads the system's certificates.
        pub(in crate::auth) fn client(&self) -> Result<Client, String> {
            let make = || {
                let mut client = Client::builder()
                    // Another origin is another issuer, and the right URL can be written down.
                    .redirect(redirect::Policy::none())
                    .referer(false)
                    // A connection kept would belong to the runtime that made it.
                    .pool_max_idle_per_host(0)
                    .http1_only()
                    .timeout(PATIENCE);
                if self.is_loopback() {
                    client = client.no_proxy();
                }
                client.build().map_err(|error| chain(&error.without_url()))
            };
            self.client.get_or_init(make).clone()
        }

        pub(in crate::auth) fn fetch(&self) -> Fetch {
            let location = self.clone();
            Arc::new(move || {
                let location = location.clone();
                async move { location.get().await }.boxed()
            })
        }

        async fn get(&self) -> Result<String, String> {
            let failed = |error: reqwest::Error| chain(&error.without_url());
            let request = self.client()?.get(self.url.clone());
            let request = request.header(ACCEPT, "application/jwk-set+json, application/json");
            let mut response = request.send().await.map_err(failed)?;
            let status = response.status();
            if status.is_redirection() {
                let status = status.as_u16();
                return Err(format!("answered {status}, and redirects are not followed"));
            }
            if status != StatusCode::OK {
                return Err(format!("answered {}", status.as_u16()));
            }
            let mut body = Vec::new();
            while let Some(chunk) = response.chunk().await.map_err(failed)? {
                if body.len() + chunk.len() > MAX_BYTES {
                    return Err(format!("the answer has more than {MAX_BYTES} bytes"));
                }
                body.extend_from_slice(&chunk);
            }
            String::from_utf8(body).map_err(|_| "the answer is not UTF-8".to_owned())
        }
    }

    /// An error and what caused it.
    fn chain(error: &dyn Error) -> String {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        text
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn keys_come_over_https_or_from_this_machine_and_credentials_are_not_named() {
            for (url, open) in [
                ("https://id.example.com/keys", false),
                ("http://id.example.com/keys", true),
                ("http://127.0.0.1:99/keys", false),
                ("http://[::1]/keys", false),
                ("http://localhost:8080/keys", false),
                ("http://localhost.example.com/keys", true),
                ("http://127.0.0.1.example.com/keys", true),
                ("http://127.0.0.1@example.com/keys", true),
            ] {
                let location = Location::new(url).expect(url);
                assert_eq!(location.is_open_to_others(), open, "{url}");
            }
            for url in ["", "id.example.com/keys", "ftp://id.example.com/", "file:///keys.json"] {
                assert!(Location::new(url).is_err(), "{url}");
            }
            let secret =
                Location::new("https://ann:pw@id.example.com:8443/keys?code=s").expect("a URL");
            assert_eq!(secret.name(), "https://id.example.com:8443/keys");
        }
    }
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

    /// A source that answers, after a second, what it is told to, and counts.
    struct Source {
        answer: Mutex<Result<String, String>>,
        asked: AtomicUsize,
    }

    fn source(answer: Result<String, String>) -> (Arc<Source>, Arc<KeyCache>) {
        let source = Arc::new(Source { answer: Mutex::new(answer), asked: AtomicUsize::new(0) });
        let asked = source.clone();
        let fetch = by(move || {
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
        fn says(&self, answer: Result<String, String>) {
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
    async fn a_flood_of_unknown_keys_is_one_fetch_an_interval_and_nobody_waits_for_age() {
        let (source, cache) = source(Ok(set("a")));
        let many: Vec<_> = (0..50).map(|_| cache.keys(Pace::URL)).collect();
        let many = futures_util::future::join_all(many).await;
        assert_eq!(source.asked(), 1, "one flight for all");
        let known = many[0].clone().expect("keys");
        let asks = |_| cache.newer(&known, Pace::URL);
        // The fetch at the start was not on demand: the first unknown key is looked for at once.
        for found in futures_util::future::join_all((0..50).map(asks)).await {
            assert!(found.expect("an answer").is_none());
        }
        assert_eq!(source.asked(), 2);
        source.says(Ok(set("b")));
        for _ in 0..50 {
            assert!(cache.newer(&known, Pace::URL).await.expect("an answer").is_none());
        }
        assert_eq!(source.asked(), 2, "not before the interval is over");
        advance(Pace::URL.on_demand).await;
        let newer = cache.newer(&known, Pace::URL).await.expect("an answer").expect("new keys");
        assert_eq!(source.asked(), 3);
        // By age, while the old ones serve.
        source.says(Ok(set("c")));
        advance(Pace::URL.refresh).await;
        let start = Instant::now();
        assert!(Arc::ptr_eq(&cache.keys(Pace::URL).await.expect("keys"), &newer));
        assert_eq!(start.elapsed(), Duration::ZERO);
        sleep(2 * SECOND).await;
        assert_eq!(source.asked(), 4);
        assert!(!Arc::ptr_eq(&cache.keys(Pace::URL).await.expect("keys"), &newer));
        // Where nobody asked for very long, the old ones are not taken unseen.
        source.says(Ok(set("d")));
        let old = cache.keys(Pace::URL).await.expect("keys");
        advance(3 * Pace::URL.refresh).await;
        assert!(!Arc::ptr_eq(&cache.keys(Pace::URL).await.expect("keys"), &old));
    }

    #[tokio::test(start_paused = true)]
    async fn keys_serve_while_the_issuer_is_down_but_not_for_ever() {
        let (source, cache) = source(down());
        assert!(cache.keys(Pace::URL).await.is_err());
        assert!(cache.keys(Pace::URL).await.is_err());
        assert_eq!(source.asked(), 1, "the second did not ask again");
        source.says(Ok(set("a")));
        advance(AFTER_FAILURE).await;
        let keys = cache.keys(Pace::URL).await.expect("keys");
        source.says(down());
        let why = cache.newer(&keys, Pace::URL).await.err().expect("an error");
        assert!(why.contains("a test") && why.contains("down"), "{why}");
        assert!(cache.newer(&keys, Pace::URL).await.is_err(), "not known, so not refused either");
        assert_eq!(source.asked(), 3);
        let start = Instant::now();
        while start.elapsed() + SECOND < Pace::URL.keep {
            advance(Pace::URL.refresh / 2).await;
            let asked = Instant::now();
            if start.elapsed() + SECOND < Pace::URL.keep {
                assert!(Arc::ptr_eq(&cache.keys(Pace::URL).await.expect("keys"), &keys));
                assert_eq!(
                    asked.elapsed(),
                    Duration::ZERO,
                    "nobody waits for an issuer that is down"
                );
            }
            sleep(SECOND).await;
        }
        advance(2 * SECOND).await;
        assert!(cache.keys(Pace::URL).await.is_err(), "a day is enough");
        source.says(Ok(set("a")));
        advance(AFTER_FAILURE).await;
        assert!(cache.keys(Pace::URL).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_fetch_outlives_its_client_and_one_that_hangs_or_panics_is_a_failure() {
        let (source, cache) = source(Ok(set("a")));
        assert!(timeout(SECOND / 2, cache.keys(Pace::URL)).await.is_err(), "the client leaves");
        sleep(SECOND).await;
        assert!(cache.keys(Pace::URL).await.is_ok());
        assert_eq!(source.asked(), 1);

        let hangs = by(std::future::pending::<Result<String, String>>);
        let cache = KeyCache::new("a test".to_owned(), hangs);
        let start = Instant::now();
        assert!(cache.keys(Pace::URL).await.is_err());
        assert_eq!(start.elapsed(), PATIENCE);

        let panics = by(|| -> std::future::Ready<Result<String, String>> { panic!("on purpose") });
        let cache = KeyCache::new("a test".to_owned(), panics);
        assert!(cache.keys(Pace::URL).await.err().expect("an error").contains("panicked"));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_no_key_set_changes_nothing_and_an_empty_one_takes_all_keys_away() {
        let (source, cache) = source(Ok(set("a")));
        let keys = cache.keys(Pace::URL).await.expect("keys");
        let huge = format!("{}{}", set("b"), " ".repeat(MAX_BYTES));
        for bad in ["", "<html>", "{}", &huge] {
            source.says(Ok(bad.to_owned()));
            advance(Pace::URL.on_demand).await;
            assert!(cache.newer(&keys, Pace::URL).await.is_err());
            assert!(Arc::ptr_eq(&cache.keys(Pace::URL).await.expect("keys"), &keys));
        }
        source.says(Ok(r#"{"keys": []}"#.to_owned()));
        advance(Pace::URL.on_demand).await;
        let none = cache.newer(&keys, Pace::URL).await.expect("an answer").expect("a new set");
        assert!(none.keys.is_empty());
    }

    #[test]
    fn a_fetch_that_went_down_with_its_runtime_is_done_again() {
        let (source, cache) = source(Ok(set("a")));
        let runtime = || {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            runtime.enable_all().start_paused(true).build().expect("a runtime")
        };
        let first = runtime();
        let left = first.block_on(async { timeout(SECOND / 2, cache.keys(Pace::URL)).await });
        assert!(left.is_err());
        drop(first);
        assert!(runtime().block_on(cache.keys(Pace::URL)).is_ok());
        assert_eq!(source.asked(), 2);
        // Outside of one there is an error, not a panic.
        let outside = by(|| std::future::ready(Ok::<_, String>(set("a"))));
        let cache = KeyCache::new("a test".to_owned(), outside);
        assert!(
            futures_util::FutureExt::now_or_never(cache.keys(Pace::URL)).expect("at once").is_err()
        );
    }
}
