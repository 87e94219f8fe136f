//! A crate outside the workspace, `outside/`: it has the README's declarations, under another name for
//! hero-sse, and neither axum nor futures among its dependencies.
#![allow(missing_docs)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Name and version of each package in a `Cargo.lock`, such as `name = "axum" version = "0.8.9"`.
fn packages(lock: &str) -> BTreeSet<String> {
    let packages = lock.split("[[package]]\n").skip(1);
    packages.map(|package| package.lines().take(2).collect::<Vec<_>>().join(" ")).collect()
}

/// Without a network: every version is the workspace's, which was there to build this test.
#[test]
fn it_builds_and_runs() {
    let lock = root().join("tests/outside/Cargo.lock");
    fs::copy(root().join("Cargo.lock"), &lock).expect("a copy");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("the target directory");
    let run = Command::new(env!("CARGO"))
        .args(["run", "--quiet", "--offline", "--manifest-path", "tests/outside/Cargo.toml"])
        .arg("--target-dir")
        .arg(target)
        .current_dir(root())
        .output()
        .expect("cargo");
    assert!(run.status.success(), "\n{}", String::from_utf8_lossy(&run.stderr));
    assert_eq!(String::from_utf8_lossy(&run.stdout), "/usage/stream /builds /questions\n");

    let mut used = packages(&fs::read_to_string(lock).expect("a lock file"));
    assert!(used.remove("name = \"outside\" version = \"0.0.0\""), "{used:?}");
    let known = packages(&read("Cargo.lock"));
    let foreign: Vec<_> = used.difference(&known).collect();
    assert!(used.len() > 20 && foreign.is_empty(), "{foreign:?}");
}

/// The endpoints and events of a source, from their docs to the end, without what a formatter changes
/// and without what tells where hero-sse is.
fn declarations(source: &str) -> Vec<String> {
    let lines: Vec<&str> = source.lines().collect();
    let starts = |line: &&str| line.starts_with("///") || line.starts_with("#[");
    let places = |line: &str| line.trim_start_matches("pub ").starts_with("struct ");
    let ends = |line: &str| line == "}" || places(line) && line.ends_with(';');
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let derives = line.starts_with("#[derive(") && line.contains("SseEvent");
        if !derives && !line.starts_with("#[sse_endpoint(") {
            continue;
        }
        let before = lines[..at].iter().rev().take_while(|line| starts(line)).count();
        let rest = &lines[at - before..];
        let end = rest.iter().position(|line| ends(line)).expect("an end");
        let text: String = rest[..=end].concat().split_whitespace().collect();
        let text = [",}", ",)", ",]"].iter().fold(text, |text, end| text.replace(end, &end[1..]));
        found.push(text.replace(",crate=sse)]", ")]").replace("#[sse(crate=sse)]", ""));
    }
    found
}

#[test]
fn it_has_the_declarations_of_the_readme() {
    let readme = read("README.md");
    let blocks = readme.split("```rust").skip(1).filter_map(|rest| rest.split("```").next());
    // A complete program has dependencies of its own, and is compiled as a doctest.
    let parts = blocks.filter(|block| !block.contains("fn main()"));
    let shown: Vec<_> = parts.flat_map(declarations).collect();
    let built = declarations(&read("tests/outside/src/main.rs"));
    assert!(
        shown.len() >= 3 && shown.iter().any(|text| text.contains("#[sse_endpoint")),
        "{shown:#?}"
    );
    let missing: Vec<_> = shown.iter().filter(|text| !built.contains(text)).collect();
    assert!(missing.is_empty(), "not in tests/outside: {missing:#?}\nthere are {built:#?}");
}

/// An application may install a `CryptoProvider` for `jsonwebtoken` before hero-sse does. One that verifies nothing
/// must stop the start-up, since `jsonwebtoken` would panic with the first token.
#[test]
fn a_crypto_provider_without_algorithms_is_a_set_up_error() {
    use jsonwebtoken::crypto::{CryptoProvider, KeyUtils};

    static NOTHING: CryptoProvider = CryptoProvider {
        signer_factory: |_, _| panic!("no signatures"),
        verifier_factory: |_, _| panic!("no verification"),
        key_utils: KeyUtils::new_unimplemented(),
    };
    NOTHING.install_default().expect("the first provider of this process");
    let jwt = hero_sse::JwtAuthenticator::hs256("a random secret of at least thirty-two bytes")
        .issuer("https://id.example.com")
        .audience("usage");
    let error = hero_sse::HeroSse::builder().authenticator(jwt).build().expect_err("no backend");
    let expected = "the crypto backend of `jsonwebtoken` cannot verify HS256";
    assert!(error.to_string().contains(expected), "{error}");
}
