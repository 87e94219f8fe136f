//! What serde is shown of an enum: the fields of each variant with their `#[serde(..)]`
//! attributes, and nothing that concerns the enum as a whole, such as its tag.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::{
    Attribute, Data, DeriveInput, Field, GenericArgument, Generics, LitStr, Meta, PathArguments,
    Token, Type, parse_quote,
};

use super::bounds::{self, Used};
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
    /// The enum's generics, without the word `Self`.
    pub(super) generics: Generics,
    /// What must hold for the data to be serialized: as serde would have it, unless
    /// `#[serde(bound = "..")]` of the enum says something else; that of variants and fields adds to it.
    pub(super) bounds: Vec<TokenStream>,
    /// Whether that is for us to tell serde: where the user does, serde knows.
    pub(super) tell_bounds: bool,
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
        let written_bounds = bounds::written(&attributes);
        let mut data = Self {
            allowed: allowed(&input.attrs).collect(),
            variants: Vec::new(),
            generics: bounds::generics(input),
            bounds: written_bounds.iter().flatten().map(ToTokens::to_token_stream).collect(),
            tell_bounds: !attributes.iter().any(|meta| meta.path().is_ident("bound")),
            attributes,
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
        variant_that_is_never_sent(&attributes, as_text, errors);
        if as_text {
            // Serde is never asked for it, and need not know how.
            attributes = vec![parse_quote!(skip)];
        }
        self.add_bounds(bounds::written(&attributes).unwrap_or_default());
        variant.attrs = allowed(&variant.attrs).collect();
        variant.discriminant = None;
        let whole = as_text || is_any_of(&attributes, &["serialize_with", "with"]);
        for field in &mut variant.fields {
            let attributes = serde_attributes(&field.attrs, errors);
            self.add_bounds(bounds::written(&attributes).unwrap_or_default());
            let allowed: Vec<_> = allowed(&field.attrs).collect();
            field.attrs.retain(is_serde);
            field.attrs.extend(allowed);
            let ty = bounds::without_self(field.ty.to_token_stream(), input);
            field.ty = syn::parse2(ty.clone()).unwrap_or(Type::Verbatim(ty));
            if !whole && !is_any_of(&attributes, &NOT_SERIALIZED) {
                self.infer_bounds(&field.ty, input);
                if !is_any_of(&attributes, &["flatten", "getter"]) {
                    serialize_as_json(field);
                }
            }
        }
        self.variants.push(VariantData { attributes, variant });
    }

    fn infer_bounds(&mut self, ty: &Type, input: &DeriveInput) {
        if self.tell_bounds {
            let used = Used::in_type(ty, &input.generics);
            self.add_bounds(used.iter().map(|ty| quote!(#ty: __sse::Serialize)));
        }
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

/// What says that serde does not look at a field's type.
const NOT_SERIALIZED: [&str; 4] = ["skip", "skip_serializing", "with", "serialize_with"];

/// Lets a field that cannot be serialized be reported in the kit's words, at its type.
fn serialize_as_json(field: &mut Field) {
    let ty = &field.ty;
    let path = quote!(<#ty as __sse::Json>::serialize).to_string();
    let scalar = matches!(ty, Type::Path(ty) if ty.path.get_ident().is_some_and(crate::is_scalar));
    // `$crate` does not survive as a text.
    if !scalar && !is_option_of_reference(ty) && !path.contains('$') {
        let path = LitStr::new(&path, ty.span());
        field.attrs.push(parse_quote!(#[serde(serialize_with = #path)]));
    }
}

/// Serde would write a reference to it, which clippy cannot bear (`ref_option_ref`).
fn is_option_of_reference(ty: &Type) -> bool {
    let Type::Path(ty) = ty else { return false };
    ty.path.segments.last().is_some_and(|last| match &last.arguments {
        PathArguments::AngleBracketed(of) if last.ident == "Option" => {
            matches!(of.args.first(), Some(GenericArgument::Type(Type::Reference(_))))
        }
        _ => false,
    })
}

/// Serde would refuse it when it is sent, and the stream end.
fn variant_that_is_never_sent(attributes: &[Meta], as_text: bool, errors: &mut Errors) {
    let skip = |meta: &&Meta| is_one_of(meta, &["skip", "skip_serializing"]);
    if let Some(skip) = attributes.iter().find(skip)
        && !as_text
    {
        errors.push(
            skip,
            "an event that is skipped could not be sent, and would end its stream: leave this out, or \
             write it on the fields that are not for the client",
        );
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

fn is_any_of(metas: &[Meta], names: &[&str]) -> bool {
    metas.iter().any(|meta| is_one_of(meta, names))
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
