//! Tests that need a real browser: the page of the live example, and pages that leave and return.

use std::path::Path;
use std::process::Command;

/// A plain `cargo test` leaves it out: it needs Chromium, Node.js and the example's binary. `./tests/run` has them.
#[test]
#[ignore = "needs Chromium and Node.js: ./tests/run installs them and runs it"]
fn the_page_of_the_live_example_works() {
    assert!(std::env::var_os("LIVE_BIN").is_some(), "LIVE_BIN is not set; call ./tests/run");
    node("live.test.mjs", &[]);
}

#[test]
#[ignore = "needs Chromium and Node.js: ./tests/run installs them and runs it"]
fn the_server_notices_closed_tabs_and_open_tabs_survive_restarts() {
    node("trial.test.mjs", &[]);
}

#[test]
#[ignore = "needs Chromium and Node.js: ./tests/run installs them and runs it"]
fn pages_renew_their_tokens_and_tickets_without_missing_an_event() {
    node("renew.test.mjs", &[]);
}

#[test]
#[ignore = "needs Chromium and Node.js: ./tests/run installs them and runs it"]
fn cookies_count_only_from_pages_of_this_site() {
    node("credentials.test.mjs", &[]);
}

pub(crate) fn node(file: &str, variables: &[(&str, &str)]) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("browser");
    let status = Command::new("node")
        .args(["--test", file])
        .env("TRIAL_BIN", env!("CARGO_BIN_EXE_trial"))
        .envs(variables.iter().copied())
        .current_dir(folder)
        .status()
        .expect("Node.js; ./tests/run installs it");
    assert!(status.success(), "the browser test failed; its report is above");
}
