//! What the macros say about mistakes: a file in `ui/` for each, named after it. After a change of
//! words, `TRYBUILD=overwrite cargo test --test ui` writes what is said now; read it.
#![allow(missing_docs)]

use std::fs;
use std::path::Path;

#[test]
fn ui() {
    let cases = trybuild::TestCases::new();
    cases.pass("ui/pass/*.rs");
    cases.compile_fail("ui/endpoint/*.rs");
    cases.compile_fail("ui/event/*.rs");
}

/// A rule is a function that reports a mistake, or returns what to report; each has a case of its
/// name.
#[test]
fn every_rule_has_a_case() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut missing = Vec::new();
    for (file, mark, folder) in [
        ("endpoint/check.rs", "errors.push(", "endpoint"),
        ("name.rs", "&str) -> Option<String> {", "endpoint"),
        ("route.rs", "&str) -> Option<String> {", "endpoint"),
        ("event/check.rs", "errors.push(", "event"),
    ] {
        let source = fs::read_to_string(here.join("../hero-sse-macros/src").join(file));
        let source = source.expect("a source file");
        let functions = source.split("\nfn ").skip(1).filter(|function| function.contains(mark));
        let rules: Vec<_> = functions.filter_map(|rule| rule.split(['(', '<']).next()).collect();
        assert!(rules.len() > 3, "{file}: {rules:?}");
        for rule in rules {
            let case = here.join("ui").join(folder).join(rule).with_extension("rs");
            if !case.exists() {
                missing.push(format!("{folder}/{rule}.rs"));
            }
        }
    }
    assert_eq!(missing, Vec::<String>::new());
}
