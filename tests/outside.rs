//! Packages outside the workspace, built as an application builds hero-sse. `outside/` has the README's declarations,
//! another name for hero-sse, and neither axum nor futures among its dependencies. `worker/` has no server.
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

/// Builds a package below `tests` that is no member of the workspace, and returns what it prints. Works without a
/// network, since every version is the workspace's, which was needed to build this test.
fn run(package: &str) -> String {
    let lock = root().join("tests").join(package).join("Cargo.lock");
    fs::copy(root().join("Cargo.lock"), &lock).expect("a copy");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("the target directory");
    let printed =
        cargo(package, &["run", "--quiet", "--target-dir", &target.display().to_string()]);

    let mut used = packages(&fs::read_to_string(lock).expect("a lock file"));
    assert!(used.remove(&format!("name = \"{package}\" version = \"0.0.0\"")), "{used:?}");
    let known = packages(&read("Cargo.lock"));
    let foreign: Vec<_> = used.difference(&known).collect();
    assert!(used.len() > 20 && foreign.is_empty(), "{foreign:?}");
    printed
}

/// Runs cargo offline for a package below `tests`, and returns what it prints.
fn cargo(package: &str, arguments: &[&str]) -> String {
    let (command, rest) = arguments.split_first().expect("a command");
    let output = Command::new(env!("CARGO"))
        .args([*command, "--offline", "--manifest-path"])
        .arg(root().join("tests").join(package).join("Cargo.toml"))
        .args(rest)
        .current_dir(root())
        .output()
        .expect("cargo");
    assert!(output.status.success(), "\n{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn it_builds_and_runs() {
    assert_eq!(run("outside"), "/usage/stream /builds /questions\n");
}

/// A program that only publishes builds no web framework.
#[test]
fn a_worker_without_the_server_publishes_and_has_no_axum() {
    assert_eq!(run("worker"), "1 2\n");

    let tree = cargo("worker", &["tree", "-e", "normal", "--prefix", "none"]);
    let names: BTreeSet<_> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(names.contains("hero-sse") && names.contains("tokio"), "{tree}");
    for name in ["axum", "axum-core", "h2", "http", "hyper", "jsonwebtoken", "toml", "tower"] {
        assert!(!names.contains(name), "{name} is in\n{tree}");
    }
}

/// The endpoints and events of a source, from their docs to their end. Without white space and the path to hero-sse,
/// so that they can be compared.
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
