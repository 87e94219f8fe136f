//! The tokens of an endpoint. Cannot fail, and only calls: everything it names lives in
//! `hero_sse::__private`, and what it binds starts with `__`, so that no name of the user's can stand
//! in between.
//!
//! What can be wrong with the user's types stands at the user's tokens, without a trace of the macro:
//! the compiler then reports it there, once. Only paths can: a variable is known where it is bound,
//! and inside a `macro_rules` that is not where the user's tokens are.

use proc_macro2::{Literal, TokenStream};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{Ident, Visibility};

use super::model::{Carried, Endpoint, Permissions, Setting};
use super::parse::Declaration;
use super::{check, signature};
use crate::private;

pub(super) fn endpoint(item: &TokenStream, endpoint: &Endpoint) -> TokenStream {
    let Endpoint { ident, path, carried, .. } = endpoint;
    let marker = marker(&endpoint.visibility, ident, path, carried);
    let descriptor = descriptor(endpoint);
    let Parameters { declared, given, state, bounds } = parameters(endpoint);
    let open = open(endpoint);
    let names_agree = names_agree(endpoint);
    let room = room(
        &private(endpoint.krate.as_ref()),
        carried,
        quote! {
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
            #names_agree
        },
    );
    quote!(#item #marker #room)
}

/// Where what the macro writes keeps to itself; `__sse` is the kit's side of it.
fn room(private: &TokenStream, carried: &Carried, items: TokenStream) -> TokenStream {
    let conditions = &carried.conditions;
    quote! {
        #(#conditions)*
        #[allow(deprecated, unused_qualifications)]
        const _: () = {
            use #private as __sse;
            #items
        };
    }
}

/// The parameters of `Endpoint`, and what must hold for them.
struct Parameters {
    declared: Option<TokenStream>,
    given: TokenStream,
    state: TokenStream,
    bounds: Option<TokenStream>,
}

/// For any state that the arguments are extractors of, or for the one that the user names: then it
/// needs no bounds, and the compiler finds an argument that is none where it is extracted.
fn parameters(endpoint: &Endpoint) -> Parameters {
    let Endpoint { arguments, body, state, .. } = endpoint;
    if let Some(state) = state {
        let state = state.to_token_stream();
        return Parameters { declared: None, given: state.clone(), state, bounds: None };
    }
    let extractors = arguments
        .iter()
        .map(|argument| quote_spanned!(argument.span()=> #argument: __sse::Extractor<__AppState>,));
    let last = body
        .as_ref()
        .map(|body| quote_spanned!(body.span()=> #body: __sse::BodyExtractor<__AppState, __From>,));
    let from = body.as_ref().map(|_| quote!(, __From));
    let bounded = last.is_some() || !arguments.is_empty();
    Parameters {
        declared: Some(quote!(<__AppState: __sse::AppState #from>)),
        given: quote!(__AppState #from),
        state: quote!(__AppState),
        bounds: bounded.then(|| quote!(where #(#extractors)* #last)),
    }
}

/// The arguments one by one, the call of the function, and what becomes of its stream.
fn open(endpoint: &Endpoint) -> TokenStream {
    let Endpoint { ident, arguments, body, state, returns, item, .. } = endpoint;
    let (state, from) = match state {
        Some(state) => (state.to_token_stream(), quote!(_)),
        None => (quote!(__AppState), quote!(__From)),
    };
    let names: Vec<_> = (0..arguments.len()).map(|n| format_ident!("__{n}")).collect();
    let extractions = arguments.iter().zip(&names).map(|(argument, name)| {
        let extract = quote_spanned! {argument.span()=>
            <#argument as __sse::Extractor<#state>>::extract
        };
        quote!(let #name = #extract(&mut __parts, &__state).await?;)
    });
    let last = body.as_ref().map(|body| {
        let take = quote_spanned! {body.span()=>
            <#body as __sse::BodyExtractor<#state, #from>>::take
        };
        quote!(let __last = #take(__parts, __body, &__state).await?;)
    });
    let last_name = body.as_ref().map(|_| quote!(__last));
    let mut function = ident.clone();
    function.set_span(*returns);
    // As a value first: a function that must be `async` need not await, and clippy sees why.
    let value = Ident::new("__function", *returns);
    let stream = quote_spanned! {*returns=>
        __sse::IntoEventStream::into_event_stream(#value(#(#names,)* #last_name).await)
    };
    let item = item.as_ref().map_or(*returns, Spanned::span);
    let events = quote_spanned!(item=> __sse::then(#stream, __sse::Events::into_events));
    // What the function holds across an `await` must be able to travel; it is the function that is told.
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

/// Where the type of the items shows and names itself, that name is the endpoint's too.
fn names_agree(endpoint: &Endpoint) -> Option<TokenStream> {
    let (item, event) = (endpoint.item.as_ref()?, endpoint.event.as_ref()?);
    // `impl SseEvent` cannot be written here.
    if !signature::is_concrete(item) {
        return None;
    }
    let same = quote_spanned! {event.span()=>
        __sse::same_name(#event, <__sse::Named<#item>>::NAME)
    };
    Some(quote! {
        const _: () = {
            use __sse::Unnamed as _;
            #same
        };
    })
}

/// The type of the endpoint's name. With braces it lives among the types only, so that one `use`
/// brings it and the function.
///
/// An endpoint that nobody maps is reported once, at the function; hence `dead_code`.
fn marker(visibility: &Visibility, ident: &Ident, path: &str, carried: &Carried) -> TokenStream {
    let Carried { docs, conditions } = carried;
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
    let Endpoint { ident, path, places, docs, permissions, settings, .. } = endpoint;
    let id = ident.unraw().to_string();
    let docs = match docs.as_slice() {
        [] => None,
        [text] => Some(quote!(.docs(#text))),
        pieces => Some(quote!(.docs(__sse::concat!(#(#pieces),*)))),
    };
    let places = places.iter().map(|places| Literal::usize_unsuffixed(*places));
    let permissions = permissions.as_ref().map(|rule| {
        let rule = permission(rule);
        quote!(.permission(|| #rule))
    });
    let settings = settings.iter().map(|(key, setting)| {
        let method = format_ident!("{key}");
        let value = value(setting);
        quote!(.#method(#value))
    });
    quote! {
        __sse::Descriptor::new(#id, #path)
            .at(__sse::file!(), __sse::line!())
            #(.path_places(#places))*
            #docs
            #permissions
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
        Setting::Said => return None,
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

/// The function with its mistakes, and an endpoint that is never opened, so that the code that
/// names it has nothing to complain about.
pub(super) fn fallback(
    item: &TokenStream,
    declaration: &Declaration,
    error: &syn::Error,
) -> TokenStream {
    let signature = &declaration.function.signature;
    if signature.receiver().is_some() {
        // Inside an `impl`, where no type can stand.
        return only_the_item(item, error);
    }
    let ident = &signature.ident;
    let id = ident.unraw().to_string();
    let private = private(declaration.entries.path("crate"));
    let carried = check::carried(&declaration.function.attributes);
    let marker = marker(&declaration.function.visibility, ident, "/", &carried);
    let room = room(
        &private,
        &carried,
        quote! {
            #[automatically_derived]
            impl __sse::EndpointMeta for #ident {
                const DESCRIPTOR: __sse::Descriptor = __sse::Descriptor::new(#id, "/");
            }
            #[automatically_derived]
            impl<__AppState> __sse::Endpoint<__AppState> for #ident {
                fn open(_: __sse::Request, _: __AppState) -> __sse::OpeningStream {
                    __sse::unreachable_endpoint()
                }
            }
        },
    );
    let error = error.to_compile_error();
    quote!(#item #error #marker #room)
}

/// For items that cannot even have a stub.
pub(super) fn only_the_item(item: &TokenStream, error: &syn::Error) -> TokenStream {
    let error = error.to_compile_error();
    quote!(#item #error)
}
