//! The rules of an endpoint's function, one each, and what can be read off its types.

use proc_macro2::{Delimiter, Span, TokenStream, TokenTree};
use quote::ToTokens;
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::{
    AngleBracketedGenericArguments, FnArg, GenericArgument, GenericParam, PathArguments,
    ReturnType, Safety, Signature, Token, Type, TypeParamBound,
};

use super::parse::Declaration;
use crate::attr::Entries;
use crate::errors::Errors;
use crate::route;

/// axum's limit for a handler.
const MOST_ARGUMENTS: usize = 16;
/// What axum has to read a body with.
const BODIES: [&str; 6] = ["Json", "Form", "Bytes", "String", "Multipart", "RawForm"];

pub(super) fn check(declaration: &Declaration, path: &str, errors: &mut Errors) {
    let signature = &declaration.function.signature;
    not_async(signature, errors);
    unsafe_function(signature, errors);
    extern_function(signature, errors);
    generic_function(signature, errors);
    self_receiver(signature, errors);
    too_many_arguments(signature, errors);
    condition_on_argument(signature, errors);
    impl_trait_argument(signature, errors);
    borrowed_argument(signature, errors);
    plain_value_argument(signature, errors);
    principal_on_public(declaration, errors);
    path_extractor_that_does_not_fit(signature, path, errors);
    body_without_post(declaration, errors);
    body_before_the_end(declaration, errors);
    no_return_type(signature, errors);
}

/// Whether the method is `POST`.
pub(super) fn is_post(entries: &Entries) -> bool {
    entries.text("method").is_some_and(|method| method.value() == "post")
}

/// The types of the arguments, without the invisible brackets that `macro_rules` puts around them.
pub(super) fn argument_types(signature: &Signature) -> impl Iterator<Item = &Type> {
    signature.inputs.iter().filter_map(|argument| match argument {
        FnArg::Typed(argument) => Some(bare(&argument.ty)),
        FnArg::Receiver(_) => None,
    })
}

/// Where the return type begins.
pub(super) fn returns(signature: &Signature) -> Span {
    match &signature.output {
        ReturnType::Type(_, ty) => ty.span(),
        ReturnType::Default => signature.ident.span(),
    }
}

/// What the stream yields, where the return type says: `impl Stream<Item = ..>`, one in a box or in
/// a `Result`.
pub(super) fn item(signature: &Signature) -> Option<&Type> {
    match &signature.output {
        ReturnType::Type(_, ty) => item_of(ty),
        ReturnType::Default => None,
    }
}

/// Whether a type can be written anywhere: it leaves nothing open.
pub(super) fn is_concrete(ty: &Type) -> bool {
    let open =
        |tree: &TokenTree, _: Option<&TokenTree>| is_ident(tree, "impl") || is_ident(tree, "_");
    matches!(bare(ty), Type::Path(_) | Type::Tuple(_)) && find(ty.to_token_stream(), open).is_none()
}

fn item_of(ty: &Type) -> Option<&Type> {
    match bare(ty) {
        Type::ImplTrait(ty) => item_of_bounds(&ty.bounds),
        Type::TraitObject(ty) => item_of_bounds(&ty.bounds),
        ty => match named(ty)? {
            (name, types) if ["Result", "Pin", "Box"].contains(&&*name) => item_of(types.first()?),
            _ => None,
        },
    }
}

fn item_of_bounds(bounds: &Punctuated<TypeParamBound, Token![+]>) -> Option<&Type> {
    let streams = bounds.iter().filter_map(|bound| match bound {
        TypeParamBound::Trait(bound) => {
            let stream = bound.path.segments.last().is_some_and(|last| last.ident == "Stream");
            arguments_of(&bound.path).filter(|_| stream)
        }
        _ => None,
    });
    streams.flat_map(|arguments| &arguments.args).find_map(|argument| match argument {
        GenericArgument::AssocType(binding) if binding.ident == "Item" => Some(bare(&binding.ty)),
        _ => None,
    })
}

fn arguments_of(path: &syn::Path) -> Option<&AngleBracketedGenericArguments> {
    match &path.segments.last()?.arguments {
        PathArguments::AngleBracketed(arguments) => Some(arguments),
        _ => None,
    }
}

fn bare(ty: &Type) -> &Type {
    match ty {
        Type::Group(group) => bare(&group.elem),
        Type::Paren(paren) => bare(&paren.elem),
        ty => ty,
    }
}

/// The last word of a type's path, and its arguments.
fn named(ty: &Type) -> Option<(String, Vec<&Type>)> {
    let Type::Path(path) = bare(ty) else { return None };
    let arguments = arguments_of(&path.path).into_iter().flat_map(|arguments| &arguments.args);
    let types = arguments.filter_map(|argument| match argument {
        GenericArgument::Type(ty) => Some(bare(ty)),
        _ => None,
    });
    Some((path.path.segments.last()?.ident.to_string(), types.collect()))
}

