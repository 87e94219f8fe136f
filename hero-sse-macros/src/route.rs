//! The syntax of an endpoint's path, such as `/builds/{id}`, as axum's router reads it. Whether two paths
//! collide is for `routes()` to check.

use syn::LitStr;

use crate::errors::Errors;

/// Reports what is wrong with a path.
pub(crate) fn check(path: &LitStr, errors: &mut Errors) {
    for fault in faults(&path.value()) {
        errors.push(path, fault);
    }
}

/// Whether a path has no fault. A missing path has one.
pub(crate) fn is_legal(path: &str) -> bool {
    faults(path).next().is_none()
}

/// The captures of a legal path, as written.
pub(crate) fn captures(path: &str) -> Vec<&str> {
    parts(path).into_iter().map(|capture| capture.text).collect()
}

/// Everything that is wrong with a path.
fn faults(path: &str) -> impl Iterator<Item = String> {
    let rules: [fn(&str) -> Option<String>; 12] = [
        path_without_slash,
        path_with_old_capture,
        path_with_unclosed_capture,
        path_with_empty_capture,
        path_with_odd_capture_name,
        path_with_duplicate_capture,
        path_with_text_after_capture,
        path_with_catch_all_inside,
        path_with_query,
        path_with_whitespace,
        path_that_no_url_has,
        path_with_dot_segment,
    ];
    rules.into_iter().filter_map(move |rule| rule(path))
}

fn path_without_slash(path: &str) -> Option<String> {
    (!path.starts_with('/')).then(|| format!("a path starts with `/`: write \"/{path}\""))
}

/// The syntax before axum 0.8, on which axum 0.8 panics.
fn path_with_old_capture(path: &str) -> Option<String> {
    path.split('/').find_map(|segment| {
        let cure = match (segment.strip_prefix(':'), segment.strip_prefix('*')) {
            (Some(name), _) => format!("{{{name}}}"),
            (None, Some(rest)) => format!("{{*{rest}}}"),
            (None, None) => return None,
        };
        Some(format!("`{segment}` is not how a capture is written: write `{cure}`"))
    })
}

fn path_with_unclosed_capture(path: &str) -> Option<String> {
    parts(path).iter().find(|capture| !capture.closed).map(|capture| {
        format!(
            "`{}` has an unmatched brace: write a capture as `{{name}}`, and literal braces as `{{{{` and \
             `}}}}`",
            capture.text
        )
    })
}

fn path_with_empty_capture(path: &str) -> Option<String> {
    let empty = |capture: &&Capture<'_>| capture.closed && capture.name.is_empty();
    parts(path)
        .iter()
        .find(empty)
        .map(|capture| format!("`{}` has no name: write one such as `{{id}}`", capture.text))
}

/// The syntax of other frameworks, such as `{id:int}`, would become the name.
fn path_with_odd_capture_name(path: &str) -> Option<String> {
    let odd = |capture: &&Capture<'_>| {
        capture.closed && !capture.name.is_empty() && !is_name(capture.name)
    };
    parts(path).iter().find(odd).map(|Capture { text, name, catch_all, .. }| {
        let name = name.replace('-', "_");
        let known = name.split(|c| !is_of_name(c)).find(|part| is_name(part)).unwrap_or("id");
        let star = if *catch_all || name.contains("..") || name.contains('*') { "*" } else { "" };
        format!(
            "a capture's name has letters, digits and `_`, and no digit first: write `{{{star}{known}}}` \
             for `{text}`"
        )
    })
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| !c.is_numeric()) && text.chars().all(is_of_name)
}

fn is_of_name(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

fn path_with_duplicate_capture(path: &str) -> Option<String> {
    let captures = parts(path);
    let mut rest = captures.as_slice();
    while let [capture, later @ ..] = rest {
        let named = capture.closed && !capture.name.is_empty();
        if named && later.iter().any(|other| other.closed && other.name == capture.name) {
            return Some(format!(
                "two captures are named `{}`: give each a name of its own",
                capture.name
            ));
        }
        rest = later;
    }
    None
}

/// The router lets text stand before a capture in a segment, but not after it.
fn path_with_text_after_capture(path: &str) -> Option<String> {
    let with_text = |capture: &&Capture<'_>| {
        capture.closed && !capture.after.is_empty() && !capture.after.starts_with('/')
    };
    parts(path).iter().find(with_text).map(|capture| {
        format!("a capture reaches to the end of its segment: write a `/` after `{}`", capture.text)
    })
}

fn path_with_catch_all_inside(path: &str) -> Option<String> {
    let inside = |capture: &&Capture<'_>| capture.catch_all && capture.after.starts_with('/');
    parts(path).iter().find(inside).map(|capture| {
        format!("`{}` takes the rest of the path: write it at the end", capture.text)
    })
}

fn path_with_query(path: &str) -> Option<String> {
    let mark = literals(path).chars().find(|c| matches!(c, '?' | '#'))?;
    Some(format!(
        "a path ends before `{mark}`: leave out the rest, and read a query with an extractor such as `Query`"
    ))
}

fn path_with_whitespace(path: &str) -> Option<String> {
    literals(path)
        .contains(is_space)
        .then(|| "a path has no white space: leave it out, or write it as `%20`".to_owned())
}

fn is_space(c: char) -> bool {
    c.is_whitespace() || c.is_control()
}

