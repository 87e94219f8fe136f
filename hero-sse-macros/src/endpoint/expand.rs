//! Writes the tokens of a checked endpoint. Cannot fail, decides nothing, and only calls functions: every
//! name is from `hero_sse::__private`, and every binding starts with `__`, so that no name of the user's
//! can shadow one.
//!
//! Tokens that can be wrong because of the user's types have the span of the user's tokens: the compiler
//! reports the mistake there, once, without a trace of the macro. Only paths have such a span. A variable
//! cannot, because inside a `macro_rules` an identifier with another span is another variable.

use proc_macro2::{Literal, TokenStream};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Ident, Type, Visibility};

use super::model::{
    Argument, Assertion, Condition, Endpoint, EventName, Permissions, Rejected, Setting,
    SharedAttributes, Stub,
};
use crate::private;

pub(super) fn endpoint(endpoint: &Endpoint) -> TokenStream {
    let Endpoint { function, ident, path, shared, .. } = endpoint;
    let marker = marker_type(&endpoint.visibility, ident, path, shared);
    let descriptor = descriptor(endpoint);
    let assertions = assertions(endpoint);
    let Parameters { declared, given, state, bounds } = parameters(endpoint);
    let open = open(endpoint);
    let items = in_const(
        &private(endpoint.krate.as_ref()),
        shared,
        quote! {
            #assertions
            impl __sse::Declared for #ident {}
            #[automatically_derived]
            impl __sse::EndpointMeta for #ident {
                const DESCRIPTOR: __sse::Descriptor = #descriptor;
            }
            #[automatically_derived]
            impl #declared __sse::Endpoint<#given> for #ident #bounds {
                fn open(__request: __sse::Request, __state: #state) -> __sse::OpeningStream {
                    #open
                }
            }
        },
    );
    quote!(#function #marker #items)
}

/// An anonymous constant, which hides the items' names and is the scope of the lints allowed for them.
fn in_const(private: &TokenStream, shared: &SharedAttributes, items: TokenStream) -> TokenStream {
    let conditions = &shared.conditions;
    quote! {
        #(#conditions)*
        #[allow(deprecated, unused_qualifications)]
        const _: () = {
            use #private as __sse;
            #items
        };
    }
}

