//! Everything that is tested through the public face, in one binary: it links once.
#![allow(missing_docs)]

mod access;
mod admission;
mod adopt;
mod answers;
mod auth;
mod broker;
mod browser;
mod buffer;
mod cable;
mod captured_permissions;
mod connection;
mod cursors;
mod drain;
mod early;
mod endpoint;
mod event;
#[cfg(target_os = "linux")]
mod files;
mod foreign;
mod format;
mod gateways;
mod guard;
#[cfg(target_os = "linux")]
mod hard_end;
mod hardening;
mod hooks;
mod hostility;
mod house;
mod http2;
mod isolation;
mod issuer;
mod keyed_topics;
mod keys;
mod lints;
mod live;
mod metrics;
mod plain;
mod reader;
mod reauthorize;
mod refusals;
mod registry;
mod rules;
mod send;
mod setup;
mod signing;
mod stress;
mod support;
mod tenancy;
mod tickets;
mod tls;
mod topic;
mod transport;
mod wire;
mod words;
