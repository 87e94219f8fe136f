//! The imports of source files: through `crate::`, `super::`, `self::` and child modules, in `use` and in code.
//!
//! Importing a re-exported name counts as an import of the file that defines it. A re-export in itself does not count.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// The path of a module from its crate's root.
type ModulePath = Vec<String>;

#[derive(Default)]
struct Module {
    file: PathBuf,
    /// Bound name, its path, and whether other modules can import it from here.
    uses: Vec<(String, ModulePath, bool)>,
    /// Paths in code.
    paths: Vec<ModulePath>,
    /// All identifiers outside of `use`.
    names: BTreeSet<String>,
}

/// The modules of one crate. Code under `#[cfg(test)]` is left out.
pub(super) struct Crate(BTreeMap<ModulePath, Module>);

impl Crate {
    pub(super) fn read(source: &Path) -> Self {
        let mut modules = Self(BTreeMap::new());
        modules.read_file(&source.join("lib.rs"), vec![]);
        modules
    }

    fn read_file(&mut self, file: &Path, path: ModulePath) {
        let text = fs::read_to_string(file).expect("a source file");
        let tokens: TokenStream = text.parse().expect("Rust");
        self.read_tokens(tokens, file, &path);
    }

    fn read_tokens(&mut self, tokens: TokenStream, file: &Path, path: &ModulePath) {
        self.0.entry(path.clone()).or_default().file = file.to_owned();
        let tokens: Vec<_> = tokens.into_iter().collect();
        let mut at = 0;
        while let Some(token) = tokens.get(at) {
            let (text, next) = (token.to_string(), tokens.get(at + 1).map(ToString::to_string));
            if text == "#" && next.as_deref().is_some_and(is_for_tests) {
                at = end_of_item(&tokens, at + 2);
            } else if text == "use" && next.as_deref() != Some("<") {
                let end = (at..tokens.len()).find(|at| is(&tokens, *at, ";")).unwrap_or(at);
                let is_visible =
                    at > 0 && (is(&tokens, at - 1, "pub") || is_group(&tokens, at - 1));
                let module = self.0.entry(path.clone()).or_default();
                read_use(&tokens[at + 1..end], vec![], is_visible, &mut module.uses);
                at = end;
            } else if text == "mod"
                && let Some(name) = next
            {
                let child = [path.as_slice(), std::slice::from_ref(&name)].concat();
                match tokens.get(at + 2) {
                    Some(TokenTree::Group(body)) => self.read_tokens(body.stream(), file, &child),
                    _ if is(&tokens, at + 2, ";") => {
                        if let Some(file) = file_of(file, path, &name) {
                            self.read_file(&file, child);
                        }
                    }
                    _ => {}
                }
                at += 2;
            } else if let TokenTree::Group(group) = token {
                self.read_tokens(group.stream(), file, path);
            } else if let TokenTree::Ident(name) = token {
                let module = self.0.entry(path.clone()).or_default();
                module.names.insert(name.to_string());
                let mut segments = vec![name.to_string()];
                while is(&tokens, at + 1, ":") && is(&tokens, at + 2, ":") {
                    let Some(TokenTree::Ident(segment)) = tokens.get(at + 3) else { break };
                    segments.push(segment.to_string());
                    at += 3;
                }
                // `$crate::..` is a path in the crate that calls the macro.
                let is_path =
                    segments.len() > 1 && !(at >= 3 && is_macro_path(&tokens, at, &segments));
                if is_path {
                    module.paths.push(segments);
                }
            }
            at += 1;
        }
    }

    /// Returns, for each file, the files that it imports.
    pub(super) fn imports(&self) -> BTreeMap<&Path, BTreeSet<&Path>> {
        let mut imports: BTreeMap<&Path, BTreeSet<&Path>> = BTreeMap::new();
        for (path, module) in &self.0 {
            let own = imports.entry(&module.file).or_default();
            let used = |name: &String, is_visible: bool| !is_visible || module.names.contains(name);
            let uses = module.uses.iter().filter(|(name, _, visible)| used(name, *visible));
            let paths = uses.map(|(_, import, _)| import).chain(&module.paths);
            own.extend(paths.filter_map(|import| self.resolve(path, import, 0)));
            own.remove(module.file.as_path());
        }
        let is_root = |file: &Path| file.ends_with("lib.rs");
        imports.retain(|file, _| !is_root(file));
        imports.values_mut().for_each(|files| files.retain(|file| !is_root(file)));
        imports
    }

