//! The macros of `hero-sse`. Depend on `hero-sse`, which re-exports them: what they expand to
//! calls that crate and follows no version rule of its own.

#![forbid(unsafe_code)]
#![warn(missing_docs)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

mod attr;
mod duration;
mod endpoint;
mod errors;
mod event;
mod name;
mod route;
mod value;

use proc_macro::TokenStream;

/// The keys of `#[sse_endpoint("/path", ..)]`, each of them optional, in any order after the path:
///
#[doc = endpoint::key_table!()]
///
/// Durations are `"15s"`, `"500ms"`, `"2m"`, `"1h"` or `"00:00:05"` (`hh:mm:ss`), and `"off"` where
/// a thing can be. A key wins over the operator's general options, and the operator's table for this
/// endpoint over the key.
///
/// The function is a free `async fn` without generics. Its arguments are up to sixteen extractors; it
/// returns a stream of events, or a `Result` of one. Its visibility, its `#[cfg]` and its docs hold
/// for the endpoint as well.
#[proc_macro_attribute]
pub fn sse_endpoint(attribute: TokenStream, item: TokenStream) -> TokenStream {
    endpoint::endpoint(attribute.into(), item.into()).into()
}

/// The keys of `#[sse(..)]`:
///
#[doc = event::key_table!()]
///
/// `#[serde(..)]` on an enum, such as `tag`, does not concern its events; only `rename_all_fields` and
/// `bound` do. On its variants and fields it does.
#[proc_macro_derive(SseEvent, attributes(sse, serde))]
pub fn derive_sse_event(item: TokenStream) -> TokenStream {
    event::event(item.into()).into()
}

