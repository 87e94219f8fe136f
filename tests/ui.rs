//! The messages of the macros: one file in `ui/` for each mistake, named after it. After a change
//! `TRYBUILD=overwrite cargo test --test ui` writes the new messages. Read them.
#![allow(missing_docs)]

use std::fs;
use std::path::{Path, PathBuf};

#[test]
fn ui() {
    let cases = trybuild::TestCases::new();
    cases.pass("ui/pass/*.rs");
    cases.pass(every_setting());
    cases.compile_fail("ui/endpoint/*.rs");
    cases.compile_fail("ui/event/*.rs");
    cases.compile_fail("ui/compiler/*.rs");
    cases.compile_fail("ui/sealed/*.rs");
}

/// How a function reports a mistake by itself, or makes an assertion for the compiler.
const REPORTS: &[&str] = &["errors.push(", "input.error(", "syn::Error::new(", "Assertion {"];
/// What a function returns if its caller reports the mistake.
const RETURNS: &[&str] = &["&str) -> Option<String> {", "&str) -> Option<Fault> {"];

/// A rule is a function that reports a mistake, or returns what to report. Each has a case with its name.
#[test]
fn every_rule_has_a_case() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut missing = Vec::new();
    for (file, marks, folders, least) in [
        ("attr.rs", REPORTS, ["endpoint", "event"].as_slice(), 5),
        ("value.rs", REPORTS, &["endpoint"], 1),
        ("duration.rs", REPORTS, &["endpoint"], 3),
        ("endpoint/signature.rs", REPORTS, &["endpoint"], 15),
        ("endpoint/parse.rs", REPORTS, &["endpoint"], 1),
        ("endpoint/check.rs", REPORTS, &["endpoint"], 12),
        ("event/parse.rs", REPORTS, &["event"], 1),
        ("event/check.rs", REPORTS, &["event"], 8),
        ("name.rs", RETURNS, &["endpoint"], 4),
        ("route.rs", RETURNS, &["endpoint"], 12),
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

/// A row of a table of keys.
struct Row {
    key: String,
    /// The key with a value.
    example: String,
    /// Whether the library documents it, from a table of its own.
    setting: bool,
}

/// The rows of a table of the macros, read from its source.
fn rows(table: &str, least: usize) -> Vec<Row> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../hero-sse-macros/src");
    let source = fs::read_to_string(source.join(table).join("parse.rs")).expect("the table");
    let text = source.split("keys! {").nth(1).and_then(|rest| rest.split("\n}\n").next());
    let row = |text: &str| {
        let key = text.trim().strip_prefix('"')?.split('"').next()?.to_owned();
        let raw = text.split_once("r#\"").and_then(|(_, rest)| rest.split_once("\"#"));
        let plain = || text.split('"').find(|part| part.starts_with(&format!("{key} =")));
        let example = raw.map(|(example, _)| example).or_else(plain).unwrap_or(&key);
        Some(Row { example: example.to_owned(), setting: text.ends_with(", setting"), key })
    };
    let rows: Vec<_> = text.expect("a table").split(";\n").filter_map(row).collect();
    assert!(rows.len() >= least, "{}", rows.len());
    rows
}

/// A case with an endpoint for each key that is a setting, made from the table: a setting has no case of its own
/// for that.
fn every_setting() -> PathBuf {
    let mut case = String::from("#![deny(warnings)]\n\nuse hero_sse::extend::EndpointMeta;\n");
    let mut main = String::new();
    case.push_str("use hero_sse::prelude::*;\n");
    for Row { key, example, .. } in rows("endpoint", 18).into_iter().filter(|row| row.setting) {
        case.push_str(&format!(
            "\n#[sse_endpoint(\"/s\", {example})]\nasync fn with_{key}() -> impl Stream<Item = Event> {{\n    \
             futures_util::stream::empty()\n}}\n"
        ));
        main.push_str(&format!(
            "    let shown = format!(\"{{:?}}\", with_{key}::DESCRIPTOR);\n    \
             assert!(!shown.contains(\" {key}: None\"), \"{{shown}}\");\n"
        ));
    }
    case.push_str(&format!("\nfn main() {{\n{main}}}\n"));
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("every_setting.rs");
    fs::write(&path, case).expect("a case");
    path
}

/// Each key has its place in the guides, with an example that compiles. Settings also have a generated table.
#[test]
fn every_key_is_documented() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for (table, page, least) in [("endpoint", "endpoints.md", 18), ("event", "events.md", 9)] {
        let page = fs::read_to_string(here.join("hero-sse/docs").join(page)).expect("the page");
        for Row { key, setting, .. } in rows(table, least) {
            let headed = |section: &&str| {
                let names = section.lines().next().unwrap_or_default().split('`').step_by(2);
                names.into_iter().any(|name| name == key)
            };
            let section = page.split("\n## `").skip(1).find(headed);
            if section.is_none() && setting {
                continue;
            }
            let section = section.unwrap_or_else(|| panic!("{table}: no heading for `{key}`"));
            let code: String = section.split("```").skip(1).step_by(2).collect();
            let attributes = code.lines().filter(|line| line.trim_start().contains("#[sse"));
            let names = |line: &str| {
                line.split(|c: char| c != '_' && !c.is_alphanumeric()).any(|w| w == key)
            };
            assert!(attributes.into_iter().any(names), "{table}: no example of `{key}`");
        }
    }
}