    /// Finds the file that defines what a path in `from` names.
    fn resolve(&self, from: &ModulePath, path: &[String], depth: usize) -> Option<&Path> {
        let (first, mut rest) = path.split_first()?;
        let mut at = match first.as_str() {
            "crate" => vec![],
            "self" => from.clone(),
            "super" => from.split_last()?.1.to_vec(),
            _ => {
                rest = path;
                from.clone()
            }
        };
        while let Some((name, behind)) = rest.split_first() {
            let child = [at.as_slice(), std::slice::from_ref(name)].concat();
            if name == "super" {
                at.pop();
            } else if self.0.contains_key(&child) {
                at = child;
            } else {
                let module = self.0.get(&at)?;
                let import = module.uses.iter().find(|(bound, ..)| bound == name && depth < 9);
                return match import {
                    Some((_, import, _)) => {
                        self.resolve(&at, &[import.as_slice(), behind].concat(), depth + 1)
                    }
                    // Without a keyword in front it is of another crate, or of the prelude.
                    None if rest.len() == path.len() => None,
                    None => Some(&module.file),
                };
            }
            rest = behind;
        }
        self.0.get(&at).map(|module| module.file.as_path())
    }
}

/// Whether the attribute is `cfg(test)`, or `cfg(all(test, ..))`.
fn is_for_tests(attribute: &str) -> bool {
    let attribute = attribute.replace(' ', "");
    attribute.starts_with("[cfg(test)") || attribute.starts_with("[cfg(all(test,")
}

fn is(tokens: &[TokenTree], at: usize, text: &str) -> bool {
    tokens.get(at).is_some_and(|token| token.to_string() == text)
}

fn is_group(tokens: &[TokenTree], at: usize) -> bool {
    // That of `pub(crate)`.
    matches!(&tokens[at], TokenTree::Group(group) if group.delimiter() == Delimiter::Parenthesis)
}

/// Whether the path that ends at `at` follows a `$` or `@`, as in macros.
fn is_macro_path(tokens: &[TokenTree], at: usize, segments: &[String]) -> bool {
    let start = at - 3 * (segments.len() - 1);
    start > 0 && (is(tokens, start - 1, "$") || is(tokens, start - 1, "@"))
}

/// Returns the index of the item's last token: its `;`, or its braces.
fn end_of_item(tokens: &[TokenTree], from: usize) -> usize {
    let ends = |token: &TokenTree| match token {
        TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
        token => token.to_string() == ";",
    };
    (from..tokens.len()).find(|at| ends(&tokens[*at])).unwrap_or(tokens.len())
}

/// Reads the tree after `use`: `a::{b, c as d}` binds `b` and `d`.
fn read_use(
    tokens: &[TokenTree],
    prefix: ModulePath,
    is_visible: bool,
    found: &mut Vec<(String, ModulePath, bool)>,
) {
    let (mut path, mut bound) = (prefix.clone(), None);
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        match token {
            TokenTree::Ident(name) if name == "as" => {
                bound = tokens.get(at + 1).map(ToString::to_string);
                at += 1;
            }
            TokenTree::Ident(name) if name == "self" && !path.is_empty() => {}
            TokenTree::Ident(name) => path.push(name.to_string()),
            TokenTree::Group(group) => {
                let inner: Vec<_> = group.stream().into_iter().collect();
                for tree in inner.split(|token| token.to_string() == ",") {
                    read_use(tree, path.clone(), is_visible, found);
                }
                return;
            }
            // A glob imports from the module itself.
            TokenTree::Punct(_) | TokenTree::Literal(_) => {}
        }
        at += 1;
    }
    if let Some(name) = bound.or(path.last().cloned()) {
        found.push((name, path, is_visible));
    }
}

/// Returns the file of a child module.
fn file_of(parent: &Path, path: &ModulePath, name: &str) -> Option<PathBuf> {
    let folder = parent.parent()?;
    let stem = parent.file_stem()?.to_str()?;
    // An inline module has a folder of its own, which no file here uses.
    let folder = match stem {
        "mod" | "lib" => folder.to_owned(),
        stem if path.last().is_some_and(|module| module == stem) => folder.join(stem),
        _ => return None,
    };
    let candidates = [folder.join(format!("{name}.rs")), folder.join(name).join("mod.rs")];
    candidates.into_iter().find(|file| file.exists())
}

/// Returns the circles: files that import each other, directly or through others.
pub(super) fn circles<'a>(
    imports: &BTreeMap<&'a Path, BTreeSet<&'a Path>>,
) -> Vec<BTreeSet<&'a Path>> {
    let reached = |from: &'a Path| {
        let (mut found, mut left) = (BTreeSet::new(), vec![from]);
        while let Some(file) = left.pop() {
            let next = imports.get(file).into_iter().flatten();
            left.extend(next.copied().filter(|file| found.insert(*file)));
        }
        found
    };
    let reach: BTreeMap<_, _> = imports.keys().map(|file| (*file, reached(file))).collect();
    let mut circles = BTreeSet::new();
    for (file, reachable) in &reach {
        let back = |other: &&Path| reach.get(*other).is_some_and(|back| back.contains(file));
        let circle: BTreeSet<_> = reachable.iter().copied().filter(back).collect();
        if !circle.is_empty() {
            circles.insert(circle);
        }
    }
    circles.into_iter().collect()
}
