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

/// How a function reports a mistake by itself, and does not just pass one on.
const REPORTS: &[&str] = &["errors.push(", "input.error(", "syn::Error::new("];
/// What it returns if it leaves the reporting to its caller.
const RETURNS: &[&str] = &["&str) -> Option<String> {", "&str) -> Option<Fault> {"];

/// A rule is a function that reports a mistake, or returns what to report; each has a case of its
/// name.
#[test]
fn every_rule_has_a_case() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut missing = Vec::new();
    for (file, marks, folders, least) in [
        ("attr.rs", REPORTS, ["endpoint", "event"].as_slice(), 6),
        ("endpoint/parse.rs", REPORTS, &["endpoint"], 1),
        ("endpoint/check.rs", REPORTS, &["endpoint"], 20),
        ("event/parse.rs", REPORTS, &["event"], 1),
        ("event/check.rs", REPORTS, &["event"], 4),
        ("event/data.rs", REPORTS, &["event"], 1),
        ("name.rs", RETURNS, &["endpoint"], 4),
        ("route.rs", RETURNS, &["endpoint"], 9),
    ] {
        let source = fs::read_to_string(here.join("../hero-sse-macros/src").join(file));
        let source = source.expect("a source file");
        let reports = |body: &str| marks.iter().any(|mark| body.contains(mark));
        let rules: Vec<_> = functions(&source).filter(|(_, body)| reports(body)).collect();
        assert!(rules.len() >= least, "{file}: {rules:?}");
        for (rule, _) in rules {
            let case = |folder| here.join("ui").join(folder).join(rule).with_extension("rs");
            if !folders.iter().any(|folder| case(folder).exists()) {
                missing.push(format!("{file}: {rule}"));
            }
        }
    }
    assert_eq!(missing, Vec::<String>::new());
}

/// Each key of an endpoint has a case that shows what it does; each of an event stands in some case.
#[test]
fn every_key_has_a_passing_case() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &Path| fs::read_to_string(path).expect("a source file");
    let pass = here.join("ui/pass");
    let cases: String = fs::read_dir(&pass)
        .expect("the cases")
        .map(|case| case.expect("a case").path())
        .filter(|case| case.extension().is_some_and(|extension| extension == "rs"))
        .map(|case| read(&case))
        .collect();
    let mut missing = Vec::new();
    for (part, least) in [("endpoint", 18), ("event", 9)] {
        let source = read(&here.join("../hero-sse-macros/src").join(part).join("parse.rs"));
        let table = source.split("keys! {").nth(1).and_then(|rest| rest.split("\n}").next());
        let rows = table.expect("a table").lines().filter_map(|line| line.strip_prefix("    \""));
        let keys: Vec<_> = rows.filter_map(|row| row.split('"').next()).collect();
        assert!(keys.len() >= least, "{part}: {keys:?}");
        for key in keys {
            let shown = match part {
                "endpoint" => pass.join(format!("key_{key}.rs")).exists(),
                _ => {
                    let said = |mark: &str| cases.contains(mark);
                    said(&format!("#[sse({key}")) || said(&format!(", {key}"))
                }
            };
            if !shown {
                missing.push(format!("{part}: {key}"));
            }
        }
    }
    assert_eq!(missing, Vec::<String>::new());
}

/// The name and text of each function that stands at the left margin, or in an `impl` there.
fn functions(source: &str) -> impl Iterator<Item = (&str, &str)> {
    let source = source.split("#[cfg(test)]").next().unwrap_or_default();
    source.split("fn ").skip(1).filter_map(|text| Some((text.split(['(', '<']).next()?, text)))
}
