//! What must hold of an enum's parameters for its data to be serialized, and its generics as they
//! stand on the mirror.

use proc_macro2::{Group, TokenStream, TokenTree};
use quote::{ToTokens, quote};
use syn::punctuated::Punctuated;
use syn::{
    DeriveInput, Expr, ExprLit, GenericArgument, Generics, Ident, Lit, Meta, PathArguments, Token,
    Type, WherePredicate,
};

/// The parameters, and types named through them, of which something is serialized: what serde's own
/// derive would ask to be `Serialize`.
pub(super) struct Used<'a> {
    of: &'a Generics,
    found: Vec<TokenStream>,
}

impl<'a> Used<'a> {
    /// Those that stand in a type.
    pub(super) fn in_type(ty: &Type, of: &'a Generics) -> Vec<TokenStream> {
        let mut used = Self { of, found: Vec::new() };
        used.look_at(ty);
        used.found
    }

    fn look_at(&mut self, ty: &Type) {
        match ty {
            Type::Path(ty) => {
                if let Some(own) = &ty.qself {
                    self.look_at(&own.ty);
                } else if ty
                    .path
                    .segments
                    .first()
                    .is_some_and(|first| self.is_parameter(&first.ident))
                {
                    self.found.push(ty.to_token_stream());
                }
                if ty.path.segments.last().is_some_and(|last| last.ident != "PhantomData") {
                    self.look_into(&ty.path);
                }
            }
            Type::Reference(ty) => self.look_at(&ty.elem),
            Type::Array(ty) => self.look_at(&ty.elem),
            Type::Slice(ty) => self.look_at(&ty.elem),
            Type::Group(ty) => self.look_at(&ty.elem),
            Type::Paren(ty) => self.look_at(&ty.elem),
            Type::Tuple(ty) => ty.elems.iter().for_each(|ty| self.look_at(ty)),
            _ => {}
        }
    }

    fn look_into(&mut self, path: &syn::Path) {
        for segment in &path.segments {
            if let PathArguments::AngleBracketed(arguments) = &segment.arguments {
                for argument in &arguments.args {
                    match argument {
                        GenericArgument::Type(ty) => self.look_at(ty),
                        GenericArgument::AssocType(binding) => self.look_at(&binding.ty),
                        _ => {}
                    }
                }
            }
        }
    }

    fn is_parameter(&self, ident: &Ident) -> bool {
        self.of.type_params().any(|parameter| parameter.ident == *ident)
    }
}

/// `bound = ".."`, or `bound(serialize = "..")`. What does not parse is serde's to report.
pub(super) fn written(metas: &[Meta]) -> Option<Vec<WherePredicate>> {
    let mut found = None;
    for meta in metas.iter().filter(|meta| meta.path().is_ident("bound")) {
        let predicates = match meta {
            Meta::NameValue(bound) => predicates(&bound.value),
            Meta::List(list) => list
                .parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated)
                .unwrap_or_default()
                .iter()
                .find_map(|meta| match meta {
                    Meta::NameValue(bound) if bound.path.is_ident("serialize") => {
                        predicates(&bound.value)
                    }
                    _ => None,
                }),
            Meta::Path(_) => None,
        };
        found = predicates.or(found);
    }
    found
}

fn predicates(bound: &Expr) -> Option<Vec<WherePredicate>> {
    let Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) = bound else {
        return None;
    };
    let parser = Punctuated::<WherePredicate, Token![,]>::parse_terminated;
    Some(text.parse_with(parser).ok()?.into_iter().collect())
}

/// The generics, as they can stand on another type.
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

/// `Self` is another type in the mirror.
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
