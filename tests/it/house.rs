//! The house stands as ARCHITECTURE.md draws it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use self::imports::{Crate, circles};

mod imports;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

fn architecture() -> String {
    fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md")
}

/// Module to floor, read from the table: `| 3 | `options.rs`, `auth/` | .. |`.
fn floors() -> BTreeMap<String, u32> {
    let mut floors = BTreeMap::new();
    for line in architecture().lines() {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let [_, floor, files, ..] = cells.as_slice() else {
            continue;
        };
        let Ok(floor) = floor.parse() else { continue };
        for file in files.split('`').skip(1).step_by(2) {
            let module = file.trim_end_matches('/').trim_end_matches(".rs").to_owned();
            assert_eq!(floors.insert(module, floor), None, "{file} stands twice in the table");
        }
    }
    floors
}

/// Every source file of the library, as `(module, text)`; a folder is one module.
fn sources() -> Vec<(String, PathBuf, String)> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let source = root().join("hero-sse/src");
    let mut files = Vec::new();
    walk(&source, &mut files);
    let module = |path: &Path| {
        let inner = path.strip_prefix(&source).expect("inside").to_owned();
        let first = inner.components().next().expect("a name").as_os_str().to_string_lossy();
        first.trim_end_matches(".rs").to_owned()
    };
    files
        .into_iter()
        .map(|p| (module(&p), p.clone(), fs::read_to_string(&p).expect("text")))
        .collect()
}

/// The module of the floor table that a file belongs to.
fn module_of(file: &Path) -> String {
    let inner = file.strip_prefix(root().join("hero-sse/src")).expect("a file of the library");
    let first = inner.components().next().expect("a name").as_os_str().to_string_lossy();
    first.trim_end_matches(".rs").to_owned()
}

