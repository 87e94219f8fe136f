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
    let function = match function(&item, &mut errors) {
        Ok(function) => function,
        Err(error) => return expand::only_the_item(&item, &error),
    };
    let declaration = parse::declaration(attribute, function, &mut errors);
    match check::endpoint(&declaration, &mut errors) {
        Ok(endpoint) => expand::endpoint(&item, &endpoint),
        // Whoever names the endpoint shall not get a second error for the same mistake.
        Err(error) => expand::fallback(&item, &declaration, &error),
    }
}

fn function(item: &TokenStream, errors: &mut Errors) -> syn::Result<parse::Function> {
    let function = parse::function(item.clone())?;
    check::declared_twice(&function, errors);
    errors.propagate()?;
    Ok(function)
}

#[cfg(test)]
mod tests {
    use quote::quote;

    use super::*;
    use crate::attr::tests::assert_every_key_counts;

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
        assert!(expanded.lines().count() <= 40, "{expanded}");
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
                crate = kit::sse
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
                query_token = false,
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
    fn every_key_counts() {
        let item = quote!(
            async fn usage() -> Usage {}
        );
        assert_every_key_counts(parse::KEYS, |example| {
            endpoint(quote!("/usage", #example), item.clone())
        });
    }
}
