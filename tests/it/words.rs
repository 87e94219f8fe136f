//! The README, the guides and the documentation of the source are in plain words, and their links lead somewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Phrases that a reader must decode. `CONTRIBUTING.md` says what to write instead.
const BANNED: &[&str] = &[
    "kit",
    "farewell",
    "turned away",
    "turned down",
    "who comes back",
    "begins anew",
    "family of topics",
    "is told",
    "errand",
    "patience",
    "an operator writes",
];

const MOST_WORDS: usize = 1_500;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn files(folder: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files(&path, extension, found);
        } else if path.extension().is_some_and(|found| found == extension) {
            found.push(path);
        }
    }
    found.sort();
}

/// The guides, without their index and the generated list of errors.
fn guides() -> Vec<PathBuf> {
    let mut pages = Vec::new();
    files(&root().join("hero-sse/docs"), "md", &mut pages);
    pages.retain(|page| !page.ends_with("README.md") && !page.ends_with("errors.md"));
    assert!(pages.len() > 15, "{pages:?}");
    pages
}

/// Every page that is written by hand, and the list of errors.
fn pages() -> Vec<PathBuf> {
    let mut pages = Vec::new();
    files(&root().join("hero-sse/docs"), "md", &mut pages);
    let others = [
        "README.md",
        "ARCHITECTURE.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "hero-sse/README.md",
        "hero-sse-macros/README.md",
    ];
    pages.extend(others.map(|page| root().join(page)));
    pages
}

