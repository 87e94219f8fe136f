//! Fetches key sets over HTTPS.

use std::error::Error;
use std::sync::{Arc, OnceLock};

use futures_util::FutureExt as _;
use reqwest::header::ACCEPT;
use reqwest::{Client, StatusCode, Url, redirect};

use super::jwks::{FETCH_TIMEOUT, Fetch, MAX_BYTES};

/// A URL where an issuer publishes its keys.
#[derive(Clone)]
pub(super) struct KeysUrl {
    url: Url,
    client: Arc<OnceLock<Result<Client, String>>>,
}

impl KeysUrl {
    pub(super) fn new(url: &str) -> Result<Self, String> {
        let url = Url::parse(url).map_err(|error| format!("the URL of the keys: {error}"))?;
        if !matches!(url.scheme(), "https" | "http") || url.host_str().is_none() {
            return Err("the URL of the keys must begin with `https://` and a host".to_owned());
        }
        Ok(Self { url, client: Arc::default() })
    }

    /// Returns origin and path. The other parts may hold credentials.
    pub(super) fn display_name(&self) -> String {
        let (origin, path) = (self.url.origin().ascii_serialization(), self.url.path());
        format!("{origin}{path}")
    }

    /// Returns whether anyone on the network path could insert keys.
    pub(super) fn is_insecure(&self) -> bool {
        self.url.scheme() == "http" && !self.is_loopback()
    }

    fn is_loopback(&self) -> bool {
        let host = self.url.host_str().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let address = host.parse::<std::net::IpAddr>();
        host == "localhost" || address.is_ok_and(|address| address.is_loopback())
    }

    /// Returns the HTTPS client, created on first use, since it reads the system's certificates.
    pub(super) fn client(&self) -> Result<Client, String> {
        let make = || {
            let mut client = Client::builder()
                // A redirect could lead to another issuer. The final URL can be configured instead.
                .redirect(redirect::Policy::none())
                .referer(false)
                // A pooled connection would belong to the runtime that opened it.
                .pool_max_idle_per_host(0)
                .http1_only()
                .timeout(FETCH_TIMEOUT);
            if self.is_loopback() {
                client = client.no_proxy();
            }
            client.build().map_err(|error| chain(&error.without_url()))
        };
        self.client.get_or_init(make).clone()
    }

    pub(super) fn fetcher(&self) -> Fetch {
        let url = self.clone();
        Arc::new(move || {
            let url = url.clone();
            async move { url.get().await }.boxed()
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

/// Returns an error with its causes.
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
    fn http_is_secure_on_this_machine_only_and_credentials_are_not_displayed() {
        for (url, expected) in [
            ("https://id.example.com/keys", false),
            ("http://id.example.com/keys", true),
            ("http://127.0.0.1:99/keys", false),
            ("http://[::1]/keys", false),
            ("http://localhost:8080/keys", false),
            ("http://localhost.example.com/keys", true),
            ("http://127.0.0.1.example.com/keys", true),
            ("http://127.0.0.1@example.com/keys", true),
        ] {
            let insecure = KeysUrl::new(url).expect(url).is_insecure();
            assert_eq!(insecure, expected, "{url}");
        }
        for url in ["", "id.example.com/keys", "ftp://id.example.com/", "file:///keys.json"] {
            assert!(KeysUrl::new(url).is_err(), "{url}");
        }
        let secret = KeysUrl::new("https://ann:pw@id.example.com:8443/keys?code=s").expect("a URL");
        assert_eq!(secret.display_name(), "https://id.example.com:8443/keys");
    }
}
