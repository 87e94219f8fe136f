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
mod key;
mod name;
mod route;
mod value;

use proc_macro::TokenStream;

/// # Other keys
///
/// All keys are optional, in any order after the path. Keys that are settings have a table of their own in the
/// documentation of `hero_sse::sse_endpoint`.
///
#[doc = endpoint::key_table!()]
///
/// # The function
///
/// The function is a free `async fn` without generics. It takes up to sixteen extractors, and returns a stream of
/// events or a `Result` of one. Its visibility, its `#[cfg]` and its docs hold for the endpoint as well.
#[proc_macro_attribute]
pub fn sse_endpoint(attribute: TokenStream, item: TokenStream) -> TokenStream {
    endpoint::endpoint(attribute.into(), item.into()).into()
}

/// The keys of `#[sse(..)]`:
///
#[doc = event::key_table!()]
///
/// Keys of `#[serde(..)]` for the fields of a variant hold for its data. Keys for the enum as a whole do not, except
/// `rename_all_fields` and `bound`. Nor do those that name a variant: `rename`, `alias`, `other`, `untagged`.
#[proc_macro_derive(SseEvent, attributes(sse, serde))]
pub fn derive_sse_event(item: TokenStream) -> TokenStream {
    event::event(item.into()).into()
}

/// The path to everything that an expansion names.
fn private(krate: Option<&syn::Path>) -> proc_macro2::TokenStream {
    match krate {
        Some(krate) => quote::quote!(#krate::__private),
        None => quote::quote!(::hero_sse::__private),
    }
}

/// Whether this is the name of a number, of `bool` or of `char`.
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

    /// The tokens with one of them removed, doubled or replaced: for each token, at every depth.
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
                with(at, vec![Group::new(group.delimiter(), TokenStream::new()).into()]);
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

    /// If the input parses, so does the output.
    fn assert_parses(item: &TokenStream, output: TokenStream) {
        let parses = |tokens: TokenStream| syn::parse2::<syn::File>(tokens);
        if parses(item.clone()).is_ok() {
            let text = output.to_string();
            assert!(parses(output).is_ok(), "{item}\n{text}");
        }
    }

    fn attribute() -> TokenStream {
        quote!(
            "/a/{b}",
            event = "c",
            method = "post",
            permission = all("d", any(E::F, crate::G), H),
            public,
            heartbeat = "15s",
            heartbeat_event = true,
            write_timeout = "off",
            retry = "1s",
            max_age = "1h",
            max_connections = 1,
            max_per_principal = 2,
            over_limit = "retry",
            buffer = 3,
            overflow = "latest",
            token_sources = ["header"],
            deprecated,
            state = I<J>,
            crate = k::l
        )
    }

    fn endpoints() -> [TokenStream; 2] {
        [
            quote! {
                /// Docs.
                #[doc = include_str!("m")]
                #[cfg(n)]
                pub(crate) async unsafe extern "C" fn o<'p, Q: R>(
                    #[cfg(s)] &self,
                    State(t): State<&'p U<'_>>,
                    Path((v, w)): Path<(X, Y)>,
                    z: impl A,
                    Json(b): Json<C>,
                ) -> Result<impl Stream<Item = Q>, D> where Q: R {
                    yield 1
                }
            },
            quote!(
                async fn a(State(b): State<C>) -> D {}
            ),
        ]
    }

    fn events() -> [TokenStream; 3] {
        [
            quote! {
                #[sse(event = "a", retry = "1s", data = "json", crate = b)]
                pub struct C<'d, T: E = F, const N: usize> where T: G {
                    #[sse(id, key)] #[serde(rename = "h")] i: &'d T,
                    #[sse(retry)] j: [u8; N],
                }
            },
            quote! {
                #[sse(rename_all = "camelCase", data = "text")]
                #[serde(tag = "a", bound = "T: B", rename_all_fields = "camelCase")]
                enum C<T> {
                    #[sse(event = "d", last)] #[serde(rename_all = "e")] F { #[sse(id)] g: T },
                    #[sse(data = "json")]
                    H(#[serde(skip, bound(serialize = "T: I"))] Vec<Self>, #[sse(id)] u8) = 3,
                    J,
                }
            },
            quote!(union K { l: u8 }),
        ]
    }

    #[test]
    fn no_mistake_in_an_endpoint_breaks_the_macro() {
        let attributes = mutations(attribute());
        assert!(attributes.len() > 600);
        let [odd, plain] = endpoints();
        for attribute in attributes {
            assert_parses(&plain, super::endpoint::endpoint(attribute, plain.clone()));
        }
        for item in [odd, plain].into_iter().flat_map(mutations) {
            let output = super::endpoint::endpoint(quote!("/a", public), item.clone());
            assert_parses(&item, output);
        }
    }

    #[test]
    fn no_mistake_in_an_event_breaks_the_macro() {
        for item in events().into_iter().flat_map(mutations) {
            assert_parses(&item, super::event::event(item.clone()));
        }
    }

    /// Random declarations with several mistakes. The seed is fixed, so that a failure can be repeated.
    #[test]
    fn no_combination_of_mistakes_breaks_the_macros() {
        let mut random = Random(1);
        let pool: Vec<_> = [attribute()].into_iter().chain(endpoints()).chain(events()).collect();
        for _ in 0..4_000 {
            let attribute = random.mutated(attribute(), &pool);
            let item = random.pick(&endpoints()).clone();
            let item = random.mutated(item, &pool);
            assert_parses(&item, super::endpoint::endpoint(attribute, item.clone()));
            let item = random.pick(&events()).clone();
            let item = random.mutated(item, &pool);
            assert_parses(&item, super::event::event(item.clone()));
        }
    }

    /// Numbers that look random (splitmix64).
    struct Random(u64);

    impl Random {
        fn below(&mut self, limit: usize) -> usize {
            self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            (mixed ^ (mixed >> 27)) as usize % limit.max(1)
        }

        fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
            &of[self.below(of.len())]
        }

        /// A random token or group.
        fn token(&mut self, pool: &[TokenStream]) -> Option<TokenTree> {
            let mut tokens = self.pick(pool).clone();
            loop {
                let trees: Vec<TokenTree> = tokens.into_iter().collect();
                match trees.get(self.below(trees.len()))? {
                    TokenTree::Group(group) if self.below(3) > 0 => tokens = group.stream(),
                    tree => return Some(tree.clone()),
                }
            }
        }

        /// The tokens with up to four of them replaced, removed or added, at any depth.
        fn mutated(&mut self, mut tokens: TokenStream, pool: &[TokenStream]) -> TokenStream {
            for _ in 0..self.below(5) {
                tokens = self.mutated_once(tokens, pool);
            }
            tokens
        }

        fn mutated_once(&mut self, tokens: TokenStream, pool: &[TokenStream]) -> TokenStream {
            let mut trees: Vec<TokenTree> = tokens.into_iter().collect();
            let at = self.below(trees.len());
            match (trees.get(at).cloned(), self.below(4)) {
                (Some(TokenTree::Group(group)), 1..) => {
                    let stream = self.mutated_once(group.stream(), pool);
                    trees[at] = Group::new(group.delimiter(), stream).into();
                }
                (Some(_), 0) => drop(trees.remove(at)),
                (Some(_), 1) => trees.splice(at..=at, self.token(pool)).for_each(drop),
                (_, _) => trees.splice(at..at, self.token(pool)).for_each(drop),
            }
            trees.into_iter().collect()
        }
    }

    /// The macros and the library accept the same values: `tests/it/rules.rs` checks the library with the same
    /// table.
    #[test]
    fn the_rules_are_those_of_the_library() {
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
                    "permissions of /a/{b}/{c}/{*d}" => {
                        quote!("/a/{b}/{c}/{*d}", permission = #text)
                    }
                    "paths" => quote!(#text),
                    other => panic!("an unknown rule: {other}"),
                });
                let accepted = !tokens.contains("compile_error");
                let expected = verdict.as_bool().unwrap_or(verdict.is_u64());
                let value = verdict.as_u64().map(|n| format!("every ({n})"));
                if accepted != expected || value.is_some_and(|value| !tokens.contains(&value)) {
                    drifts.push(format!("{rule} {text:?}: {verdict}, but accepted: {accepted}"));
                }
            }
        }
        assert_eq!(drifts, Vec::<String>::new());
    }
}
