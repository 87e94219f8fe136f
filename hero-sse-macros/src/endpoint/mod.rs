//! `#[sse_endpoint("/path", ..)]`: makes a function an endpoint.

mod check;
mod expand;
mod model;
mod parse;
mod signature;

use proc_macro2::TokenStream;

use crate::errors::Errors;

pub(crate) use parse::key_table;

pub(crate) fn endpoint(attribute: TokenStream, item: TokenStream) -> TokenStream {
    let mut errors = Errors::default();
    let function = match parse::function(item.clone()) {
        Ok(Some(function)) => check::declared_twice(&function).map(|()| function),
        Ok(None) => return item,
        Err(error) => Err(error),
    };
    let function = match function {
        Ok(function) => function,
        Err(error) => return expand::with_error(&item, &error),
    };
    let declaration = parse::declaration(attribute, function, &mut errors);
    match check::endpoint(&item, &declaration, &mut errors) {
        Ok(endpoint) => expand::endpoint(&endpoint),
        Err(rejected) => expand::rejected(&rejected),
    }
}

#[cfg(test)]
mod tests {
    use quote::quote;

    use super::*;
    use crate::key::tests::assert_every_key_counts;

    fn expanded(attribute: TokenStream, item: TokenStream) -> String {
        prettyplease::unparse(&syn::parse2(endpoint(attribute, item)).unwrap())
    }

    #[test]
    fn the_smallest_endpoint() {
        let expanded = expanded(
            quote!("/usage"),
            quote! {
                async fn usage() -> impl Stream<Item = Usage> {
                    stream()
                }
            },
        );
        assert!(expanded.lines().count() <= 45, "{expanded}");
        insta::assert_snapshot!(expanded);
    }