/// Makes the compiler check types. An argument whose extraction depends on the answer has a constant for it.
fn assertions(endpoint: &Endpoint) -> Option<TokenStream> {
    let Endpoint { arguments, body, event, returned, .. } = endpoint;
    let mut assertions = Vec::new();
    for (n, Argument { ty, assertions: of_argument }) in arguments.iter().chain(body).enumerate() {
        for assertion in of_argument {
            let condition = condition(assertion, ty);
            let (constant, holds) = match constant(assertion, n) {
                Some(name) => {
                    (Some(quote!(const #name: __sse::bool = #condition;)), name.into_token_stream())
                }
                None => (None, condition),
            };
            let message = &assertion.message;
            let check = quote_spanned!(ty.span()=> __sse::check(#holds, #message));
            assertions.push(quote!(#constant const _: () = #check;));
        }
    }
    assertions.extend(event.as_ref().map(same_name));
    let asks = !assertions.is_empty() || returned.is_some();
    asks.then(|| quote!(use __sse::AnyType as _; #(#assertions)*))
}

fn condition(assertion: &Assertion, ty: &Type) -> TokenStream {
    let known = quote!(<__sse::TypeOf<#ty>>);
    match &assertion.condition {
        Condition::ReadsNoBody => quote!(#known::FROM_PARTS || !#known::FROM_REQUEST),
        Condition::IsNotPlain => quote!(!#known::IS_PLAIN),
        Condition::IsNotPrincipal => quote!(!#known::IS_PRINCIPAL),
        Condition::TakesCaptures(count) => {
            let count = Literal::usize_unsuffixed(*count);
            quote!(__sse::takes_all(#known::CAPTURES, #count))
        }
    }
}

/// The constant for a condition without which the argument is no extractor.
fn constant(assertion: &Assertion, argument: usize) -> Option<Ident> {
    match assertion.condition {
        Condition::ReadsNoBody | Condition::IsNotPlain => Some(format_ident!("__CHECK_{argument}")),
        Condition::IsNotPrincipal | Condition::TakesCaptures(_) => None,
    }
}

/// The events' own name must be the endpoint's.
fn same_name(EventName { name, returned }: &EventName) -> TokenStream {
    let known = quote!(<__sse::TypeOf<#returned>>);
    let check = quote_spanned! {name.span()=>
        __sse::same_name(#name, #known::EVENT, #known::EVENT_OF_RESULT)
    };
    quote!(const _: () = #check;)
}

/// The parameters of `Endpoint`, and their bounds.
struct Parameters {
    declared: Option<TokenStream>,
    given: TokenStream,
    state: TokenStream,
    bounds: Option<TokenStream>,
}

/// The endpoint is for any state that its arguments are extractors of, or for the one that the user names.
/// The latter needs no bounds: the compiler reports an argument where it is extracted.
fn parameters(endpoint: &Endpoint) -> Parameters {
    let Endpoint { arguments, body, state, .. } = endpoint;
    if let Some(state) = state {
        let state = state.to_token_stream();
        return Parameters { declared: None, given: state.clone(), state, bounds: None };
    }
    let mut bounds: Vec<_> = arguments
        .iter()
        .enumerate()
        .map(|(n, argument)| {
            let Extractor { of, implements, .. } = extractor(n, argument, &quote!(__AppState));
            let span = argument.ty.span();
            quote_spanned!(span=> #of: #implements,)
        })
        .collect();
    bounds.extend(body.as_ref().map(|Argument { ty, .. }| {
        quote_spanned!(ty.span()=> #ty: __sse::BodyExtractor<__AppState, __From>,)
    }));
    let from = body.as_ref().map(|_| quote!(, __From));
    Parameters {
        declared: Some(quote!(<__AppState: __sse::AppState #from>)),
        given: quote!(__AppState #from),
        state: quote!(__AppState),
        bounds: (!bounds.is_empty()).then(|| quote!(where #(#bounds)*)),
    }
}

/// The type and its trait that extract an argument.
struct Extractor {
    of: TokenStream,
    implements: TokenStream,
}

fn extractor(n: usize, argument: &Argument, state: &TokenStream) -> Extractor {
    let Argument { ty, assertions } = argument;
    match assertions.iter().find_map(|assertion| constant(assertion, n)) {
        Some(constant) => Extractor {
            of: quote_spanned!(ty.span()=> __sse::Checked<#constant>),
            implements: quote_spanned!(ty.span()=> __sse::Extract<#state, #ty>),
        },
        None => Extractor {
            of: ty.to_token_stream(),
            implements: quote_spanned!(ty.span()=> __sse::Extractor<#state>),
        },
    }
}

/// Extracts the arguments one by one, calls the function, and takes its stream.
fn open(endpoint: &Endpoint) -> TokenStream {
    let Endpoint { ident, arguments, body, state, returns, item, .. } = endpoint;
    let (state, from) = match state {
        Some(state) => (state.to_token_stream(), quote!(_)),
        None => (quote!(__AppState), quote!(__From)),
    };
    let names: Vec<_> = (0..arguments.len()).map(|n| format_ident!("__{n}")).collect();
    let extractions = arguments.iter().zip(&names).enumerate().map(|(n, (argument, name))| {
        let Extractor { of, implements } = extractor(n, argument, &state);
        let extract = quote_spanned!(argument.ty.span()=> <#of as #implements>::extract);
        quote!(let #name = #extract(&mut __parts, &__state).await?;)
    });
    let last = body.as_ref().map(|Argument { ty, .. }| {
        let take = quote_spanned! {ty.span()=>
            <#ty as __sse::BodyExtractor<#state, #from>>::take
        };
        quote!(let __last = #take(__parts, __body, &__state).await?;)
    });
    let last_name = body.as_ref().map(|_| quote!(__last));
    let mut function = ident.clone();
    function.set_span(*returns);
    // A value first: clippy then knows that the function is used as an `async` one, and asks for no `await`.
    let value = Ident::new("__function", *returns);
    let into_stream = match endpoint.early {
        true => quote_spanned!(*returns=> __sse::IntoEarlyStream::into_early_stream),
        false => quote_spanned!(*returns=> __sse::IntoEventStream::into_event_stream),
    };
    let stream = quote_spanned! {*returns=>
        #into_stream(#value(#(#names,)* #last_name).await)
    };
    let events = quote_spanned!(*item=> __sse::then(#stream, __sse::Events::into_events));
    // Reports at the function what it holds across an `await` and cannot be sent to another thread.
    let future = quote_spanned! {ident.span()=>
        async move {
            #(#extractions)*
            #last
            let #value = #function;
            #events
        }
    };
    let given = match (arguments.is_empty(), body.is_some()) {
        (true, false) => quote!(_, _, _),
        (true, true) => quote!(__parts, __body, __state),
        (false, false) => quote!(mut __parts, _, __state),
        (false, true) => quote!(mut __parts, __body, __state),
    };
    quote!(__sse::open(__request, __state, |#given| #future))
}

/// The type with the endpoint's name. With braces it is in the namespace of types alone, so that one `use`
/// imports it and the function.
///
/// An endpoint that nobody maps is reported once, at the function: hence `dead_code`.
fn marker_type(
    visibility: &Visibility,
    ident: &Ident,
    path: &str,
    shared: &SharedAttributes,
) -> TokenStream {
    let SharedAttributes { docs, conditions } = shared;
    let doc = format!(" Endpoint `{path}`; name it in `endpoints![..]` to map it.");
    let gap = (!docs.is_empty()).then(|| quote!(#[doc = ""]));
    quote! {
        #(#conditions)*
        #(#docs)*
        #gap
        #[doc = #doc]
        #[allow(
            non_camel_case_types,
            dead_code,
            unreachable_pub,
            missing_debug_implementations,
            missing_copy_implementations
        )]
        #visibility struct #ident {}
    }
}

fn descriptor(endpoint: &Endpoint) -> TokenStream {
    let Endpoint { name, path, docs, permissions, settings, arguments, body, returned, .. } =
        endpoint;
    let docs = match docs.as_slice() {
        [] => None,
        [text] => Some(quote!(.docs(#text))),
        pieces => Some(quote!(.docs(__sse::concat!(#(#pieces),*)))),
    };
    let takes_captures = |argument: &&Argument| {
        let mut assertions = argument.assertions.iter();
        assertions.any(|assertion| matches!(assertion.condition, Condition::TakesCaptures(_)))
    };
    let captures = arguments.iter().chain(body).filter(takes_captures);
    let captures = captures.map(|Argument { ty, .. }| quote!(<__sse::TypeOf<#ty>>::CAPTURES));
    let permissions = permissions.as_ref().map(|rule| {
        let rule = permission(rule);
        quote!(.permission(|| #rule))
    });
    let headed = endpoint.headed.then(|| quote!(.headed()));
    let refusals = endpoint.refusals.as_ref().map(|format| {
        let made = quote_spanned!(format.span()=> __sse::response(#format(__refusal)));
        quote!(.refusals(|__refusal| #made))
    });
    let traps = returned.as_ref().map(|returned| {
        let known = quote!(<__sse::TypeOf<#returned>>);
        quote!(.traps(#known::TRAPS, #known::TRAPS_OF_RESULT))
    });
    let settings = settings.iter().map(|(key, setting)| {
        let method = format_ident!("{key}");
        let value = value(setting);
        quote!(.#method(#value))
    });
    quote! {
        __sse::Descriptor::new(#name, #path)
            .at(__sse::file!(), __sse::line!())
            #(.captures(#captures))*
            #traps
            #docs
            #permissions
            #headed
            #refusals
            #(#settings)*
    }
}

fn permission(rule: &Permissions) -> TokenStream {
    let list = |function: TokenStream, rules: &[Permissions]| {
        let rules = rules.iter().map(permission);
        quote!(__sse::#function([#(#rules),*]))
    };
    match rule {
        Permissions::Name(name) => quote!(__sse::permission(#name)),
        Permissions::Path(path) => {
            quote_spanned!(path.span()=> __sse::IntoPermission::into_rule(#path))
        }
        Permissions::All(rules) => list(quote!(all), rules),
        Permissions::Any(rules) => list(quote!(any), rules),
    }
}

fn value(setting: &Setting) -> Option<TokenStream> {
    Some(match setting {
        Setting::Bare => return None,
        Setting::Text(text) => quote!(#text),
        Setting::Flag(flag) => quote!(#flag),
        Setting::Count(count) => Literal::u64_unsuffixed(*count).into_token_stream(),
        Setting::Variant(of, variant) => {
            let (of, variant) = (format_ident!("{of}"), format_ident!("{variant}"));
            quote!(__sse::#of::#variant)
        }
        Setting::Variants(of, variants) => {
            let of = format_ident!("{of}");
            let variants = variants.iter().map(|variant| format_ident!("{variant}"));
            quote!(&[#(__sse::#of::#variants),*])
        }
        Setting::Millis(millis) => {
            let millis = Literal::u64_unsuffixed(*millis);
            quote!(__sse::millis(#millis))
        }
        Setting::Every(millis) => {
            let millis = Literal::u64_unsuffixed(*millis);
            quote!(__sse::every(#millis))
        }
        Setting::Off => quote!(__sse::OFF),
    })
}

/// The function, its mistakes, and the stub.
pub(super) fn rejected(Rejected { function, error, stub }: &Rejected) -> TokenStream {
    let function = with_error(function, error);
    let stub = stub.as_ref().map(stub_items);
    quote!(#function #stub)
}

pub(super) fn with_error(item: &TokenStream, error: &syn::Error) -> TokenStream {
    let error = error.to_compile_error();
    quote!(#item #error)
}

fn stub_items(Stub { krate, visibility, ident, name, shared }: &Stub) -> TokenStream {
    let marker = marker_type(visibility, ident, "/", shared);
    let items = in_const(
        &private(krate.as_ref()),
        shared,
        quote! {
            impl __sse::Declared for #ident {}
            #[automatically_derived]
            impl __sse::EndpointMeta for #ident {
                const DESCRIPTOR: __sse::Descriptor = __sse::Descriptor::new(#name, "/");
            }
            #[automatically_derived]
            impl<__AppState> __sse::Endpoint<__AppState> for #ident {
                fn open(_: __sse::Request, _: __AppState) -> __sse::OpeningStream {
                    __sse::unreachable_endpoint()
                }
            }
        },
    );
    quote!(#marker #items)
}
