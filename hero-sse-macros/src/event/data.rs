//! What serde is shown of an enum: the fields of each variant with their `#[serde(..)]`
//! attributes, and nothing that concerns the enum as a whole, such as its tag.

use proc_macro2::{Group, TokenStream, TokenTree};
use quote::{ToTokens, quote};
use syn::punctuated::Punctuated;
use syn::{
    Attribute, Data, DeriveInput, Expr, ExprLit, Lit, Meta, Token, Type, WherePredicate,
    parse_quote,
};

use crate::attr;
use crate::errors::Errors;

/// What is said about an enum and still holds for the fields of its variants.
const OF_ENUM: [&str; 2] = ["rename_all_fields", "bound"];
/// What else serde reads on an enum: it does not concern the fields.
const NOT_OF_ENUM: [&str; 16] = [
    "rename",
    "rename_all",
    "deny_unknown_fields",
    "tag",
    "content",
    "untagged",
    "default",
    "remote",
    "transparent",
    "from",
    "try_from",
    "into",
    "crate",
    "expecting",
    "variant_identifier",
    "field_identifier",
];
/// What is said about a variant and does not concern its fields.
const NOT_OF_VARIANT: [&str; 4] = ["rename", "alias", "other", "untagged"];

pub(super) struct EnumData {
    /// What the user allows on the enum.
    pub(super) allowed: Vec<Attribute>,
    pub(super) attributes: Vec<Meta>,
    pub(super) variants: Vec<VariantData>,
    /// `#[serde(bound = "..")]` of the enum: it replaces the usual bounds.
    pub(super) bounds: Option<Vec<WherePredicate>>,
    /// That of variants and fields: it adds to them.
    pub(super) inner_bounds: Vec<WherePredicate>,
}

pub(super) struct VariantData {
    pub(super) attributes: Vec<Meta>,
    /// Without discriminant and attributes but for the lints it allows; its fields keep what serde
    /// reads as well.
    pub(super) variant: syn::Variant,
}

impl EnumData {
    /// Of an enum whose variants are sent as text, or not.
    pub(super) fn of(
        input: &DeriveInput,
        as_text: impl Iterator<Item = bool>,
        errors: &mut Errors,
    ) -> Self {
        let mut attributes = serde_attributes(&input.attrs, errors);
        for meta in &attributes {
            unknown_serde_key(meta, errors);
        }
        attributes.retain(|meta| is_one_of(meta, &OF_ENUM));
        let mut data = Self {
            allowed: allowed(&input.attrs).collect(),
            bounds: bounds(&attributes),
            attributes,
            variants: Vec::new(),
            inner_bounds: Vec::new(),
        };
        if let Data::Enum(written) = &input.data {
            for (variant, as_text) in written.variants.iter().zip(as_text) {
                data.add(variant.clone(), as_text, input, errors);
            }
        }
        data
    }

    fn add(
        &mut self,
        mut variant: syn::Variant,
        as_text: bool,
        input: &DeriveInput,
        errors: &mut Errors,
    ) {
        let mut attributes = serde_attributes(&variant.attrs, errors);
        attributes.retain(|meta| !is_one_of(meta, &NOT_OF_VARIANT));
        if as_text {
            // Serde is never asked for it, and need not know how.
            attributes = vec![parse_quote!(skip)];
        }
        self.inner_bounds.extend(bounds(&attributes).unwrap_or_default());
        variant.attrs = allowed(&variant.attrs).collect();
        variant.discriminant = None;
        for field in &mut variant.fields {
            let attributes = serde_attributes(&field.attrs, errors);
            self.inner_bounds.extend(bounds(&attributes).unwrap_or_default());
            let allowed: Vec<_> = allowed(&field.attrs).collect();
            field.attrs.retain(is_serde);
            field.attrs.extend(allowed);
            let ty = without_self(field.ty.to_token_stream(), input);
            field.ty = syn::parse2(ty.clone()).unwrap_or(Type::Verbatim(ty));
        }
        self.variants.push(VariantData { attributes, variant });
    }
}

/// Serde never sees what is said about the enum, unless the enum is `Serialize` besides.
fn unknown_serde_key(meta: &Meta, errors: &mut Errors) {
    if !is_one_of(meta, &OF_ENUM) && !is_one_of(meta, &NOT_OF_ENUM) {
        let key = attr::plain(meta.path().to_token_stream());
        let guess = attr::guess(&key, OF_ENUM.into_iter().chain(NOT_OF_ENUM));
        errors.push(meta.path(), format!("serde knows no key `{key}` on an enum{guess}"));
    }
}

fn is_one_of(meta: &Meta, names: &[&str]) -> bool {
    names.iter().any(|name| meta.path().is_ident(name))
}

/// The lints that are allowed where the user wrote the enum, and so where it is written again.
fn allowed(attributes: &[Attribute]) -> impl Iterator<Item = Attribute> {
    attributes.iter().filter_map(|attribute| match &attribute.meta {
        Meta::List(list) if list.path.is_ident("allow") || list.path.is_ident("expect") => {
            let lints = &list.tokens;
            Some(parse_quote!(#[allow(#lints)]))
        }
        _ => None,
    })
}

pub(super) fn is_serde(attribute: &Attribute) -> bool {
    attribute.path().is_ident("serde")
}

fn serde_attributes(attributes: &[Attribute], errors: &mut Errors) -> Vec<Meta> {
    let mut metas = Vec::new();
    for attribute in attributes.iter().filter(|attribute| is_serde(attribute)) {
        match attribute.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated) {
            Ok(list) => metas.extend(list),
            Err(error) => errors.add(error),
        }
    }
    metas
}

/// `bound = ".."`, or `bound(serialize = "..")`. What does not parse is serde's to report.
fn bounds(metas: &[Meta]) -> Option<Vec<WherePredicate>> {
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

/// `Self` is another type in the mirror.
fn without_self(tokens: TokenStream, input: &DeriveInput) -> TokenStream {
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
