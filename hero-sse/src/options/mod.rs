//! Settings as users write them: in code, in files and in environment variables.
//!
//! [`SseOptions`] holds them all, with the default of each and its reason. Mistakes are collected as [`SetupErrors`].

mod read;
#[cfg(test)]
mod tests;

pub use crate::client_addr::ForwardedHeader;
pub use crate::cors::Cors;
pub use crate::duration::{InvalidDuration, parse_duration};
use crate::policy::settings::types::*;
use crate::policy::settings::{
    ENDPOINT_SETTINGS, SERVER_SETTINGS, Setting, endpoint_option_methods, endpoint_option_table,
    server_option_methods, server_option_table,
};
use crate::policy::{Layers, Method, Policies, PolicyOverrides, ServerSettings};
pub use crate::policy::{OverLimit, Overflow, Profile, TokenSource};
pub use crate::setup::{SetupError, SetupErrorKind, SetupErrors};

const SECTION: &str = "SseOptions";
const ENDPOINTS: &str = "Endpoints";

/// What is wrong with token sources that have a cookie without a name.
pub(crate) const NO_COOKIE: &str =
    "a token may be in a cookie, but none is named: set TokenCookie, or leave out \"cookie\"";

/// Holds all settings of a server and its endpoints.
///
/// Options come from code, from the section `SseOptions` of a TOML or JSON file, and from environment variables.
/// A variable is `HERO_SSE_` and the key in capitals: `HERO_SSE_WRITE_TIMEOUT`. Key by key, a file wins over code,
/// and a variable over both. What an endpoint declares wins over all of these. The options' table for that
/// endpoint, `Endpoints."/path"`, wins over everything. Variables cannot set `Endpoints`.
///
/// An unknown key is an error. So is an unknown variable whose name resembles a key; another unknown variable is
/// logged as a warning.
///
/// ```
/// let options = hero_sse::SseOptions::from_toml(
///     r#"
///     [SseOptions]
///     WriteTimeout = "00:00:05"
///     HeartbeatInterval = "15s"
///
///     [SseOptions.Endpoints."/api/v1/usage/stream"]
///     HeartbeatInterval = "5s"
///     "#,
/// )?;
/// # Ok::<(), hero_sse::SetupErrors>(())
/// ```
///
/// Durations are `"15s"`, `"500ms"`, `"2m"`, `"1h"`, `"00:00:05"` (hh:mm:ss) or `"off"`.
///
/// # Settings of endpoints
///
/// The options set these for all endpoints, or in `Endpoints."/path"` for one. `MaxConnections` is only for one.
///
#[doc = endpoint_option_table!()]
///
/// # Settings of the server
///
#[doc = server_option_table!()]
#[doc(alias = "configuration")]
#[doc(alias = "rate limit")]
#[doc(alias = "keep-alive")]
#[derive(Clone, Debug)]
pub struct SseOptions {
    // The settings are rows in `policy/settings.rs`.
    pub(crate) server: ServerSettings,
    general: PolicyOverrides,
    /// The tables of endpoints, by path.
    endpoints: Vec<(String, PolicyOverrides)>,
}

impl Default for SseOptions {
    fn default() -> Self {
        let (general, endpoints) = (PolicyOverrides::NONE, Vec::new());
        Self { server: ServerSettings::default(), general, endpoints }
    }
}

/// Settings of all endpoints, from code.
impl SseOptions {
    endpoint_option_methods!();
}

/// Settings of the server, from code.
impl SseOptions {
    server_option_methods!();

    /// Sets which pages of other origins may open endpoints.
    ///
    /// Default: none, and no answer has a CORS header.
    #[must_use]
    pub fn cors(mut self, cors: Cors) -> Self {
        self.server.cors_origins = cors.origins;
        self.server.cors_credentials = cors.credentials;
        self.server.cors_allowed_headers = cors.allowed_headers;
        self.server.cors_exposed_headers = cors.exposed_headers;
        self.server.cors_max_age = cors.max_age;
        self.server.cors_private_network = cors.private_network;
        self
    }
}

impl SseOptions {
    /// Returns the policy of the endpoint at `path`, by which clients ask with `method`.
    pub(crate) fn policies(
        &self,
        path: &str,
        declaration: &PolicyOverrides,
        method: Method,
    ) -> Policies {
        let table = self.endpoints.iter().find(|(of, _)| of == path);
        let table = table.map_or(&PolicyOverrides::NONE, |(_, table)| table);
        Policies::resolve(Layers { options: &self.general, declaration, table }, method)
    }

    /// Returns the policy of an endpoint that declares nothing.
    pub(crate) fn general_policies(&self) -> Policies {
        self.policies("", &PolicyOverrides::NONE, Method::Get)
    }

    /// Returns the paths that have a table in `Endpoints`.
    pub(crate) fn endpoint_paths(&self) -> impl Iterator<Item = &str> {
        self.endpoints.iter().map(|(path, _)| path.as_str())
    }

    pub(crate) fn cors_settings(&self) -> Cors {
        let server = &self.server;
        Cors {
            origins: server.cors_origins.clone(),
            credentials: server.cors_credentials,
            allowed_headers: server.cors_allowed_headers.clone(),
            exposed_headers: server.cors_exposed_headers.clone(),
            max_age: server.cors_max_age,
            private_network: server.cors_private_network,
        }
    }

    /// Returns whether these settings have tokens in a cookie that has no name.
    pub(crate) fn names_no_cookie(&self, overrides: &PolicyOverrides) -> bool {
        self.server.token_cookie.is_none()
            && overrides.token_sources.is_some_and(|sources| sources.has(TokenSource::Cookie))
    }

    /// Returns what is wrong with values from code, and with settings that do not fit each other. Values from
    /// texts were checked when they were read.
    pub(crate) fn faults(&self) -> Vec<SetupError> {
        let of_key =
            |key: &str, fault: String| SetupError::option(&format!("{SECTION}.{key}"), fault);
        let server = Setting::all_faults(SERVER_SETTINGS, &self.server);
        let mut faults: Vec<_> = server.map(|(row, fault)| of_key(row.key, fault)).collect();
        let general = Setting::all_faults(ENDPOINT_SETTINGS, &self.general);
        faults.extend(general.map(|(row, fault)| of_key(row.key, fault)));
        faults.extend(self.cors_settings().fault().map(|fault| of_key("CorsCredentials", fault)));
        if self.names_no_cookie(&self.general) {
            faults.push(of_key("TokenSources", NO_COOKIE.to_owned()));
        }
        let tables = self.endpoints.iter().filter(|(_, table)| self.names_no_cookie(table));
        faults.extend(tables.map(|(path, _)| {
            of_key(&format!("{ENDPOINTS}.{path:?}.TokenSources"), NO_COOKIE.to_owned())
        }));
        faults
    }
}