/// Where everything lives that an expansion names.
fn private(krate: Option<&syn::Path>) -> proc_macro2::TokenStream {
    match krate {
        Some(krate) => quote::quote!(#krate::__private),
        None => quote::quote!(::hero_sse::__private),
    }
}

/// Whether this is one of Rust's numbers, a truth value or a character.
fn is_scalar(name: &syn::Ident) -> bool {
    const SCALARS: [&str; 16] = [
        "bool", "char", "u8", "u16", "u32", "u64", "u128", "usize", "i8", "i16", "i32", "i64",
        "i128", "isize", "f32", "f64",
    ];
    SCALARS.iter().any(|scalar| name == scalar)
}

#[cfg(test)]
mod tests {
    use proc_macro2::{
        Delimiter, Group, Ident, Literal, Punct, Spacing, Span, TokenStream, TokenTree,
    };
    use quote::quote;

    /// Every token in turn left out, doubled, or replaced, at every depth.
    fn mutations(tokens: TokenStream) -> Vec<TokenStream> {
        let trees: Vec<TokenTree> = tokens.into_iter().collect();
        let mut mutations = Vec::new();
        let mut with = |at: usize, instead: Vec<TokenTree>| {
            let (before, after) = (trees[..at].iter().cloned(), trees[at + 1..].iter().cloned());
            mutations.push(before.chain(instead).chain(after).collect());
        };
        for (at, tree) in trees.iter().enumerate() {
            with(at, vec![]);
            with(at, vec![tree.clone(), tree.clone()]);
            with(at, vec![Literal::u8_unsuffixed(7).into()]);
            with(at, vec![Literal::string("").into()]);
            with(at, vec![Ident::new("crate", Span::call_site()).into()]);
            with(at, vec![Punct::new(',', Spacing::Alone).into()]);
            with(at, vec![Punct::new('=', Spacing::Alone).into()]);
            with(at, vec![Group::new(Delimiter::None, tree.clone().into()).into()]);
            if let TokenTree::Group(group) = tree {
                for inner in mutations_of(group) {
                    with(at, vec![inner]);
                }
            }
        }
        mutations
    }

    fn mutations_of(group: &Group) -> impl Iterator<Item = TokenTree> {
        mutations(group.stream())
            .into_iter()
            .map(|stream| Group::new(group.delimiter(), stream).into())
    }

    /// What comes out parses wherever what came in does.
    fn assert_parses(item: &TokenStream, output: TokenStream) {
        let parses = |tokens: TokenStream| syn::parse2::<syn::File>(tokens);
        if parses(item.clone()).is_ok() {
            let text = output.to_string();
            assert!(parses(output).is_ok(), "{item}\n{text}");
        }
    }

    #[test]
    fn no_endpoint_is_too_odd() {
        let attribute = quote!(
            "/a/{b}",
            event = "c",
            permission = "d",
            public,
            heartbeat = "15s",
            write_timeout = "off",
            retry = "1s",
            crate = e::f
        );
        let item = quote! {
            /// Docs.
            #[allow(unused)]
            pub(crate) async unsafe extern "C" fn g<'h, I: J>(
                #[cfg(k)] &self,
                State(l): State<&'h M<'_>>,
                n: impl O,
            ) -> Result<impl Stream<Item = I>, P> where I: J {
                yield 1
            }
        };
        let plain = quote!(
            async fn a(State(b): State<C>) -> D {}
        );
        let attributes = mutations(attribute.clone());
        assert!(attributes.len() > 200);
        for attribute in attributes {
            assert_parses(&plain, super::endpoint::endpoint(attribute, plain.clone()));
        }
        for item in mutations(item).into_iter().chain(mutations(plain)) {
            let output = super::endpoint::endpoint(quote!("/a", public), item.clone());
            assert_parses(&item, output);
        }
    }

    #[test]
    fn no_event_is_too_odd() {
        let events = [
            quote! {
                #[sse(event = "a", crate = b)]
                pub struct C<'d, T: E = F, const N: usize> where T: G {
                    #[sse(id)] #[serde(rename = "h")] i: &'d T,
                    j: [u8; N],
                }
            },
            quote! {
                #[serde(tag = "a", bound = "T: B", rename_all_fields = "camelCase")]
                enum C<T> {
                    #[sse(event = "d", last)] #[serde(rename_all = "e")] F { #[sse(id)] g: T },
                    H(#[serde(skip, bound(serialize = "T: I"))] Vec<Self>, #[sse(id)] u8) = 3,
                    J,
                }
            },
            quote!(union K { l: u8 }),
        ];
        for item in events.into_iter().flat_map(mutations) {
            let output = super::event::event(item.clone());
            assert_parses(&item, output);
        }
    }

    /// What the macros accept, the kit accepts, and the other way round: `tests/it/rules.rs` holds
    /// the kit to the same table.
    #[test]
    fn the_rules_are_the_kits() {
        let rules: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/rules.json")).unwrap();
        let expand = |attribute| {
            let item = quote!(
                async fn a() -> B {}
            );
            super::endpoint::endpoint(attribute, item).to_string()
        };
        let mut drifts = Vec::new();
        for (rule, table) in rules.as_object().unwrap() {
            for (text, verdict) in table.as_object().unwrap() {
                let tokens = expand(match rule.as_str() {
                    "durations" => quote!("/a", heartbeat = #text),
                    "retries" => quote!("/a", retry = #text),
                    "events" => quote!("/a", event = #text),
                    "permissions" => quote!("/a", permission = #text),
                    "paths" => quote!(#text),
                    other => panic!("a rule that nobody knows: {other}"),
                });
                let taken = !tokens.contains("compile_error");
                let expected = verdict.as_bool().unwrap_or(verdict.is_u64());
                let value = verdict.as_u64().map(|n| format!("every ({n})"));
                if taken != expected || value.is_some_and(|value| !tokens.contains(&value)) {
                    drifts.push(format!("{rule} {text:?}: {verdict}, but taken: {taken}"));
                }
            }
        }
        assert_eq!(drifts, Vec::<String>::new());
    }
}