/// `Option<T>` and `Result<T, _>` are as `T` to most rules.
fn named_within(ty: &Type) -> Option<(String, Vec<&Type>)> {
    let (name, types) = named(ty)?;
    match types.as_slice() {
        [inner] if name == "Option" => named(inner),
        [inner, _] if name == "Result" => named(inner),
        _ => Some((name, types)),
    }
}

fn not_async(signature: &Signature, errors: &mut Errors) {
    if signature.asyncness.is_none() {
        errors.push(signature.fn_token, "an endpoint is asynchronous: write `async fn`");
    }
}

fn unsafe_function(signature: &Signature, errors: &mut Errors) {
    if let Safety::Unsafe(token) = &signature.safety {
        errors.push(token, "an endpoint is called by safe code: leave out `unsafe`");
    }
}

fn extern_function(signature: &Signature, errors: &mut Errors) {
    if let Some(abi) = &signature.abi {
        errors.push(abi, "an endpoint is called from Rust: leave out `extern`");
    }
}

fn generic_function(signature: &Signature, errors: &mut Errors) {
    if let Some(parameter) = signature.generics.params.first() {
        let parameter: &dyn ToTokens = match parameter {
            GenericParam::Lifetime(lifetime) => &lifetime.lifetime,
            GenericParam::Type(parameter) => &parameter.ident,
            GenericParam::Const(parameter) => &parameter.ident,
        };
        errors.push(
            parameter,
            "an endpoint cannot be generic: write concrete types, or hand the generic function to \
             the builder, `sse.endpoint(\"/path\").handler(..)`",
        );
    }
}

fn self_receiver(signature: &Signature, errors: &mut Errors) {
    if let Some(receiver) = signature.receiver() {
        errors.push(
            receiver,
            "an endpoint is a free function: move it out of the `impl` and take what it needs from \
             an extractor such as `State`",
        );
    }
}

fn too_many_arguments(signature: &Signature, errors: &mut Errors) {
    if let Some(argument) = signature.inputs.iter().nth(MOST_ARGUMENTS) {
        errors.push(
            argument,
            format!(
                "an endpoint takes at most {MOST_ARGUMENTS} arguments: gather some in a type that \
                 derives `FromRequestParts`"
            ),
        );
    }
}

/// One that could take the argument away: its type stands in the expansion as well.
fn condition_on_argument(signature: &Signature, errors: &mut Errors) {
    for argument in &signature.inputs {
        let (FnArg::Typed(syn::PatType { attrs, .. })
        | FnArg::Receiver(syn::Receiver { attrs, .. })) = argument;
        let condition = |attribute: &&syn::Attribute| {
            attribute.path().is_ident("cfg") || attribute.path().is_ident("cfg_attr")
        };
        if let Some(attribute) = attrs.iter().find(condition) {
            errors.push(
                attribute,
                "an argument of an endpoint is there always: leave this out, or write it on a second \
                 endpoint",
            );
        }
    }
}

fn impl_trait_argument(signature: &Signature, errors: &mut Errors) {
    for ty in argument_types(signature) {
        if let Some(token) = find(ty.to_token_stream(), |tree, _| is_ident(tree, "impl")) {
            errors.push(
                token,
                "`impl Trait` would make the endpoint generic: write the concrete type",
            );
        }
    }
}

/// A named lifetime is a generic's, and reported there.
fn borrowed_argument(signature: &Signature, errors: &mut Errors) {
    let borrow = |tree: &TokenTree, next: Option<&TokenTree>| match tree {
        TokenTree::Punct(punct) if punct.as_char() == '&' => !next.is_some_and(is_quote),
        TokenTree::Punct(punct) if punct.as_char() == '\'' => {
            next.is_some_and(|next| is_ident(next, "_"))
        }
        _ => false,
    };
    for ty in argument_types(signature) {
        if let Some(token) = find(ty.to_token_stream(), borrow) {
            errors.push(
                token,
                "an endpoint owns its arguments, as its stream outlives the request: write an \
                 owned type, such as `String` for `&str`",
            );
        }
    }
}

fn principal_on_public(declaration: &Declaration, errors: &mut Errors) {
    if declaration.entries.key("public").is_none() {
        return;
    }
    for ty in argument_types(&declaration.function.signature) {
        if named(ty).is_some_and(|(name, _)| name == "Principal") {
            errors.push(
                ty,
                "a caller of a public endpoint may have no token, so there may be no principal: \
                 write `Option<Principal>`",
            );
        }
    }
}

fn no_return_type(signature: &Signature, errors: &mut Errors) {
    if let ReturnType::Default = signature.output {
        errors.push(
            &signature.ident,
            "an endpoint returns its events: write `-> impl Stream<Item = Usage>`, or a `Result` \
             of one",
        );
    }
}

/// The value itself, where an extractor should stand.
fn plain_value_argument(signature: &Signature, errors: &mut Errors) {
    for ty in argument_types(signature) {
        if let Type::Path(path) = ty
            && let Some(name) = path.path.get_ident()
            && (name == "str" || crate::is_scalar(name))
        {
            errors.push(
                ty,
                format!(
                    "nobody knows where in the request this `{name}` is: write `Path(value): Path<{name}>` \
                     for a capture of the path, or `Query`"
                ),
            );
        }
    }
}

