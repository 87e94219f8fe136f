//! What only a real browser can show: the live example's page, and pages that come and go.

use std::path::Path;
use std::process::Command;

/// Left out of a plain `cargo test`: it needs Chromium, Node.js and the example's binary, which
/// `./tests/run` sees to.
#[test]
#[ignore = "needs Chromium and Node.js: ./tests/run installs them and runs it"]
fn the_page_of_the_live_example_works() {
    assert!(std::env::var_os("LIVE_BIN").is_some(), "LIVE_BIN is not set; call ./tests/run");
    node("live.test.mjs", &[]);
}

#[test]
#[ignore = "needs Chromium and Node.js: ./tests/run installs them and runs it"]
fn tabs_that_leave_are_noticed_and_tabs_that_stay_live_through_restarts() {
    node("trial.test.mjs", &[]);
}

#[test]
#[ignore = "needs Chromium and Node.js: ./tests/run installs them and runs it"]
fn pages_renew_their_tokens_and_tickets_and_lose_nothing() {
    node("renew.test.mjs", &[]);
}

#[test]
#[ignore = "needs Chromium and Node.js: ./tests/run installs them and runs it"]
fn cookies_count_from_pages_of_this_site_alone() {
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