    #[test]
    fn an_endpoint_with_every_key() {
        let expanded = expanded(
            quote!(
                "/{tenant}/usage",
                event = "usage",
                permission = "usage.read",
                heartbeat = "15s",
                write_timeout = "off",
                retry = "00:00:03",
                crate = web::sse
            ),
            quote! {
                /// Live usage gauge.
                ///
                ///  Indented by one.
                #[tracing::instrument]
                pub(crate) async fn r#match(
                    State(Meter { used, .. }): State<Meter>,
                    who: Option<Principal>,
                ) -> Result<impl Stream<Item = Usage>, Refusal> {
                    Ok(stream())
                }
            },
        );
        insta::assert_snapshot!(expanded);
    }

    #[test]
    fn a_posted_question() {
        let expanded = expanded(
            quote!(
                "/answers",
                method = "post",
                permission = all("ask", any(Scope::Admin, "member")),
                max_age = "30m",
                over_limit = "refuse",
                buffer = 16,
                overflow = "drop_oldest",
                token_sources = ["header"],
                deprecated
            ),
            quote! {
                #[doc = include_str!("answers.md")]
                #[cfg(feature = "answers")]
                pub async fn answers(who: Principal, Json(question): Json<Question>) -> Answer {}
            },
        );
        insta::assert_snapshot!(expanded);
    }

    #[test]
    fn an_endpoint_for_one_state() {
        let expanded = expanded(
            quote!("/usage", state = App),
            quote!(
                async fn usage(State(app): State<App>) -> Usage {}
            ),
        );
        insta::assert_snapshot!(expanded);
    }

    #[test]
    fn a_public_endpoint_without_heartbeat() {
        let expanded = expanded(
            quote!("/usage", public, heartbeat = "off", write_timeout = "5s"),
            quote!(
                pub async fn usage(State(meter): State<Meter>) -> Subscription<Usage> {}
            ),
        );
        insta::assert_snapshot!(expanded);
    }

    #[test]
    fn mistakes_come_together_and_leave_a_stub() {
        let expanded = expanded(
            quote!("usage", hartbeat = "15s", retry = 3),
            quote!(
                pub fn usage(State(meter): State<Meter>) {}
            ),
        );
        insta::assert_snapshot!(expanded);
    }

    #[test]
    fn a_method_has_no_stub() {
        let item = quote!(
            async fn usage(&self) -> Usage {}
        );
        let tokens = endpoint(quote!("/usage"), item).to_string();
        assert!(!tokens.contains("struct"), "{tokens}");
    }

    #[test]
    fn a_half_typed_body_survives() {
        let item = quote!(
            async fn usage() -> Usage {
                let x = meter.
            }
        );
        let tokens = endpoint(quote!("/usage"), item.clone()).to_string();
        assert!(tokens.starts_with(&item.to_string()) && !tokens.contains("compile_error"));
    }

    #[test]
    fn a_half_typed_signature_is_left_to_the_compiler() {
        for item in [
            quote!(async fn usage(x: ) -> Usage {}),
            quote!(async fn usage(x Usage) -> Usage {}),
            quote!(pub async fn usage(State(meter): ) {}),
            quote!(async fn usage() -> ),
        ] {
            let tokens = endpoint(quote!("/usage"), item.clone());
            assert_eq!(tokens.to_string(), item.to_string());
        }
    }

    /// Each declaration with a part of its message; an empty one means that nothing is wrong.
    #[test]
    fn rules_hit_what_they_mean_and_nothing_else() {
        let function = quote!(
            async fn usage() -> Usage {}
        );
        let of = |attribute: TokenStream| endpoint(attribute, function.clone()).to_string();
        let taking = |attribute: TokenStream, argument: TokenStream| {
            let item = quote!(async fn usage(a: #argument, b: Principal) -> Usage {});
            endpoint(attribute, item).to_string()
        };
        let as_item = |item| endpoint(quote!("/usage"), item).to_string();
        let get = || quote!("/usage");
        let captures = || quote!("/{a}/{b}");
        for (tokens, message) in [
            (of(quote!("/usage", heartbeat = "5s" public)), "write a comma before this"),
            (of(quote!("/usage", heartbeat = "5s" 7, public)), "takes a duration"),
            (of(quote!("/usage", buffer = 5u8)), "takes a whole number"),
            (of(quote!("/usage", buffer = 5 * 2)), "takes a whole number"),
            (of(quote!("/usage", heartbeat = "9s", max_age = "9s")), "shorter than `max_age`"),
            (of(quote!("/usage", heartbeat = "8s", max_age = "9s")), ""),
            (of(quote!("/usage", heartbeat_event = true, max_age = "off")), ""),
            (of(quote!("/usage", heartbeat_event = false, heartbeat = "off")), ""),
            (of(quote!("/usage", state = _)), "write the type itself"),
            (of(quote!("/usage", state = impl Clone)), "write the type itself"),
            (of(quote!("/usage", state = &'static str)), "write the type itself"),
            (of(quote!("/usage", state = App<u8>)), ""),
            (taking(get(), quote!(Json<u8>)), "a `GET` has none"),
            (taking(get(), quote!(axum::Form<u8>)), "a `GET` has none"),
            (taking(get(), quote!(Bytes)), "a `GET` has none"),
            (taking(get(), quote!(String)), "a `GET` has none"),
            (taking(get(), quote!(Multipart)), "a `GET` has none"),
            (taking(get(), quote!(RawForm)), "a `GET` has none"),
            (taking(get(), quote!(Option<Json<u8>>)), "a `GET` has none"),
            (taking(get(), quote!(Result<Json<u8>, JsonRejection>)), "a `GET` has none"),
            (taking(get(), quote!(Query<String>)), ""),
            (taking(get(), quote!(Jsonish)), ""),
            (taking(quote!("/usage", method = "post"), quote!(Bytes)), "the last argument"),
            (taking(quote!("/usage", method = "get"), quote!(Query<u8>)), ""),
            (taking(captures(), quote!(Path<u8>)), "the path has `{a}`, `{b}`"),
            (taking(captures(), quote!(Option<extract::Path<u8>>)), "the path has `{a}`, `{b}`"),
            (taking(captures(), quote!(Result<Path<u8>, R>)), "the path has `{a}`, `{b}`"),
            (taking(captures(), quote!(Pathway<u8>)), ""),
            (taking(get(), quote!(Path<u8>)), "the path has none"),
            (taking(get(), quote!(u8)), "says where in the request"),
            (taking(get(), quote!(Wrapping<u8>)), ""),
            (taking(get(), quote!(Extension<fn(&str) -> &str>)), ""),
            (taking(get(), quote!(Size<{ A & B }>)), ""),
            (taking(get(), quote!(Cow<'_, str>)), "owns its arguments"),
            (taking(quote!("/usage", public), quote!(u8)), "has no principal"),
            (
                as_item(quote!(
                    async fn a(b: Option<Principal>) -> U {}
                )),
                "",
            ),
            (
                as_item(quote!(
                    async fn a(#[allow(unused)] b: B) -> U {}
                )),
                "",
            ),
            (
                as_item(quote!(
                    async fn a(#[cfg_attr(b, c)] d: D) -> U {}
                )),
                "cannot be conditional",
            ),
            (
                as_item(quote!(
                    unsafe impl A for B {}
                )),
                "only an `async fn`",
            ),
            (
                as_item(quote!(
                    unsafe trait A {}
                )),
                "only an `async fn`",
            ),
            (
                as_item(quote!(
                    extern "C" fn a() -> U {}
                )),
                "leave out `extern`",
            ),
            (
                as_item(quote!(
                    extern "C" fn a() -> U {}
                )),
                "leave out `extern`",
            ),
            (
                as_item(quote!(
                    const unsafe fn a() -> U {}
                )),
                "leave out `unsafe`",
            ),
        ] {
            // An error, or a question for the compiler.
            let wrong = tokens.contains("compile_error") || tokens.contains(":: check (");
            assert!(
                wrong != message.is_empty() && tokens.contains(message),
                "{message:?}: {tokens}"
            );
        }
    }

    #[test]
    fn the_return_type_is_written_where_it_can_be() {
        for (returns, written) in [
            (quote!(Usage), "Usage"),
            (quote!(impl Stream<Item = Usage>), "__sse :: StreamOf < Usage >"),
            (
                quote!(impl futures::Stream<Item = Usage> + Send + 'static + use<>),
                "__sse :: StreamOf < Usage >",
            ),
            (
                quote!(Result<impl Stream<Item = Usage>, Refusal>),
                "Result < __sse :: StreamOf < Usage > , Refusal >",
            ),
            (
                quote!(Pin<Box<dyn Stream<Item = Usage> + Send>>),
                "Pin < Box < dyn Stream < Item = Usage > + Send > >",
            ),
            (quote!(BoxStream<'static, Usage>), "BoxStream < 'static , Usage >"),
            (quote!(Result<impl Stream<Item = Usage>, impl IntoResponse>), ""),
            (quote!(impl Stream<Item = Usage> + My<Item = Other>), ""),
            (quote!(impl Stream<Item = Event<impl Sized>>), ""),
            (quote!(impl Iterator<Item = Usage>), ""),
            (quote!(Option<stream!(Usage)>), ""),
            (quote!(&'static Usage), ""),
        ] {
            let function = quote!(async fn usage() -> #returns {});
            let tokens = endpoint(quote!("/usage", event = "usage"), function).to_string();
            assert!(!tokens.contains("compile_error"), "{tokens}");
            let known =
                tokens.split("TypeOf < ").nth(1).and_then(|rest| rest.split(" >> ::").next());
            assert_eq!(known.unwrap_or_default(), written, "{returns}");
        }
    }

    #[test]
    fn every_key_counts() {
        let item = quote!(
            async fn usage() -> Usage {}
        );
        assert_every_key_counts(parse::KEYS, |example| {
            endpoint(quote!("/usage", #example), item.clone())
        });
    }
}