/// Captures are taken by place, unless the type is one with names. A prefix with captures would
/// shift the places, so they must fit the path that stands here.
fn path_extractor_that_does_not_fit(signature: &Signature, path: &str, errors: &mut Errors) {
    let captures = route::captures(path);
    for (ty, places) in paths(signature) {
        if places != captures.len() {
            let wanted = match places {
                1 => "one capture".to_owned(),
                several => format!("{several} captures"),
            };
            let (found, cure) = match captures.as_slice() {
                [] => ("none".to_owned(), "write them there, such as `{id}`"),
                several => {
                    (format!("`{}`", several.join("`, `")), "take them all, each by its place")
                }
            };
            errors.push(
                ty,
                format!(
                    "this takes {wanted} by place, and the path has {found}: {cure}, or name them in a \
                     struct, which can also take those of a prefix"
                ),
            );
        }
    }
}

/// How many captures the function takes by place, if it does.
pub(super) fn path_places(signature: &Signature) -> Option<usize> {
    paths(signature).map(|(_, places)| places).next()
}

/// The extractors that take captures by place.
fn paths(signature: &Signature) -> impl Iterator<Item = (&Type, usize)> {
    argument_types(signature).filter_map(|ty| match named_within(ty)? {
        (name, types) if name == "Path" => match types.as_slice() {
            [of] => Some((ty, places(of)?)),
            _ => None,
        },
        _ => None,
    })
}

/// How many captures a type takes by place, where that shows.
fn places(ty: &Type) -> Option<usize> {
    match ty {
        Type::Tuple(tuple) => Some(tuple.elems.len()).filter(|places| *places > 0),
        Type::Path(path) => {
            let name = &path.path.segments.last()?.ident;
            (name == "String" || crate::is_scalar(name)).then_some(1)
        }
        _ => None,
    }
}

fn body_without_post(declaration: &Declaration, errors: &mut Errors) {
    if is_post(&declaration.entries) {
        return;
    }
    for (ty, name) in bodies(&declaration.function.signature) {
        errors.push(
            ty,
            format!(
                "`{name}` reads the request's body, and a GET has none: write `method = \"post\"`, or \
                 take it from the path with `Path` or from the query with `Query`"
            ),
        );
    }
}

fn body_before_the_end(declaration: &Declaration, errors: &mut Errors) {
    let signature = &declaration.function.signature;
    if !is_post(&declaration.entries) {
        return;
    }
    let last = argument_types(signature).last();
    for (ty, name) in bodies(signature) {
        if last.is_some_and(|last| !std::ptr::eq(last, ty)) {
            errors.push(
                ty,
                format!(
                    "a body can be read once, after all else: write this `{name}` as the last argument, \
                     and as the only one of its kind"
                ),
            );
        }
    }
}

/// The arguments that read a body, as far as their names tell.
fn bodies(signature: &Signature) -> impl Iterator<Item = (&Type, String)> {
    argument_types(signature).filter_map(|ty| {
        let (name, _) = named_within(ty)?;
        BODIES.contains(&name.as_str()).then_some((ty, name))
    })
}

/// The first token for which the test holds, given the token behind it. Does not look inside braces,
/// which hold an expression, nor at the type of a function up to what it returns: its arguments are
/// not the endpoint's, and what it returns may borrow from them.
fn find(
    tokens: TokenStream,
    test: impl Fn(&TokenTree, Option<&TokenTree>) -> bool + Copy,
) -> Option<TokenTree> {
    let mut trees = tokens.into_iter().peekable();
    let mut of_function = false;
    while let Some(tree) = trees.next() {
        if of_function && is_group(&tree, Delimiter::Parenthesis) {
            // The arrow, and the mark of a borrow.
            while trees
                .next_if(|next| matches!(next, TokenTree::Punct(_)) && !is_comma(next))
                .is_some()
            {}
            of_function = false;
            continue;
        }
        if test(&tree, trees.peek()) {
            return Some(tree);
        }
        if let TokenTree::Group(group) = &tree
            && group.delimiter() != Delimiter::Brace
            && let Some(found) = find(group.stream(), test)
        {
            return Some(found);
        }
        of_function = ["fn", "Fn", "FnMut", "FnOnce"].iter().any(|name| is_ident(&tree, name));
    }
    None
}

fn is_group(tree: &TokenTree, delimiter: Delimiter) -> bool {
    matches!(tree, TokenTree::Group(group) if group.delimiter() == delimiter)
}

fn is_comma(tree: &TokenTree) -> bool {
    matches!(tree, TokenTree::Punct(punct) if punct.as_char() == ',')
}

fn is_ident(tree: &TokenTree, name: &str) -> bool {
    matches!(tree, TokenTree::Ident(ident) if *ident == name)
}

fn is_quote(tree: &TokenTree) -> bool {
    matches!(tree, TokenTree::Punct(punct) if punct.as_char() == '\'')
}
