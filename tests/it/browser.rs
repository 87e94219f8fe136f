//! The live example's page in a real browser.

use std::path::Path;
use std::process::Command;

/// Left out of a plain `cargo test`: it needs Chromium, Node.js and the example's binary, which
/// `./tests/run` sees to.
#[test]
#[ignore = "needs Chromium and Node.js: ./tests/run installs them and runs it"]
fn the_page_of_the_live_example_works() {
    assert!(std::env::var_os("LIVE_BIN").is_some(), "LIVE_BIN is not set; call ./tests/run");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("browser");
    let status = Command::new("node")
        .args(["--test", "live.test.mjs"])
        .current_dir(folder)
        .status()
        .expect("Node.js; ./tests/run installs it");
    assert!(status.success(), "the browser test failed; its report is above");
}