/// The page of every error is made of the cases: the code, and its message. For an error that has no message
/// of ours the case brings the cure.
#[test]
fn the_page_of_errors_is_current() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = here.join("../hero-sse/docs/errors.md");
    let mut text = fs::read_to_string(here.join("ui/errors.md")).expect("the page's head");
    for (title, folder) in [("An endpoint", "endpoint"), ("An event", "event")] {
        text.push_str(&format!("\n## {title}\n"));
        for case in cases(&here.join("ui").join(folder)) {
            text.push_str(&entry(&case));
        }
    }
    text.push_str(COMPILER);
    for case in cases(&here.join("ui/compiler")) {
        text.push_str(&compiler_entry(&case));
    }
    if std::env::var("TRYBUILD").is_ok_and(|mode| mode == "overwrite") {
        fs::write(&page, &text).expect("the page");
    }
    let current = fs::read_to_string(&page).unwrap_or_default();
    assert!(current == text, "the page is out of date: TRYBUILD=overwrite cargo test --test ui");
}

/// One mistake makes one error, with twelve lines on average at most.
#[test]
fn one_mistake_makes_one_short_error() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("ui");
    let cases: Vec<_> = ["endpoint", "event"].iter().flat_map(|f| cases(&here.join(f))).collect();
    let mut lines = 0;
    for case in &cases {
        let errors = message(case);
        lines += errors.lines().count();
        let count = errors.lines().filter(|line| line.starts_with("error")).count();
        let several = case.ends_with("several_mistakes_at_once.rs");
        assert!(if several { count > 2 } else { count == 1 }, "{}: {count}", case.display());
    }
    assert!(cases.len() > 100 && lines <= 12 * cases.len(), "{lines} in {}", cases.len());
}

fn cases(folder: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("a file").path());
    let mut cases: Vec<_> =
        files.filter(|path| path.extension().is_some_and(|extension| extension == "rs")).collect();
    cases.sort();
    cases
}

/// What the compiler prints for a case.
fn message(case: &Path) -> String {
    fs::read_to_string(case.with_extension("stderr")).expect("a message")
}

/// A case's name, and its code without imports and `main`.
fn name_and_code(case: &Path) -> (String, String) {
    let name = case.file_stem().expect("a name").to_string_lossy().replace('_', " ");
    let source = fs::read_to_string(case).expect("a case");
    let source = source.split("\nfn main() {").next().unwrap_or_default();
    let code: Vec<_> = source.lines().skip_while(|line| !line.is_empty()).collect();
    let code = code.join("\n").replace("{\n    futures_util::stream::empty()\n}", "{ .. }");
    (name, code.trim().to_owned())
}

const COMPILER: &str = "
## In the compiler's words

For these mistakes the compiler has no message of ours. They violate a bound of axum's, or the item that your own
signature promises, and Rust lets a library word only the errors about its own traits. Each entry has the compiler's
text, to be found by a search, and the cure.
";

/// The compiler's first error in full, and the cure from the case's head.
fn compiler_entry(case: &Path) -> String {
    let (name, code) = name_and_code(case);
    let message = message(case);
    let error = message.split("\n\n").next().unwrap_or_default().trim();
    let source = fs::read_to_string(case).expect("a case");
    let cure: Vec<_> = source.lines().map_while(|line| line.strip_prefix("//! ")).collect();
    assert!(!cure.is_empty(), "{}: no cure", case.display());
    let cure = cure.join("\n");
    format!("\n### {name}\n\n```text\n{code}\n```\n\n```text\n{error}\n```\n\n{cure}\n")
}

fn entry(case: &Path) -> String {
    let (name, code) = name_and_code(case);
    let message = message(case);
    let message: Vec<_> = message.lines().filter_map(ours).collect();
    format!("\n### {name}\n\n```text\n{}\n```\n\n{}\n", code, message.join("\n"))
}

/// A line of the message that is ours and not the compiler's, as a line of the page.
fn ours(line: &str) -> Option<String> {
    let error = line.strip_prefix("error").and_then(|rest| rest.split_once(": "));
    let note = line.trim_start().strip_prefix("= note: ");
    if let Some((_, error)) = error {
        let error = error.strip_prefix("evaluation panicked: ").unwrap_or(error);
        Some(format!("> {error}"))
    } else if let Some(usage) = line.strip_prefix("       ") {
        Some(format!(">\n> {}", usage.trim()))
    } else {
        let theirs =
            |note: &str| note.starts_with("this error") || note.starts_with("required for");
        note.filter(|note| !theirs(note)).map(|note| format!(">\n> {note}"))
    }
}

/// Each key of an endpoint has a case that shows its effect; the case for settings is made from the table. Each key
/// of an event is in some case.
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
        for Row { key, setting, .. } in rows(part, least) {
            let shown = match part {
                "endpoint" => setting || pass.join(format!("key_{key}.rs")).exists(),
                _ => {
                    let has = |attribute: &str| cases.contains(attribute);
                    has(&format!("#[sse({key}")) || has(&format!(", {key}"))
                }
            };
            if !shown {
                missing.push(format!("{part}: {key}"));
            }
        }
    }
    assert_eq!(missing, Vec::<String>::new());
}

/// The name and text of each function.
fn functions(source: &str) -> impl Iterator<Item = (&str, &str)> {
    let source = source.split("#[cfg(test)]").next().unwrap_or_default();
    source.split("fn ").skip(1).filter_map(|text| Some((text.split(['(', '<']).next()?, text)))
}
