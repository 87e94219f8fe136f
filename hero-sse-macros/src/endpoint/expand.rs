//! The tokens of an endpoint. Cannot fail, and only calls: everything it names lives in
//! `hero_sse::__private`, and what it binds starts with `__`, so that no name of the user's can stand
//! in between.

use proc_macro2::{Literal, Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{Ident, Visibility};

use super::model::{Access, Endpoint, Period};
use super::parse::Declaration;
use crate::private;

pub(super) fn endpoint(item: &TokenStream, endpoint: &Endpoint) -> TokenStream {
    let Endpoint { ident, path, arguments, .. } = endpoint;
    let private = private(endpoint.krate.as_ref());
    let marker = marker(&endpoint.visibility, ident, path);
    let descriptor = descriptor(&private, endpoint);
    let extractors = arguments.iter().map(|argument| {
        quote_spanned!(argument.span()=> #argument: #private::FromRequestParts<__AppState>)
    });
    let open = open(&private, endpoint);
    let implementations =
        implementations(&private, ident, &descriptor, &quote!(#(#extractors,)*), &open);
    quote!(#item #marker #implementations)
}

/// What makes the type of the endpoint's name an endpoint.
fn implementations(
    private: &TokenStream,
    ident: &Ident,
    descriptor: &TokenStream,
    extractors: &TokenStream,
    open: &TokenStream,
) -> TokenStream {
    quote! {
        #[allow(deprecated)]
        const _: () = {
            #[automatically_derived]
            impl #private::EndpointMeta for #ident {
                const DESCRIPTOR: #private::Descriptor = #descriptor;
            }
            #[automatically_derived]
            impl<__AppState> #private::Endpoint<__AppState> for #ident
            where
                __AppState: #private::AppState,
                #extractors
            {
                fn open(__parts: #private::Parts, __state: __AppState) -> #private::Opening {
                    #open
                }
            }
        };
    }
}

/// The call of the function. All that can be wrong with it is what the function returns, so that
/// is where it stands; and with the arguments named, the compiler says what is wrong, and not that
/// a function of no kind would do. The first of the tuple tells a stream from a `Result`.
fn open(private: &TokenStream, endpoint: &Endpoint) -> TokenStream {
    let Endpoint { ident, arguments, returns, .. } = endpoint;
    let mut handler = ident.clone();
    handler.set_span(ident.span().located_at(*returns));
    quote_spanned! {Span::call_site().located_at(*returns)=>
        #private::open::<_, (_, #(#arguments,)*), _>(#handler, __parts, __state)
    }
}

/// The type of the endpoint's name. With braces it lives among the types only, so that one `use`
/// brings it and the function.
///
/// An endpoint that nobody maps is reported once, at the function; hence `dead_code`.
fn marker(visibility: &Visibility, ident: &Ident, path: &str) -> TokenStream {
    let doc = format!("Endpoint `{path}`; name it in `endpoints![..]` to map it.");
    quote! {
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

fn descriptor(private: &TokenStream, endpoint: &Endpoint) -> TokenStream {
    let Endpoint { ident, path, .. } = endpoint;
    let id = ident.unraw().to_string();
    let docs = endpoint.docs.iter().map(|docs| quote!(.docs(#docs)));
    let event = endpoint.event.iter().map(|event| quote!(.event(#event)));
    let access = match &endpoint.access {
        Access::AnyToken => None,
        Access::Permission(permission) => Some(quote!(.permission(#permission))),
        Access::Public => Some(quote!(.public())),
    };
    let heartbeat = endpoint.heartbeat.as_ref().map(|period| call("heartbeat", period));
    let write_timeout = endpoint.write_timeout.as_ref().map(|period| call("write_timeout", period));
    let retry = endpoint.retry.map(|millis| call("retry", &Period::Millis(millis)));
    quote! {
        #private::Descriptor::new(#id, #path)
            .at(#private::file!(), #private::line!())
            #(#docs)*
            #(#event)*
            #access
            #heartbeat
            #write_timeout
            #retry
    }
}

fn call(name: &str, period: &Period) -> TokenStream {
    match period {
        Period::Off => {
            let method = format_ident!("{name}_off");
            quote!(.#method())
        }
        Period::Millis(millis) => {
            let method = format_ident!("{name}_millis");
            let millis = Literal::u64_unsuffixed(*millis);
            quote!(.#method(#millis))
        }
    }
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
    let marker = marker(&declaration.function.visibility, ident, "/");
    let descriptor = quote!(#private::Descriptor::new(#id, "/"));
    let open = quote!(#private::unreachable_endpoint());
    let implementations = implementations(&private, ident, &descriptor, &TokenStream::new(), &open);
    let error = error.to_compile_error();
    quote!(#item #error #marker #implementations)
}

/// For items that cannot even have a stub.
pub(super) fn only_the_item(item: &TokenStream, error: &syn::Error) -> TokenStream {
    let error = error.to_compile_error();
    quote!(#item #error)
}