/// Lower case, on one line, without the marks of comments.
fn plain(text: &str) -> String {
    let line = |line: &str| {
        let line = line.trim_start();
        let comment = ["///", "//!", "//"].iter().find_map(|mark| line.strip_prefix(mark));
        comment.unwrap_or(line).to_lowercase()
    };
    let words = text.lines().map(line).collect::<Vec<_>>().join(" ");
    words.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn has_phrase(plain: &str, phrase: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric();
    plain.match_indices(phrase).any(|(at, _)| {
        let (before, after) = (&plain[..at], &plain[at + phrase.len()..]);
        !before.ends_with(is_word) && !after.starts_with(is_word)
    })
}

#[test]
fn nothing_has_to_be_decoded() {
    let mut texts = pages();
    files(&root().join("hero-sse/src"), "rs", &mut texts);
    files(&root().join("hero-sse-macros/src"), "rs", &mut texts);
    let mut wrong = Vec::new();
    for path in texts {
        let name = path.strip_prefix(root()).expect("inside").to_string_lossy().into_owned();
        let plain = plain(&read(&path));
        let found: Vec<_> = BANNED.iter().filter(|phrase| has_phrase(&plain, phrase)).collect();
        if !found.is_empty() {
            wrong.push(format!("{name}: {found:?}"));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn a_phrase_is_found_as_whole_words_across_lines() {
    assert!(has_phrase(&plain("/// A client that is\n/// Told so."), "is told"));
    assert!(has_phrase(&plain("the kit's"), "kit") && has_phrase(&plain("no_kit()"), "kit"));
    assert!(!has_phrase(&plain("a toolkit, kitty"), "kit"));
}

/// A page without its code, and its code: each block's first line and content.
fn split(text: &str) -> (String, Vec<(String, String)>) {
    let (mut prose, mut blocks, mut block) = (String::new(), Vec::new(), None);
    for line in text.lines() {
        match (&mut block, line.trim_start().strip_prefix("```")) {
            (None, Some(kind)) => block = Some((kind.to_owned(), String::new())),
            (Some(_), Some(_)) => blocks.extend(block.take()),
            (Some((_, code)), None) => *code += &format!("{line}\n"),
            (None, None) => prose += &format!("{line}\n"),
        }
    }
    assert!(block.is_none(), "a block without an end");
    (prose, blocks)
}

#[test]
fn pages_are_short() {
    for page in guides().into_iter().chain([root().join("README.md")]) {
        let words = split(&read(&page)).0.split_whitespace().count();
        assert!(words <= MOST_WORDS, "{}: {words} words", page.display());
    }
}

#[test]
fn a_guide_has_one_title_and_shows_all_of_its_code() {
    for page in guides().into_iter().chain([root().join("hero-sse/docs/errors.md")]) {
        let text = read(&page);
        assert!(text.starts_with("# "), "{}: no title", page.display());
        let (prose, blocks) = split(&text);
        let titles = prose.lines().filter(|line| line.starts_with("# ")).count();
        assert_eq!(titles, 1, "{}", page.display());
        for (kind, code) in blocks {
            assert!(!kind.is_empty(), "{}: a block without a language:\n{code}", page.display());
            let hides = |line: &str| line.trim() == "#" || line.trim_start().starts_with("# ");
            let hidden = kind.starts_with("rust") && code.lines().any(hides);
            assert!(!hidden, "{}: a hidden line in\n{code}", page.display());
        }
    }
}

/// What follows `#` in a link to this heading.
fn anchor(heading: &str) -> String {
    let kept = |c: &char| c.is_alphanumeric() || [' ', '-', '_'].contains(c);
    let text: String = heading.trim().to_lowercase().chars().filter(kept).collect();
    text.replace(' ', "-")
}

/// The headings of a page as anchors. A heading that is there twice has none.
fn anchors(text: &str) -> BTreeSet<String> {
    let prose = split(text).0;
    let headings = prose.lines().filter(|line| line.starts_with('#'));
    let mut counts = BTreeMap::<_, usize>::new();
    for heading in headings {
        *counts.entry(anchor(heading.trim_start_matches('#'))).or_default() += 1;
    }
    counts.into_iter().filter(|(_, count)| *count == 1).map(|(anchor, _)| anchor).collect()
}

/// Takes `` `code` `` out of a text.
fn without_code(prose: &str) -> String {
    prose.split('`').step_by(2).collect::<Vec<_>>().join("code")
}

/// The labels that a page defines, with their targets: `[label]: target`.
fn definitions(prose: &str) -> BTreeMap<String, String> {
    let definition = |line: &str| {
        let (label, target) = line.strip_prefix('[')?.split_once("]: ")?;
        Some((label.to_owned(), target.trim().to_owned()))
    };
    prose.lines().filter_map(definition).collect()
}

/// What stands between `before` and `after` in a text, each time.
fn between<'a>(text: &'a str, before: &str, after: char) -> Vec<&'a str> {
    text.split(before).skip(1).filter_map(|rest| Some(rest.split_once(after)?.0)).collect()
}

/// What is wrong with a link to `target` on `page`.
fn fault(page: &Path, target: &str) -> Option<String> {
    if target.contains("crate::") {
        return Some("only rustdoc can follow it".to_owned());
    }
    if target.starts_with("https://") {
        return None;
    }
    let (file, fragment) = target.split_once('#').unwrap_or((target, ""));
    let path = match file {
        "" => page.to_owned(),
        file => page.parent()?.join(file),
    };
    if !path.exists() {
        return Some("there is no such file".to_owned());
    }
    let known = fragment.is_empty() || anchors(&read(&path)).contains(fragment);
    (!known).then(|| "there is no such heading".to_owned())
}

#[test]
fn every_link_leads_somewhere() {
    let (mut wrong, mut links) = (Vec::new(), 0);
    for page in pages().into_iter().filter(|page| !page.ends_with("errors.md")) {
        let prose = without_code(&split(&read(&page)).0).replace('\n', " ");
        let defined = definitions(&split(&read(&page)).0);
        let inline = between(&prose, "](", ')');
        for target in inline.iter().copied().chain(defined.values().map(String::as_str)) {
            links += 1;
            wrong.extend(
                fault(&page, target).map(|why| format!("{}: {target}: {why}", page.display())),
            );
        }
        let used: BTreeSet<_> = between(&prose, "][", ']').into_iter().collect();
        let labels: BTreeSet<_> = defined.keys().map(String::as_str).collect();
        let odd: Vec<_> = used.symmetric_difference(&labels).collect();
        if !odd.is_empty() {
            wrong.push(format!("{}: used or defined alone: {odd:?}", page.display()));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    assert!(links > 80, "{links}");
}

/// Files link to each other; rustdoc has modules. The label of a link is its target, and a list gives rustdoc the
/// module for each.
#[test]
fn the_links_of_guides_work_in_rustdoc() {
    let list = definitions(&read(&root().join("hero-sse/src/guide/links.md")));
    let module = |file: &str| file.trim_end_matches(".md").replace('-', "_");
    let mut used = BTreeSet::new();
    for page in guides().into_iter().chain([root().join("hero-sse/docs/README.md")]) {
        let prose = split(&read(&page)).0;
        for target in between(&without_code(&prose), "](", ')') {
            assert!(target.starts_with("https://"), "{}: {target}: no label", page.display());
        }
        for (label, target) in definitions(&prose) {
            assert_eq!(label, target, "{}", page.display());
            let (file, fragment) = label.split_once('#').unwrap_or((&label, ""));
            let separator = if fragment.is_empty() { "" } else { "#" };
            let item = format!("crate::guide::{}{separator}{fragment}", module(file));
            assert_eq!(list.get(&label), Some(&item), "hero-sse/src/guide/links.md: {label}");
            used.insert(label);
        }
    }
    let unused: Vec<_> = list.keys().filter(|label| !used.contains(*label)).collect();
    assert!(unused.is_empty(), "hero-sse/src/guide/links.md: {unused:?}");
}

#[test]
fn every_guide_is_in_the_index_and_in_rustdoc() {
    let index = definitions(&read(&root().join("hero-sse/docs/README.md")));
    let modules = read(&root().join("hero-sse/src/guide/mod.rs"));
    for page in guides().into_iter().chain([root().join("hero-sse/docs/errors.md")]) {
        let name = page.file_name().expect("a name").to_string_lossy().into_owned();
        assert!(index.contains_key(&name), "{name} is not in the index");
        assert!(modules.contains(&format!(": \"{name}\",")), "{name} is no module");
    }
}