/// Clients send most of these characters encoded, and the router compares the encoded path.
fn path_that_no_url_has(path: &str) -> Option<String> {
    let foreign = |c: &char| match c {
        '"' | '<' | '>' | '^' | '`' | '|' | '\\' => true,
        c => !c.is_ascii() && !is_space(*c),
    };
    let c = literals(path).chars().find(foreign)?;
    let encoded: String = c.to_string().bytes().map(|byte| format!("%{byte:02X}")).collect();
    Some(format!("a URL cannot contain `{c}`: write `{encoded}`"))
}

/// Clients resolve them before they send the request.
fn path_with_dot_segment(path: &str) -> Option<String> {
    let dots = |segment: &&str| {
        matches!(segment.to_ascii_lowercase().replace("%2e", ".").as_str(), "." | "..")
    };
    let segment = path.split('/').find(dots)?;
    Some(format!(
        "clients resolve the segment `{segment}`, so no request has it: write the resulting path"
    ))
}

/// One `{name}`, complete or not.
struct Capture<'a> {
    /// As written, braces included.
    text: &'a str,
    name: &'a str,
    catch_all: bool,
    closed: bool,
    /// The rest of the path.
    after: &'a str,
}

/// The path without its captures.
fn literals(path: &str) -> String {
    let (mut literals, mut rest) = (String::new(), path);
    for Capture { text, after, .. } in parts(path) {
        let (before, _) = rest.split_at(rest.len() - text.len() - after.len());
        literals.push_str(before);
        rest = after;
    }
    literals + rest
}

fn parts(path: &str) -> Vec<Capture<'_>> {
    let mut captures = Vec::new();
    let mut rest = path;
    while let Some(start) = rest.find(['{', '}']) {
        let (_, here) = rest.split_at(start);
        if let Some(after) = here.strip_prefix("{{").or_else(|| here.strip_prefix("}}")) {
            rest = after;
            continue;
        }
        let capture = capture(here);
        rest = capture.after;
        captures.push(capture);
    }
    captures
}

/// Reads the capture that `here` starts with: up to its brace, or to the end of the segment.
fn capture(here: &str) -> Capture<'_> {
    let inner = here.strip_prefix('{').unwrap_or_default();
    let length = inner.find(['{', '}', '/']).unwrap_or(inner.len());
    let (name, after) = inner.split_at(length);
    if let Some(after) = after.strip_prefix('}') {
        let (text, _) = here.split_at(here.len() - after.len());
        let whole = name.strip_prefix('*');
        return Capture {
            text,
            name: whole.unwrap_or(name),
            catch_all: whole.is_some(),
            closed: true,
            after,
        };
    }
    let end = here.find('/').unwrap_or(here.len());
    let (text, after) = here.split_at(end);
    Capture { text, name, catch_all: false, closed: false, after }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn legal_paths_have_no_faults() {
        for path in [
            "/",
            "/usage/stream",
            "/builds/{id}",
            "/builds/{id}/log/{*rest}",
            "/v{version}/a",
            "/{{literal}}",
            "/a/{{{name}",
            "/%C3%A4",
            "/a:b",
            "/.a/..b/c./...",
            "/{größe}/{_a1}",
        ] {
            assert_eq!(faults(path).collect::<Vec<_>>(), Vec::<String>::new(), "{path}");
        }
    }

    #[test]
    fn each_fault_is_named_once() {
        for path in [
            "",
            "usage",
            "/builds/:id",
            "/builds/*rest",
            "/builds/{id",
            "/builds/id}",
            "/builds/{id/log",
            "/builds/{a{b}",
            "/builds/{}",
            "/builds/{*}",
            "/{id}/{id}",
            "/{id}/{*id}",
            "/{id}.json",
            "/{a}{b}",
            "/{*rest}/log",
            "/a?b=c",
            "/a#b",
            "/a b",
            "/a\n",
            "/a\u{a0}",
            "/ä",
            "/a\"b",
            "/a<b>",
            "/^",
            "/`",
            "/|",
            "/\\",
            "/{{ä}}",
            "/.",
            "/x/../y",
            "/./y",
            "/%2E./y",
            "/{id:int}",
            "/{rest...}",
            "/{a*}",
            "/{*a-b}",
            "/{1}",
            "/{id?}",
            "/{ id }",
            "/{<id>}",
        ] {
            assert_eq!(faults(path).count(), 1, "{path:?}: {:?}", faults(path).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_cure_is_what_the_path_should_have_been() {
        for (path, cure) in [
            ("/ä", "write `%C3%A4`"),
            ("/a\\b", "write `%5C`"),
            ("/{id:int}", "write `{id}` for `{id:int}`"),
            ("/{rest...}", "write `{*rest}` for `{rest...}`"),
            ("/{a*}", "write `{*a}` for `{a*}`"),
            ("/{**a}", "write `{*a}` for `{**a}`"),
            ("/{user-id}", "write `{user_id}` for `{user-id}`"),
            ("/{1}", "write `{id}` for `{1}`"),
        ] {
            let fault = faults(path).next().unwrap();
            assert!(fault.contains(cure), "{path}: {fault}");
        }
    }

    /// The library reads paths by itself, from the same table.
    #[test]
    fn captures_are_read_as_the_library_reads_them() {
        let table: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/captures.json")).unwrap();
        for (path, expected) in table.as_object().unwrap() {
            assert!(is_legal(path), "{path}");
            let bare = |capture: &str| capture[1..capture.len() - 1].to_owned();
            let read: Vec<_> = captures(path).into_iter().map(bare).collect();
            assert_eq!(serde_json::json!(read), *expected, "{path}");
        }
    }

    #[test]
    fn every_fault_of_a_path_is_named() {
        assert_eq!(faults("usage/:id/{}/x y?").count(), 5);
    }
}
