//! What an enum's type parameters must implement for its data to be serialized, and its generics as the
//! mirror has them.

use proc_macro2::{Group, TokenStream, TokenTree};
use quote::{ToTokens, quote};
use syn::punctuated::Punctuated;
use syn::{
    DeriveInput, Expr, ExprLit, GenericArgument, Generics, Ident, Lit, Meta, PathArguments, Token,
    Type, TypePath, WherePredicate,
};

/// The bounds that serde's own derive would infer from the type of a field: each type parameter in it, and
/// each type that is named through one, must be `Serialize`.
pub(super) fn inferred(ty: &Type, generics: &Generics) -> Vec<TokenStream> {
    let mut search = Search { generics, found: Vec::new() };
    search.visit(ty);
    search.found.into_iter().map(|ty| quote!(#ty: __sse::Serialize)).collect()
}

struct Search<'a> {
    generics: &'a Generics,
    found: Vec<TokenStream>,
}

impl Search<'_> {
    fn visit(&mut self, ty: &Type) {
        match ty {
            Type::Path(path) => self.visit_path(path),
            Type::Reference(ty) => self.visit(&ty.elem),
            Type::Array(ty) => self.visit(&ty.elem),
            Type::Slice(ty) => self.visit(&ty.elem),
            Type::Group(ty) => self.visit(&ty.elem),
            Type::Paren(ty) => self.visit(&ty.elem),
            Type::Tuple(ty) => ty.elems.iter().for_each(|ty| self.visit(ty)),
            _ => {}
        }
    }

    fn visit_path(&mut self, ty: &TypePath) {
        if let Some(own) = &ty.qself {
            self.visit(&own.ty);
        } else if ty.path.segments.first().is_some_and(|first| self.is_parameter(&first.ident)) {
            self.found.push(ty.to_token_stream());
        }
        let before = self.found.len();
        self.visit_arguments(&ty.path);
        // The standard library's is `Serialize` whatever it is of. Asking for the whole type is right for
        // a type of the user's with this name as well.
        let phantom = ty.path.segments.last().is_some_and(|last| last.ident == "PhantomData");
        if phantom && self.found.len() > before {
            self.found.truncate(before);
            self.found.push(ty.to_token_stream());
        }
    }

    fn visit_arguments(&mut self, path: &syn::Path) {
        for segment in &path.segments {
            if let PathArguments::AngleBracketed(arguments) = &segment.arguments {
                for argument in &arguments.args {
                    match argument {
                        GenericArgument::Type(ty) => self.visit(ty),
                        GenericArgument::AssocType(binding) => self.visit(&binding.ty),
                        _ => {}
                    }
                }
            }
        }
    }

    fn is_parameter(&self, ident: &Ident) -> bool {
        self.generics.type_params().any(|parameter| parameter.ident == *ident)
    }
}

/// The predicates of `bound = ".."` or `bound(serialize = "..")`, empty where they do not parse: serde
/// reports that. `None` if nothing is said about `Serialize`.
pub(super) fn written(metas: &[Meta]) -> Option<Vec<WherePredicate>> {
    let bounds = metas.iter().filter(|meta| meta.path().is_ident("bound"));
    bounds.filter_map(for_serialize).next_back()
}

fn for_serialize(bound: &Meta) -> Option<Vec<WherePredicate>> {
    let metas = match bound {
        Meta::NameValue(bound) => return Some(predicates(&bound.value)),
        Meta::List(list) => list
            .parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated)
            .unwrap_or_default(),
        Meta::Path(_) => return None,
    };
    metas.iter().find_map(|meta| match meta {
        Meta::NameValue(bound) if bound.path.is_ident("serialize") => {
            Some(predicates(&bound.value))
        }
        _ => None,
    })
}

fn predicates(bound: &Expr) -> Vec<WherePredicate> {
    let Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) = bound else { return Vec::new() };
    let parser = Punctuated::<WherePredicate, Token![,]>::parse_terminated;
    text.parse_with(parser).map(|parsed| parsed.into_iter().collect()).unwrap_or_default()
}

/// The generics in a form that is valid on another type.
pub(super) fn generics(input: &DeriveInput) -> Generics {
    let mut generics = input.generics.clone();
    for parameter in &mut generics.params {
        let written = without_self(parameter.to_token_stream(), input);
        *parameter = syn::parse2(written).unwrap_or_else(|_| parameter.clone());
    }
    generics.where_clause = generics
        .where_clause
        .map(|clause| syn::parse2(without_self(clause.to_token_stream(), input)).unwrap_or(clause));
    generics
}

/// Replaces `Self` by the type itself: in the mirror it would be the mirror.
pub(super) fn without_self(tokens: TokenStream, input: &DeriveInput) -> TokenStream {
    let (ident, (_, arguments, _)) = (&input.ident, input.generics.split_for_impl());
    let replace = |tree: TokenTree| match tree {
        TokenTree::Ident(word) if word == "Self" => quote!(#ident #arguments),
        TokenTree::Group(group) => {
            let stream = without_self(group.stream(), input);
            let mut inner = Group::new(group.delimiter(), stream);
            inner.set_span(group.span());
            TokenTree::Group(inner).into()
        }
        other => other.into(),
    };
    tokens.into_iter().map(replace).collect()
}