#[test]
fn every_import_goes_down() {
    let floors = floors();
    let mut wrong = Vec::new();
    let library = Crate::read(&root().join("hero-sse/src"));
    for (file, imports) in library.imports() {
        let module = module_of(file);
        let Some(floor) = floors.get(&module) else {
            wrong.push(format!("{} stands on no floor", file.display()));
            continue;
        };
        for import in imports {
            let below = module_of(import);
            if below != module && floors.get(&below).is_none_or(|below| below >= floor) {
                wrong.push(format!(
                    "{} imports {}, not below it",
                    file.display(),
                    import.display()
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What the checks above would find, in a crate of three files for each way to write an import.
#[test]
fn an_import_is_found_however_it_is_written() {
    let cases = [
        ("use crate::b::B; use crate::b::c::C;", "pub struct B;", true),
        ("use super::b::{B, c::{self}};", "pub struct B;", true),
        ("fn f() -> super::b::B { crate::b::c::call() }", "pub struct B;", true),
        // Through a re-export the import is one of the file that defines the name.
        ("use crate::b::C;", "pub use self::c::C;", true),
        ("use super::D;", "", true),
        // Neither a re-export in itself, nor what only tests import, nor another crate.
        ("use crate::b::B;", "pub struct B; pub use crate::a::A;", false),
        ("#[cfg(test)] mod tests { use crate::b::c::C; }", "", false),
        ("use std::b::c::C; // crate::b::c::C", "", false),
    ];
    for (a, b, is_circle) in cases {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |file: &str, text: &str| {
            std::fs::write(folder.path().join(file), text).expect("a file");
        };
        std::fs::create_dir(folder.path().join("b")).expect("a folder");
        write("lib.rs", "mod a; mod b; pub use b::c::C as D;");
        write("a.rs", &format!("pub struct A; {a}"));
        write("b/mod.rs", &format!("mod c; {b}"));
        write("b/c.rs", "pub struct C; fn f() { super::super::a::call() }");
        let read = Crate::read(folder.path());
        let found = circles(&read.imports());
        let files = found.iter().flatten().map(|file| file.file_name().expect("a name"));
        let files: Vec<_> = files.collect();
        let expected: &[&str] = if is_circle { &["a.rs", "c.rs"] } else { &[] };
        assert_eq!(files, expected, "{a}");
    }
}

#[test]
fn no_files_import_each_other() {
    let mut found = Vec::new();
    for source in ["hero-sse/src", "hero-sse-macros/src"] {
        let library = Crate::read(&root().join(source));
        let imports = library.imports();
        assert!(imports.len() > 15, "only {} files in {source}", imports.len());
        for circle in circles(&imports) {
            for file in &circle {
                let within = imports[file].intersection(&circle);
                let names: Vec<_> = within.map(|file| file.display().to_string()).collect();
                found.push(format!("{} imports {}", file.display(), names.join(", ")));
            }
            found.push(String::new());
        }
    }
    assert!(found.is_empty(), "these files import each other:\n{}", found.join("\n"));
}

#[test]
fn every_room_of_the_table_exists() {
    let built: Vec<_> = sources().into_iter().map(|(module, ..)| module).collect();
    for module in floors().keys() {
        assert!(built.contains(module), "{module} is in ARCHITECTURE.md and not in the house");
    }
}

#[test]
fn architecture_fits_on_a_page() {
    assert!(architecture().lines().count() <= 120);
}

#[test]
fn only_frame_writes_fields() {
    for (module, path, text) in sources() {
        let is_test = path.file_name().is_some_and(|name| name == "tests.rs");
        if module != "frame" && module != "testing" && !is_test {
            let code = text.split("#[cfg(test)]\nmod tests").next().expect("a part");
            let code: String =
                code.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
            assert!(
                !code.contains("\"data: ") && !code.contains("\"event: "),
                "{}",
                path.display()
            );
        }
    }
}

#[test]
fn generated_code_only_calls_private_functions() {
    let mut snapshots = 0;
    for part in ["endpoint", "event"] {
        let folder = root().join(format!("hero-sse-macros/src/{part}/snapshots"));
        for entry in fs::read_dir(folder).expect("snapshots") {
            let path = entry.expect("an entry").path();
            let text = fs::read_to_string(&path).expect("a snapshot");
            let named = |name: &str| text.matches(name).count();
            let path = path.display();
            assert!(named("__private") > 0, "{path} calls nothing");
            assert_eq!(named("hero_sse::"), named("hero_sse::__private"), "{path}");
            assert_eq!(named("serde::"), named("__private::serde::"), "{path}");
            // A mistake is told through the compiler's own macro.
            let core = named("::core::") - named("::core::compile_error!");
            assert_eq!(named("::std::") + core, 0, "{path} names std itself");
            snapshots += 1;
        }
    }
    assert!(snapshots > 8, "only {snapshots} snapshots");
}

/// The names at the root of the crate, without modules: what `lib.rs` re-exports, and the macro `endpoints!`.
fn root_names() -> BTreeSet<String> {
    let text = fs::read_to_string(root().join("hero-sse/src/lib.rs")).expect("lib.rs");
    let mut names = BTreeSet::from(["endpoints!".to_owned(), "derive(SseEvent)".to_owned()]);
    for statement in text.split("\npub use ").skip(1) {
        let statement = statement.split(';').next().expect("a part");
        let leaves = statement.rsplit("::{").next().expect("a part");
        let lists_paths = statement.starts_with("crate::{");
        let items = if lists_paths { &statement["crate::{".len()..] } else { leaves };
        for name in items.split([',', '{', '}', ' ', '\n']) {
            let name = name.rsplit("::").next().expect("a part");
            if !name.is_empty() && !name.ends_with(':') {
                names.insert(name.to_owned());
            }
        }
    }
    // The crates whose types are at the boundary.
    names.retain(|name| !["axum", "futures_core"].contains(&name.as_str()));
    names
}

#[test]
fn the_root_has_few_names() {
    let names = root_names();
    for name in
        ["HeroSse", "Topic", "SseEvent", "sse_endpoint", "Principal", "SseOptions", "stream"]
    {
        assert!(names.contains(name), "{name} is not among {names:?}");
    }
    assert!(names.len() <= 25, "{} names: move some to modules: {names:?}", names.len());
}
