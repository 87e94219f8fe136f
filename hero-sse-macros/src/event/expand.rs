//! Writes the tokens of a checked event. Cannot fail, decides nothing, and only calls functions: every name
//! is from `hero_sse::__private`, and every binding starts with `__`, so that no name of the user's can
//! shadow one.

use proc_macro2::{Literal, Span, TokenStream};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::{GenericParam, Generics, Ident, Member, Path};

use super::mirror::Mirror;
use super::model::{Data, Event, Frame, Marked, Name, Rejected, Retry, Shape, Variant};
use crate::{name, private};

pub(super) fn event(event: &Event<'_>) -> TokenStream {
    let Event { krate, ident, generics, bounds, shape } = event;
    let (mirror, methods) = match shape {
        Shape::Struct(frame) => (None, struct_methods(ident, frame)),
        Shape::Enum { variants, mirror } => {
            (mirror.as_ref().map(|of| self::mirror(event, of)), enum_methods(variants))
        }
    };
    let implementation = implementation(ident, generics, bounds, &methods);
    in_const(*krate, &quote!(#mirror #implementation))
}

fn struct_methods(ident: &Ident, frame: &Frame<'_>) -> TokenStream {
    let field = |what: &str, marked: &Marked<'_>| {
        let this = format_ident!("__{what}", span = marked.at);
        let member = member_at(marked.member, marked.at);
        (quote!(let #this = self;), quote_spanned!(marked.at=> &#this.#member))
    };
    // The compiler reports a missing `Serialize` at the struct's name, where the user has to add it.
    let body = frame_body(frame, field, || {
        let at = ident.span();
        let (this, write) = (Ident::new("__json", at), quote_spanned!(at=> __sse::Json::write));
        quote!(let #this = self; #write(#this, __frame))
    });
    let key = frame.key.as_ref().map(|key| {
        let (this, field) = field("key", key);
        let text = key_text(key, &field);
        key_method(&quote!(#this #text))
    });
    let name = match &frame.name {
        Name::Explicit(name) => Some(quote! {
            const NAME: __sse::Option<&'static __sse::str> = __sse::Option::Some(#name);
        }),
        Name::Default(_) | Name::Unnamed => None,
    };
    let traps = trap_names([&frame.name]);
    let encode = encode_method(body);
    quote!(#name #traps #encode #key)
}

fn enum_methods(variants: &[Variant<'_>]) -> TokenStream {
    let arms = variants.iter().map(|Variant { ident, frame, .. }| {
        let mut bound: Vec<(&Member, Ident)> = Vec::new();
        let text = match &frame.data {
            Data::Text(text) => Some(text),
            Data::Json | Data::None => None,
        };
        let parts = [frame.comment.as_ref(), frame.id.as_ref(), retry_field(frame), text];
        for marked in parts.into_iter().flatten() {
            if !bound.iter().any(|(member, _)| *member == marked.member) {
                bound.push((marked.member, format_ident!("__{}", bound.len(), span = marked.at)));
            }
        }
        let field = |_: &str, marked: &Marked<'_>| {
            let name = bound.iter().find(|(member, _)| *member == marked.member);
            (TokenStream::new(), name.map(|(_, name)| name).to_token_stream())
        };
        let body = frame_body(frame, field, || quote!(__sse::Json::write(&__Body(self), __frame)));
        let pattern = bound.iter().map(|(member, name)| quote!(#member: #name,));
        quote!(Self::#ident { #(#pattern)* .. } => { #body })
    });
    let traps = trap_names(variants.iter().map(|variant| &variant.frame.name));
    let encode = encode_method(quote!(match self { #(#arms)* }));
    let key = enum_key(variants);
    let is_last = is_last_method(variants);
    quote!(#traps #encode #key #is_last)
}

/// The member with another span.
fn member_at(member: &Member, span: Span) -> Member {
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

/// Writes the fields of a frame in wire order. `field` returns a statement that binds a variable to a
/// marked field, and the expression that uses it.
///
/// Both have the span of the mark: inside a `macro_rules!` an identifier with another span is another
/// variable. For the same reason `self` and `__frame` never have a span of the user's tokens.
fn frame_body(
    frame: &Frame<'_>,
    field: impl Fn(&str, &Marked<'_>) -> (TokenStream, TokenStream),
    json: impl FnOnce() -> TokenStream,
) -> TokenStream {
    let (name, set_name) = set_name(&frame.name);
    let write = |what: &str, marked: &Marked<'_>| {
        let (binding, field) = field(&what.to_lowercase(), marked);
        let what = format_ident!("{what}", span = marked.at);
        let write = quote_spanned!(marked.at=> __sse::#what::write);
        quote!(#binding #write(#field, __frame))
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
    let comment = frame.comment.as_ref().map(|comment| {
        let comment = write("Comment", comment);
        quote!(#comment;)
    });
    let data = match &frame.data {
        Data::Text(text) => write("Text", text),
        Data::Json => json(),
        Data::None => quote!(__sse::without_data(__frame)),
    };
    quote! {
        #name
        #comment
        #set_name
        #id
        #retry
        #data
    }
}

fn key_text(key: &Marked<'_>, field: &TokenStream) -> TokenStream {
    quote_spanned!(key.at=> __sse::EventKey::text(#field))
}

fn enum_key(variants: &[Variant<'_>]) -> Option<TokenStream> {
    let (with, without): (Vec<_>, Vec<_>) =
        variants.iter().partition(|variant| variant.frame.key.is_some());
    let arms = with.iter().filter_map(|variant| {
        let (ident, key) = (variant.ident, variant.frame.key.as_ref()?);
        let (member, field) = (key.member, Ident::new("__key", key.at));
        let text = key_text(key, &field.to_token_stream());
        Some(quote!(Self::#ident { #member: #field, .. } => #text,))
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

/// Returns a constant, and the statement that uses it.
fn set_name(name: &Name) -> (Option<TokenStream>, TokenStream) {
    let (function, name) = match name {
        Name::Explicit(name) => (quote!(explicit_name), name),
        Name::Default(name) => (quote!(default_name), name),
        Name::Unnamed => return (None, quote!(__sse::unnamed(__frame);)),
    };
    let constant = quote!(const __NAME: __sse::EventName = __sse::event_name(#name););
    (Some(constant), quote!(__sse::#function(__frame, &__NAME);))
}

/// The names that an `EventSource` passes to handlers of its own, if there are any.
fn trap_names<'a>(names: impl IntoIterator<Item = &'a Name>) -> Option<TokenStream> {
    let (mut own, mut default) = (None, None);
    for name in names {
        match name {
            Name::Explicit(name) if name::is_trap(name) => own = own.or(Some(name)),
            Name::Default(name) if name::is_trap(name) => default = default.or(Some(name)),
            _ => {}
        }
    }
    let option = |name: Option<&String>| match name {
        Some(name) => quote!(__sse::Option::Some(#name)),
        None => quote!(__sse::Option::None),
    };
    let (has_any, own, default) = (own.or(default).is_some(), option(own), option(default));
    has_any.then(|| quote!(const TRAPS: __sse::TrapNames = __sse::trap_names(#own, #default);))
}

fn encode_method(body: TokenStream) -> TokenStream {
    quote! {
        fn encode(
            &self,
            __frame: &mut __sse::FrameWriter<'_>,
        ) -> __sse::Result<(), __sse::InvalidEvent> {
            #body
        }
    }
}

fn is_last_method(variants: &[Variant<'_>]) -> Option<TokenStream> {
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

/// The enum for serde to derive from, and the type that hands the event to it.
fn mirror(event: &Event<'_>, mirror: &Mirror) -> TokenStream {
    let Event { ident, generics, bounds, .. } = event;
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
    let Mirror { attributes, variants, .. } = mirror;
    let conditions = where_clause_of(bounds);
    quote! {
        use __sse::Unserialized as _;
        #[derive(__sse::Serialize)]
        #[serde(crate = "__sse::serde", remote = #remote, untagged)]
        #[allow(dead_code)]
        #(#attributes)*
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
    methods: &TokenStream,
) -> TokenStream {
    let (parameters, arguments, _) = generics.split_for_impl();
    let conditions = where_clause_of(bounds);
    quote! {
        #[automatically_derived]
        impl #parameters __sse::SseEvent for #ident #arguments #conditions {
            #methods
        }
    }
}

fn where_clause_of(bounds: &[TokenStream]) -> Option<TokenStream> {
    (!bounds.is_empty()).then(|| quote!(where #(#bounds,)*))
}

/// An anonymous constant, which hides the items' names and is the scope of the lints allowed for them.
fn in_const(krate: Option<&Path>, items: &TokenStream) -> TokenStream {
    let private = private(krate);
    quote! {
        #[allow(deprecated, single_use_lifetimes)]
        const _: () = {
            use #private as __sse;
            #items
        };
    }
}

/// The mistakes, and an event that is never encoded.
pub(super) fn rejected(rejected: &Rejected<'_>) -> TokenStream {
    let Rejected { error, krate, ident, generics, bounds } = rejected;
    let methods = quote! {
        fn encode(
            &self,
            _: &mut __sse::FrameWriter<'_>,
        ) -> __sse::Result<(), __sse::InvalidEvent> {
            __sse::unreachable_event()
        }
    };
    let stub = in_const(*krate, &implementation(ident, generics, bounds, &methods));
    let error = error.to_compile_error();
    quote!(#error #stub)
}
