//! The tokens of an event. Cannot fail, and only calls: everything it names lives in
//! `hero_sse::__private`, and what it binds starts with `__`, so that no name of the user's can stand
//! in between.

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::{GenericParam, Generics, Ident};

use super::data::EnumData;
use super::model::{Event, Id, Name, Shape, Variant};
use super::parse::Declaration;
use crate::{attr, private};

pub(super) fn event(event: &Event<'_>) -> TokenStream {
    let private = private(event.krate);
    let items = match &event.shape {
        Shape::Struct { name, id } => {
            let name = set_name(&private, name);
            let id = id.as_ref().map(|Id { member, marked }| {
                let id = quote_spanned!(located(*marked)=> &self.#member);
                quote!(#private::id(__frame, #id)?;)
            });
            // A struct without `Serialize` is the user's to mend, so that is where it points.
            let this = quote_spanned!(located(event.ident.span())=> self);
            let methods = encode(
                &private,
                quote! {
                    #name
                    #id
                    #private::json(__frame, #this)
                },
            );
            // Of a struct without such parameters the compiler knows by itself, and says it once.
            let generics = event.generics;
            let bound = (generics.type_params().next().is_some()
                || generics.const_params().next().is_some())
            .then(|| quote!(Self: #private::Serialize));
            implementation(&private, event.ident, event.generics, bound.as_slice(), methods)
        }
        Shape::Enum { variants, data } => enum_items(&private, event, variants, data),
    };
    in_a_room(&items)
}

fn enum_items(
    private: &TokenStream,
    event: &Event<'_>,
    variants: &[Variant<'_>],
    data: &EnumData,
) -> TokenStream {
    let arms = variants.iter().map(|variant| {
        let ident = variant.ident;
        let name = set_name(private, &variant.name);
        match &variant.id {
            Some(Id { member, marked }) => {
                let id = Ident::new("__id", located(*marked));
                quote! {
                    Self::#ident { #member: #id, .. } => {
                        #name
                        #private::id(__frame, #id)?;
                    }
                }
            }
            None => quote!(Self::#ident { .. } => { #name }),
        }
    });
    let encode = encode(
        private,
        quote! {
            match self {
                #(#arms)*
            }
            #private::json(__frame, &__Body(self))
        },
    );
    let is_last = is_last(private, variants);
    let bounds = bounds(private, event.generics, data);
    let mirror = mirror(private, event, data, &bounds);
    let implementation =
        implementation(private, event.ident, event.generics, &bounds, quote!(#encode #is_last));
    quote!(#mirror #implementation)
}

fn set_name(private: &TokenStream, name: &Name) -> TokenStream {
    let (function, name) = match name {
        Name::Explicit(name) => (quote!(explicit_name), name),
        Name::Default(name) => (quote!(default_name), name),
    };
    quote! {
        const __NAME: #private::EventName = #private::event_name(#name);
        #private::#function(__frame, &__NAME);
    }
}

fn encode(private: &TokenStream, body: TokenStream) -> TokenStream {
    quote! {
        fn encode(
            &self,
            __frame: &mut #private::FrameWriter<'_>,
        ) -> #private::Result<(), #private::InvalidEvent> {
            #body
        }
    }
}

fn is_last(private: &TokenStream, variants: &[Variant<'_>]) -> Option<TokenStream> {
    let (last, more): (Vec<_>, Vec<_>) = variants.iter().partition(|variant| variant.last);
    let arm = |variants: &[&Variant<'_>], answer: bool| {
        let idents = variants.iter().map(|variant| variant.ident);
        (!variants.is_empty()).then(|| quote!(#(Self::#idents { .. })|* => #answer,))
    };
    let last = arm(&last, true)?;
    let more = arm(&more, false);
    Some(quote! {
        fn is_last(&self) -> #private::bool {
            match self {
                #last
                #more
            }
        }
    })
}

/// What the parameters of an enum must be for its data to be serialized: every type parameter
/// `Serialize`, as for a derive of serde, unless the user said otherwise.
fn bounds(private: &TokenStream, generics: &Generics, data: &EnumData) -> Vec<TokenStream> {
    let outer: Vec<_> = match &data.bounds {
        Some(bounds) => bounds.iter().map(|bound| quote!(#bound)).collect(),
        None => generics
            .type_params()
            .map(|parameter| {
                let ident = &parameter.ident;
                quote!(#ident: #private::Serialize)
            })
            .collect(),
    };
    let inner = data.inner_bounds.iter().map(|bound| quote!(#bound));
    outer.into_iter().chain(inner).collect()
}

/// An enum of the same fields for serde to derive from, and what hands the event to it.
fn mirror(
    private: &TokenStream,
    event: &Event<'_>,
    data: &EnumData,
    bounds: &[TokenStream],
) -> TokenStream {
    let ident = event.ident;
    let Generics { params, where_clause, .. } = event.generics;
    let (parameters, arguments, _) = event.generics.split_for_impl();
    let turbofish = arguments.as_turbofish();
    let names = params.iter().map(|parameter| match parameter {
        GenericParam::Lifetime(parameter) => {
            let lifetime = &parameter.lifetime;
            quote!(#lifetime)
        }
        GenericParam::Type(syn::TypeParam { ident, .. })
        | GenericParam::Const(syn::ConstParam { ident, .. }) => quote!(#ident),
    });
    let serde = attr::plain(quote!(#private::serde));
    let remote = ident.to_string();
    let attributes = &data.attributes;
    let bound = (data.bounds.is_none() && !bounds.is_empty()).then(|| {
        let bound = quote!(#(#bounds),*).to_string();
        quote!(, bound(serialize = #bound))
    });
    let variants = data.variants.iter().map(|data| {
        let (attributes, variant) = (&data.attributes, &data.variant);
        let attribute = (!attributes.is_empty()).then(|| quote!(#[serde(#(#attributes),*)]));
        quote!(#attribute #variant)
    });
    let conditions = conditions(event.generics, bounds);
    quote! {
        #[derive(#private::Serialize)]
        #[serde(crate = #serde, remote = #remote, untagged #(, #attributes)* #bound)]
        #[allow(dead_code)]
        enum __Data<#params> #where_clause {
            #(#variants,)*
        }
        struct __Body<'__event, #params>(&'__event #ident #arguments) #where_clause;
        #[automatically_derived]
        impl #parameters #private::Serialize for __Body<'_, #(#names),*> #conditions {
            fn serialize<__Serializer: #private::Serializer>(
                &self,
                __serializer: __Serializer,
            ) -> #private::Result<__Serializer::Ok, __Serializer::Error> {
                __Data #turbofish::serialize(self.0, __serializer)
            }
        }
    }
}

fn implementation(
    private: &TokenStream,
    ident: &Ident,
    generics: &Generics,
    bounds: &[TokenStream],
    methods: TokenStream,
) -> TokenStream {
    let (parameters, arguments, _) = generics.split_for_impl();
    let conditions = conditions(generics, bounds);
    quote! {
        #[automatically_derived]
        impl #parameters #private::SseEvent for #ident #arguments #conditions {
            #methods
        }
    }
}

/// The user's `where` clause and what comes on top.
fn conditions(generics: &Generics, bounds: &[TokenStream]) -> Option<TokenStream> {
    let own = generics.where_clause.iter().flat_map(|clause| &clause.predicates);
    let own: Vec<_> = own.map(|predicate| quote!(#predicate)).collect();
    let all: Vec<_> = own.iter().chain(bounds).collect();
    (!all.is_empty()).then(|| quote!(where #(#all,)*))
}

/// Keeps names and lints to itself.
fn in_a_room(items: &TokenStream) -> TokenStream {
    quote! {
        #[allow(deprecated, single_use_lifetimes)]
        const _: () = {
            #items
        };
    }
}

/// The type with its mistakes, and an event that is never encoded, so that the code that sends it
/// has nothing to complain about.
pub(super) fn fallback(declaration: &Declaration, error: &syn::Error) -> TokenStream {
    let input = &declaration.input;
    let private = private(declaration.entries.path("crate"));
    let methods = quote! {
        fn encode(
            &self,
            _: &mut #private::FrameWriter<'_>,
        ) -> #private::Result<(), #private::InvalidEvent> {
            #private::unreachable_event()
        }
    };
    let stub = in_a_room(&implementation(&private, &input.ident, &input.generics, &[], methods));
    let error = error.to_compile_error();
    quote!(#error #stub)
}

/// At what the user wrote, but with the expansion's own names.
fn located(written: Span) -> Span {
    Span::call_site().located_at(written)
}
