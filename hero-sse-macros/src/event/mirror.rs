//! The enum that serde derives from in place of the user's: the fields of each variant with their
//! `#[serde(..)]` attributes, and nothing that concerns the enum as a whole, such as its tag.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::{
    Attribute, Data, DeriveInput, Field, GenericArgument, Generics, LitStr, Meta, PathArguments,
    Token, Type, parse_quote,
};

use super::bounds;

/// Keys on an enum that do not concern the fields of its variants. Every other key goes to serde,
/// which reports those it does not know.
const ENUM_ONLY: [&str; 16] = [
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
/// Keys on a variant that do not concern its fields.
const VARIANT_ONLY: [&str; 4] = ["rename", "alias", "other", "untagged"];
/// Keys that keep serde from serializing a field through its type.
const NOT_THROUGH_ITS_TYPE: [&str; 4] = ["skip", "skip_serializing", "with", "serialize_with"];

pub(super) struct Mirror {
    /// The lints that the user allows on the enum, and the attributes for serde.
    pub(super) attributes: Vec<Attribute>,
    /// The variants, each with the attributes that serde and the compiler need, and no others.
    pub(super) variants: Vec<syn::Variant>,
    /// The enum's generics, without the word `Self`.
    pub(super) generics: Generics,
    /// What must hold for the data to be serialized. Same as serde's own derive would ask for, or what
    /// the enum's `#[serde(bound = "..")]` says; bounds of variants and fields add to it.
    pub(super) bounds: Vec<TokenStream>,
}

impl Mirror {
    /// The mirror of an enum. `as_text` says for each variant whether it is sent as text.
    pub(super) fn of(input: &DeriveInput, as_text: Vec<bool>) -> Self {
        let metas = serde_metas(&input.attrs);
        let written = bounds::written(&metas);
        let mut mirror = Self {
            attributes: allowed_lints(&input.attrs).collect(),
            variants: Vec::new(),
            generics: bounds::generics(input),
            bounds: written.iter().flatten().map(ToTokens::to_token_stream).collect(),
        };
        let infers_bounds = written.is_none();
        for (variant, as_text) in variants(input).zip(as_text) {
            mirror.add(variant.clone(), as_text, infers_bounds, input);
        }
        mirror.attributes.extend(for_serde(&input.attrs, &ENUM_ONLY));
        if infers_bounds && !mirror.generics.params.is_empty() {
            // Written even if empty: otherwise serde would infer bounds of its own.
            let bounds = &mirror.bounds;
            let bound = quote!(#(#bounds),*).to_string();
            mirror.attributes.push(parse_quote!(#[serde(bound(serialize = #bound))]));
        }
        mirror
    }

    fn add(
        &mut self,
        mut variant: syn::Variant,
        as_text: bool,
        infers_bounds: bool,
        input: &DeriveInput,
    ) {
        let mut attributes: Vec<_> = allowed_lints(&variant.attrs).collect();
        let metas = if as_text {
            // Serde never serializes it, and need not be able to.
            attributes.push(parse_quote!(#[serde(skip)]));
            Vec::new()
        } else {
            attributes.extend(for_serde(&variant.attrs, &VARIANT_ONLY));
            serde_metas(&variant.attrs)
        };
        self.add_bounds(bounds::written(&metas).unwrap_or_default());
        variant.attrs = attributes;
        variant.discriminant = None;
        let as_a_whole = as_text || has_key(&metas, &["serialize_with", "with"]);
        for field in &mut variant.fields {
            let metas = serde_metas(&field.attrs);
            self.add_bounds(bounds::written(&metas).unwrap_or_default());
            let allowed: Vec<_> = allowed_lints(&field.attrs).collect();
            field.attrs.retain(is_serde);
            field.attrs.extend(allowed);
            let ty = bounds::without_self(field.ty.to_token_stream(), input);
            field.ty = syn::parse2(ty.clone()).unwrap_or(Type::Verbatim(ty));
            if !as_a_whole && !has_key(&metas, &NOT_THROUGH_ITS_TYPE) {
                if infers_bounds {
                    self.add_bounds(bounds::inferred(&field.ty, &input.generics));
                }
                if !has_key(&metas, &["flatten", "getter"]) {
                    serialize_as_json(field);
                }
            }
        }
        self.variants.push(variant);
    }

    fn add_bounds(&mut self, bounds: impl IntoIterator<Item: ToTokens>) {
        for bound in bounds {
            let bound = bound.to_token_stream();
            if !self.bounds.iter().any(|other| other.to_string() == bound.to_string()) {
                self.bounds.push(bound);
            }
        }
    }
}

fn variants(input: &DeriveInput) -> impl Iterator<Item = &syn::Variant> {
    match &input.data {
        Data::Enum(data) => Some(&data.variants),
        _ => None,
    }
    .into_iter()
    .flatten()
}

/// Makes the compiler report a field that cannot be serialized in hero-sse's words, at its type.
fn serialize_as_json(field: &mut Field) {
    let ty = &field.ty;
    let path = quote!(<#ty as __sse::Json>::serialize).to_string();
    let scalar = matches!(ty, Type::Path(ty) if ty.path.get_ident().is_some_and(crate::is_scalar));
    // `$crate` is lost in a string.
    if !scalar && !is_option_of_reference(ty) && !path.contains('$') {
        let path = LitStr::new(&path, ty.span());
        field.attrs.push(parse_quote!(#[serde(serialize_with = #path)]));
    }
}

/// For such a field serde writes a `&Option<&T>`, against which clippy has a lint (`ref_option_ref`).
fn is_option_of_reference(ty: &Type) -> bool {
    let Type::Path(ty) = ty else { return false };
    ty.path.segments.last().is_some_and(|last| match &last.arguments {
        PathArguments::AngleBracketed(of) if last.ident == "Option" => {
            matches!(of.args.first(), Some(GenericArgument::Type(Type::Reference(_))))
        }
        _ => false,
    })
}

/// The `#[serde(..)]` attributes without these keys. One that is no list of keys stays as it is: serde
/// reports it.
fn for_serde(attributes: &[Attribute], without: &[&str]) -> Vec<Attribute> {
    let attributes = attributes.iter().filter(|attribute| is_serde(attribute));
    let kept = attributes.filter_map(|attribute| match metas(attribute) {
        Some(metas) => {
            let metas: Vec<_> =
                metas.into_iter().filter(|meta| !is_one_of(meta, without)).collect();
            (!metas.is_empty()).then(|| parse_quote!(#[serde(#(#metas),*)]))
        }
        None => Some(attribute.clone()),
    });
    kept.collect()
}

/// Everything that the `#[serde(..)]` attributes say.
pub(super) fn serde_metas(attributes: &[Attribute]) -> Vec<Meta> {
    attributes.iter().filter(|attribute| is_serde(attribute)).filter_map(metas).flatten().collect()
}

fn metas(attribute: &Attribute) -> Option<Vec<Meta>> {
    let parser = Punctuated::<Meta, Token![,]>::parse_terminated;
    attribute.parse_args_with(parser).ok().map(|metas| metas.into_iter().collect())
}

fn is_serde(attribute: &Attribute) -> bool {
    attribute.path().is_ident("serde")
}

fn has_key(metas: &[Meta], names: &[&str]) -> bool {
    metas.iter().any(|meta| is_one_of(meta, names))
}

pub(super) fn is_one_of(meta: &Meta, names: &[&str]) -> bool {
    names.iter().any(|name| meta.path().is_ident(name))
}

/// The lints that the user allows where the enum is written, to be allowed in the mirror, too.
fn allowed_lints(attributes: &[Attribute]) -> impl Iterator<Item = Attribute> {
    attributes.iter().filter_map(|attribute| match &attribute.meta {
        Meta::List(list) if list.path.is_ident("allow") || list.path.is_ident("expect") => {
            let lints = &list.tokens;
            Some(parse_quote!(#[allow(#lints)]))
        }
        _ => None,
    })
}
