//! The tokens of an event. Cannot fail, and only calls: everything it names lives in
//! `hero_sse::__private`, and what it binds starts with `__`, so that no name of the user's can stand
//! in between.

use proc_macro2::{Literal, Span, TokenStream};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::{GenericParam, Generics, Ident, Member, Path};

use super::data::{EnumData, VariantData};
use super::model::{Event, Frame, Marked, Name, Retry, Shape, Variant};
use super::parse::Declaration;
use crate::private;

pub(super) fn event(event: &Event<'_>) -> TokenStream {
    let items = match &event.shape {
        Shape::Struct(frame) => struct_items(event, frame),
        Shape::Enum { variants, data } => enum_items(event, variants, data),
    };
    in_a_room(event.krate, &items)
}

fn struct_items(event: &Event<'_>, frame: &Frame<'_>) -> TokenStream {
    let generics = event.generics;
    let own = |what: &str, marked: &Marked<'_>| {
        let (this, member) =
            (format_ident!("__{what}", span = marked.at), at(marked.member, marked.at));
        (quote!(let #this = self;), quote_spanned!(marked.at=> &#this.#member))
    };
    // A struct without `Serialize` is the user's to mend, so that is where it points.
    let body = frame_of(frame, own, || {
        let at = event.ident.span();
        let (this, write) = (Ident::new("__json", at), quote_spanned!(at=> __sse::Json::write));
        quote!(let #this = self; #write(#this, __frame))
    });
    let key = frame.key.as_ref().map(|key| {
        let (this, own) = own("key", key);
        let text = key_of(key, &own);
        key_method(&quote!(#this #text))
    });
    let name = match &frame.name {
        Name::Explicit(name) => Some(quote! {
            const NAME: __sse::Option<&'static __sse::str> = __sse::Option::Some(#name);
        }),
        Name::Default(_) => None,
    };
    let encode = encode(body);
    // Of a struct without such parameters the compiler knows by itself, and says it once.
    let open = generics.type_params().next().is_some() || generics.const_params().next().is_some();
    let bound = (open && frame.text.is_none()).then(|| quote!(Self: __sse::Serialize));
    let methods = quote!(#name #encode #key);
    implementation(event.ident, generics, bound.as_slice(), methods)
}

fn enum_items(event: &Event<'_>, variants: &[Variant<'_>], data: &EnumData) -> TokenStream {
    let arms = variants.iter().map(|Variant { ident, frame, .. }| {
        let mut bound: Vec<(&Member, Ident)> = Vec::new();
        let parts = [frame.id.as_ref(), retry_field(frame), frame.text.as_ref()];
        for marked in parts.into_iter().flatten() {
            if !bound.iter().any(|(member, _)| *member == marked.member) {
                bound.push((marked.member, format_ident!("__{}", bound.len(), span = marked.at)));
            }
        }
        let own = |_: &str, marked: &Marked<'_>| {
            let name = bound.iter().find(|(member, _)| *member == marked.member);
            (TokenStream::new(), name.map(|(_, name)| name).to_token_stream())
        };
        let body = frame_of(frame, own, || quote!(__sse::Json::write(&__Body(self), __frame)));
        let pattern = bound.iter().map(|(member, name)| quote!(#member: #name,));
        quote!(Self::#ident { #(#pattern)* .. } => { #body })
    });
    let encode = encode(quote!(match self { #(#arms)* }));
    let key = enum_key(variants);
    let is_last = is_last(variants);
    let as_json = variants.iter().any(|variant| variant.frame.text.is_none());
    let mirror = as_json.then(|| mirror(event, data));
    let methods = quote!(#encode #key #is_last);
    let implementation = implementation(event.ident, &data.generics, &data.bounds, methods);
    quote!(#mirror #implementation)
}

/// A member, said to stand elsewhere.
fn at(member: &Member, span: Span) -> Member {
    let mut member = member.clone();
    match &mut member {
        Member::Named(ident) => ident.set_span(span),
        Member::Unnamed(index) => index.span = span,
    }
    member
}

fn retry_field<'a>(frame: &'a Frame<'a>) -> Option<&'a Marked<'a>> {
    match &frame.retry {
        Some(Retry::Field(field)) => Some(field),
        _ => None,
    }
}

/// The fields of a frame in the order of the wire; the data is what it comes to. `own` binds a name at
/// the place it is used, and uses it.
///
/// A name that is bound in one place and used in another is none inside a `macro_rules!`, which brings
/// some of the tokens itself: so `self` and `__frame` never stand at the user's.
fn frame_of(
    frame: &Frame<'_>,
    own: impl Fn(&str, &Marked<'_>) -> (TokenStream, TokenStream),
    json: impl FnOnce() -> TokenStream,
) -> TokenStream {
    let name = set_name(&frame.name);
    let write = |what: &str, marked: &Marked<'_>| {
        let (binding, own) = own(&what.to_lowercase(), marked);
        let what = format_ident!("{what}", span = marked.at);
        let write = quote_spanned!(marked.at=> __sse::#what::write);
        quote!(#binding #write(#own, __frame))
    };
    let id = frame.id.as_ref().map(|id| {
        let id = write("Id", id);
        quote!(#id?;)
    });
    let retry = frame.retry.as_ref().map(|retry| match retry {
        Retry::Millis(millis) => {
            let millis = Literal::u64_unsuffixed(*millis);
            quote!(__sse::Retry::write(&__sse::millis(#millis), __frame)?;)
        }
        Retry::Field(field) => {
            let retry = write("Retry", field);
            quote!(#retry?;)
        }
    });
    let data = match &frame.text {
        Some(text) => write("Text", text),
        None => json(),
    };
    quote! {
        #name
        #id
        #retry
        #data
    }
}

fn key_of(key: &Marked<'_>, own: &TokenStream) -> TokenStream {
    quote_spanned!(key.at=> __sse::EventKey::text(#own))
}

fn enum_key(variants: &[Variant<'_>]) -> Option<TokenStream> {
    let (with, without): (Vec<_>, Vec<_>) =
        variants.iter().partition(|variant| variant.frame.key.is_some());
    let arms = with.iter().filter_map(|variant| {
        let (ident, key) = (variant.ident, variant.frame.key.as_ref()?);
        let (member, own) = (key.member, Ident::new("__key", key.at));
        let text = key_of(key, &own.to_token_stream());
        Some(quote!(Self::#ident { #member: #own, .. } => #text,))
    });
    let without = (!without.is_empty()).then(|| {
        let idents = without.iter().map(|variant| variant.ident);
        quote!(#(Self::#idents { .. })|* => __sse::Option::None,)
    });
    let text = quote!(match self { #(#arms)* #without });
    (!with.is_empty()).then(|| key_method(&text))
}

fn key_method(text: &TokenStream) -> TokenStream {
    quote! {
        fn key(&self) -> __sse::Option<__sse::String> {
            #text
        }
    }
}

fn set_name(name: &Name) -> TokenStream {
    let (function, name) = match name {
        Name::Explicit(name) => (quote!(explicit_name), name),
        Name::Default(name) => (quote!(default_name), name),
    };
    quote! {
        const __NAME: __sse::EventName = __sse::event_name(#name);
        __sse::#function(__frame, &__NAME);
    }
}

fn encode(body: TokenStream) -> TokenStream {
    quote! {
        fn encode(
            &self,
            __frame: &mut __sse::FrameWriter<'_>,
        ) -> __sse::Result<(), __sse::InvalidEvent> {
            #body
        }
    }
}

fn is_last(variants: &[Variant<'_>]) -> Option<TokenStream> {
    let (last, more): (Vec<_>, Vec<_>) = variants.iter().partition(|variant| variant.last);
    let arm = |variants: &[&Variant<'_>], answer: bool| {
        let idents = variants.iter().map(|variant| variant.ident);
        (!variants.is_empty()).then(|| quote!(#(Self::#idents { .. })|* => #answer,))
    };
    let last = arm(&last, true)?;
    let more = arm(&more, false);
    Some(quote! {
        fn is_last(&self) -> __sse::bool {
            match self {
                #last
                #more
            }
        }
    })
}

/// An enum of the same fields for serde to derive from, and what hands the event to it.
fn mirror(event: &Event<'_>, data: &EnumData) -> TokenStream {
    let ident = event.ident;
    let EnumData { allowed, attributes, variants, generics, bounds, tell_bounds } = data;
    let Generics { params, where_clause, .. } = generics;
    let (parameters, arguments, _) = generics.split_for_impl();
    let turbofish = arguments.as_turbofish();
    let names = params.iter().map(|parameter| match parameter {
        GenericParam::Lifetime(parameter) => {
            let lifetime = &parameter.lifetime;
            quote!(#lifetime)
        }
        GenericParam::Type(syn::TypeParam { ident, .. })
        | GenericParam::Const(syn::ConstParam { ident, .. }) => quote!(#ident),
    });
    let remote = ident.to_string();
    // Said even where there is none: serde would find some of its own.
    let bound = (*tell_bounds && !params.is_empty()).then(|| {
        let bound = quote!(#(#bounds),*).to_string();
        quote!(, bound(serialize = #bound))
    });
    let variants = variants.iter().map(|VariantData { attributes, variant }| {
        let attribute = (!attributes.is_empty()).then(|| quote!(#[serde(#(#attributes),*)]));
        quote!(#attribute #variant)
    });
    let conditions = conditions(generics, bounds);
    quote! {
        use __sse::Unserialized as _;
        #[derive(__sse::Serialize)]
        #[serde(crate = "__sse::serde", remote = #remote, untagged #(, #attributes)* #bound)]
        #[allow(dead_code)]
        #(#allowed)*
        enum __Data<#params> #where_clause {
            #(#variants,)*
        }
        struct __Body<'__event, #params>(&'__event #ident #arguments) #where_clause;
        #[automatically_derived]
        impl #parameters __sse::Serialize for __Body<'_, #(#names),*> #conditions {
            fn serialize<__Serializer: __sse::Serializer>(
                &self,
                __serializer: __Serializer,
            ) -> __sse::Result<__Serializer::Ok, __Serializer::Error> {
                __Data #turbofish::serialize(self.0, __serializer)
            }
        }
    }
}

fn implementation(
    ident: &Ident,
    generics: &Generics,
    bounds: &[TokenStream],
    methods: TokenStream,
) -> TokenStream {
    let (parameters, arguments, _) = generics.split_for_impl();
    let conditions = conditions(generics, bounds);
    quote! {
        #[automatically_derived]
        impl #parameters __sse::SseEvent for #ident #arguments #conditions {
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
fn in_a_room(krate: Option<&Path>, items: &TokenStream) -> TokenStream {
    let private = private(krate);
    quote! {
        #[allow(deprecated, single_use_lifetimes)]
        const _: () = {
            use #private as __sse;
            #items
        };
    }
}

/// The type with its mistakes, and an event that is never encoded, so that the code that sends it
/// has nothing to complain about.
pub(super) fn fallback(declaration: &Declaration, error: &syn::Error) -> TokenStream {
    let input = &declaration.input;
    let methods = quote! {
        fn encode(
            &self,
            _: &mut __sse::FrameWriter<'_>,
        ) -> __sse::Result<(), __sse::InvalidEvent> {
            __sse::unreachable_event()
        }
    };
    let stub = in_a_room(
        declaration.entries.path("crate"),
        &implementation(&input.ident, &input.generics, &[], methods),
    );
    let error = error.to_compile_error();
    quote!(#error #stub)
}
