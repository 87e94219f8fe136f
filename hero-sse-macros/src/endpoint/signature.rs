//! The rules of an endpoint's function, one each, and what its types say.
//!
//! A macro knows a type by its name alone, and a user's own type may have the same name. A name is
//! therefore only a reason to ask: the rules of types return an [`Assertion`], which the compiler decides.

use proc_macro2::{Delimiter, Span, TokenStream, TokenTree};
use quote::{ToTokens, quote};
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::{
    AngleBracketedGenericArguments, FnArg, GenericArgument, GenericParam, PathArguments,
    ReturnType, Safety, Signature, Token, Type, TypeParamBound,
};

use super::model::{Argument, Assertion, Condition};
use super::parse::Declaration;
use crate::attr::Entries;
use crate::errors::Errors;
use crate::route;

/// axum's limit for a handler.
const MAX_ARGUMENTS: usize = 16;
/// The names of axum's extractors that read a body.
const BODIES: [&str; 6] = ["Json", "Form", "Bytes", "String", "Multipart", "RawForm"];

pub(super) fn check(declaration: &Declaration, errors: &mut Errors) {
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
    no_return_type(signature, errors);
}

/// The arguments that are read from the request's head, and the last one of a `POST`.
pub(super) fn arguments(
    declaration: &Declaration,
    path: &str,
) -> (Vec<Argument>, Option<Argument>) {
    let types = argument_types(&declaration.function.signature);
    let mut arguments: Vec<_> =
        types.map(|ty| Argument { ty: ty.clone(), assertions: Vec::new() }).collect();
    let mut body = is_post(&declaration.entries).then(|| arguments.pop()).flatten();
    for argument in &mut arguments {
        let ty = &argument.ty;
        let of_head = [plain_value_argument(ty), unexpected_body(ty, declaration)];
        let of_all = [principal_on_public(ty, declaration), captures(ty, path)];
        argument.assertions = of_head.into_iter().chain(of_all).flatten().collect();
    }
    if let Some(Argument { ty, assertions }) = &mut body {
        let of_all = [principal_on_public(ty, declaration), captures(ty, path)];
        *assertions = of_all.into_iter().flatten().collect();
    }
    (arguments, body)
}

fn unexpected_body(ty: &Type, declaration: &Declaration) -> Option<Assertion> {
    if is_post(&declaration.entries) { body_before_the_end(ty) } else { body_without_post(ty) }
}

fn captures(ty: &Type, path: &str) -> Option<Assertion> {
    match route::captures(path).as_slice() {
        [] => path_extractor_without_captures(ty),
        captures => path_extractor_that_does_not_fit(ty, captures),
    }
}

/// Whether the method is `POST`.
pub(super) fn is_post(entries: &Entries) -> bool {
    entries.text("method").is_some_and(|method| method.value() == "post")
}

/// The span of the return type.
pub(super) fn returns(signature: &Signature) -> Span {
    match &signature.output {
        ReturnType::Type(_, ty) => ty.span(),
        ReturnType::Default => signature.ident.span(),
    }
}

/// The span of the stream's item where the return type shows it, otherwise of the return type.
pub(super) fn item(signature: &Signature) -> Span {
    let item = match &signature.output {
        ReturnType::Type(_, ty) => item_of(ty),
        ReturnType::Default => None,
    };
    item.map_or(returns(signature), Spanned::span)
}

/// The return type, with a type that can be named for an `impl Stream<Item = ..>`. `None` where that is not
/// possible.
pub(super) fn returned(signature: &Signature) -> Option<TokenStream> {
    match &signature.output {
        ReturnType::Type(_, ty) => nameable(ty),
        ReturnType::Default => None,
    }
}

fn nameable(ty: &Type) -> Option<TokenStream> {
    let open = |tree: &TokenTree, _: Option<&TokenTree>| {
        // A macro could hide an `impl`.
        is_ident(tree, "impl") || is_ident(tree, "_") || is_punct(tree, '!')
    };
    let written = with_streams_named(ty);
    let sized = matches!(stream_of(ty), Type::ImplTrait(_) | Type::Path(_));
    (sized && find(written.clone(), open).is_none()).then_some(written)
}

/// The type without the parts of the response's head that come before the stream in a tuple.
fn stream_of(ty: &Type) -> &Type {
    match bare(ty) {
        Type::Tuple(tuple) => tuple.elems.last().map_or(ty, bare),
        ty => ty,
    }
}

/// Whether the return type shows headers that come with the stream.
pub(super) fn is_headed(signature: &Signature) -> bool {
    fn shows_headers(ty: &Type) -> bool {
        match (bare(ty), named(ty)) {
            (Type::Tuple(_), _) => true,
            (_, Some((name, types))) if name == "Result" => {
                types.first().is_some_and(|ty| shows_headers(ty))
            }
            _ => false,
        }
    }
    match &signature.output {
        ReturnType::Type(_, ty) => shows_headers(ty),
        ReturnType::Default => false,
    }
}

fn with_streams_named(ty: &Type) -> TokenStream {
    match stream_of(ty) {
        Type::ImplTrait(of) => match only_a_stream(&of.bounds) {
            Some(item) => quote!(__sse::StreamOf<#item>),
            None => ty.to_token_stream(),
        },
        Type::Path(path) => {
            let mut path = path.clone();
            let last = path.path.segments.last_mut().map(|last| &mut last.arguments);
            if let Some(PathArguments::AngleBracketed(arguments)) = last {
                for argument in &mut arguments.args {
                    if let GenericArgument::Type(ty) = argument {
                        *ty = Type::Verbatim(with_streams_named(ty));
                    }
                }
            }
            path.into_token_stream()
        }
        ty => ty.to_token_stream(),
    }
}

/// The item of an `impl Stream<Item = ..>` of which nothing else is said but how it travels. A further trait
/// could be one of the user's with another `Item`.
fn only_a_stream(bounds: &Punctuated<TypeParamBound, Token![+]>) -> Option<&Type> {
    let travels = |bound: &TypeParamBound| match bound {
        TypeParamBound::Trait(bound) => {
            let named = |name| bound.path.is_ident(name);
            ["Send", "Sync", "Unpin"].into_iter().any(named)
        }
        _ => true,
    };
    let mut traits = bounds.iter().filter(|bound| !travels(bound));
    match (traits.next(), traits.next()) {
        (Some(TypeParamBound::Trait(bound)), None) => item_of_stream(&bound.path),
        _ => None,
    }
}

/// Whether a type can be written anywhere: it leaves nothing to be inferred.
pub(super) fn is_concrete(ty: &Type) -> bool {
    let open =
        |tree: &TokenTree, _: Option<&TokenTree>| is_ident(tree, "impl") || is_ident(tree, "_");
    matches!(bare(ty), Type::Path(_) | Type::Tuple(_)) && find(ty.to_token_stream(), open).is_none()
}

/// The types of the arguments, without the invisible brackets that `macro_rules` puts around them.
fn argument_types(signature: &Signature) -> impl Iterator<Item = &Type> {
    signature.inputs.iter().filter_map(|argument| match argument {
        FnArg::Typed(argument) => Some(bare(&argument.ty)),
        FnArg::Receiver(_) => None,
    })
}

fn item_of(ty: &Type) -> Option<&Type> {
    match stream_of(ty) {
        Type::ImplTrait(ty) => item_of_bounds(&ty.bounds),
        Type::TraitObject(ty) => item_of_bounds(&ty.bounds),
        ty => match named(ty)? {
            (name, types) if ["Result", "Pin", "Box"].contains(&&*name) => item_of(types.first()?),
            _ => None,
        },
    }
}

fn item_of_bounds(bounds: &Punctuated<TypeParamBound, Token![+]>) -> Option<&Type> {
    bounds.iter().find_map(|bound| match bound {
        TypeParamBound::Trait(bound) => item_of_stream(&bound.path),
        _ => None,
    })
}

fn item_of_stream(path: &syn::Path) -> Option<&Type> {
    let stream = path.segments.last().is_some_and(|last| last.ident == "Stream");
    let arguments = arguments_of(path).filter(|_| stream)?;
    arguments.args.iter().find_map(|argument| match argument {
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

/// The last segment of a type's path, and its type arguments.
fn named(ty: &Type) -> Option<(String, Vec<&Type>)> {
    let Type::Path(path) = bare(ty) else { return None };
    let arguments = arguments_of(&path.path).into_iter().flat_map(|arguments| &arguments.args);
    let types = arguments.filter_map(|argument| match argument {
        GenericArgument::Type(ty) => Some(bare(ty)),
        _ => None,
    });
    Some((path.path.segments.last()?.ident.to_string(), types.collect()))
}

/// The name of a type, or of the `T` in an `Option<T>` or a `Result<T, _>`.
fn name(ty: &Type) -> Option<String> {
    let (name, types) = named(ty)?;
    match types.as_slice() {
        [inner] if name == "Option" => Some(named(inner)?.0),
        [inner, _] if name == "Result" => Some(named(inner)?.0),
        _ => Some(name),
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
            "an endpoint cannot be generic: write concrete types, or pass the generic function to \
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
    if let Some(argument) = signature.inputs.iter().nth(MAX_ARGUMENTS) {
        errors.push(
            argument,
            format!(
                "an endpoint takes at most {MAX_ARGUMENTS} arguments: combine some in a type that \
                 derives `FromRequestParts`"
            ),
        );
    }
}

/// It could remove the argument, whose type the expansion names as well.
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
                "an argument of an endpoint cannot be conditional: leave this out, or write a second endpoint \
                 under this condition",
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

/// A named lifetime is a generic parameter, which has a rule of its own.
fn borrowed_argument(signature: &Signature, errors: &mut Errors) {
    let borrow = |tree: &TokenTree, next: Option<&TokenTree>| match tree {
        TokenTree::Punct(punct) if punct.as_char() == '&' => {
            !next.is_some_and(|next| is_punct(next, '\''))
        }
        TokenTree::Punct(punct) if punct.as_char() == '\'' => {
            next.is_some_and(|next| is_ident(next, "_"))
        }
        _ => false,
    };
    for ty in argument_types(signature) {
        if let Some(token) = find(ty.to_token_stream(), borrow) {
            errors.push(
                token,
                "an endpoint owns its arguments, since its stream outlives the request: write an owned type, \
                 such as `String` for `&str`",
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

/// A value, where its extractor should be.
fn plain_value_argument(ty: &Type) -> Option<Assertion> {
    let Type::Path(path) = ty else { return None };
    let name = path.path.get_ident().filter(|name| crate::is_scalar(name))?;
    Some(Assertion {
        condition: Condition::IsNotPlain,
        message: format!(
            "an argument says where in the request its value is: write `Path(value): Path<{name}>` for a \
             capture of the path, or `Query`"
        ),
    })
}

fn principal_on_public(ty: &Type, declaration: &Declaration) -> Option<Assertion> {
    let public = declaration.entries.key("public").is_some();
    let principal = named(ty).is_some_and(|(name, _)| name == "Principal");
    (public && principal).then(|| Assertion {
        condition: Condition::IsNotPrincipal,
        message:
            "a caller of a public endpoint may have no token, and then has no principal: write \
                  `Option<Principal>`"
                .to_owned(),
    })
}

/// A `Path` of one value or of a tuple takes the captures by their position. A prefix with captures would
/// shift them, so they must fit the path that is declared.
fn path_extractor_that_does_not_fit(ty: &Type, captures: &[&str]) -> Option<Assertion> {
    let path = name(ty).is_some_and(|name| name == "Path");
    path.then(|| Assertion {
        condition: Condition::TakesCaptures(captures.len()),
        message: format!(
            "the path has `{}`, and this takes another number of captures by position: take them all in \
             order, or by name in a struct, which can also take those of a prefix",
            captures.join("`, `")
        ),
    })
}

fn path_extractor_without_captures(ty: &Type) -> Option<Assertion> {
    let path = name(ty).is_some_and(|name| name == "Path");
    path.then(|| Assertion {
        condition: Condition::TakesCaptures(0),
        message:
            "this takes captures by position, and the path has none: write them there, such as \
                  `{id}`, or name them in a struct, which can also take those of a prefix"
                .to_owned(),
    })
}

fn body_without_post(ty: &Type) -> Option<Assertion> {
    let name = name(ty).filter(|name| BODIES.contains(&name.as_str()))?;
    Some(Assertion {
        condition: Condition::ReadsNoBody,
        message: format!(
            "`{name}` reads the request's body, and a `GET` has none: write `method = \"post\"`, or take \
             the value from the path with `Path` or from the query with `Query`"
        ),
    })
}

fn body_before_the_end(ty: &Type) -> Option<Assertion> {
    let name = name(ty).filter(|name| BODIES.contains(&name.as_str()))?;
    Some(Assertion {
        condition: Condition::ReadsNoBody,
        message: format!(
            "`{name}` reads the request's body, which can be read once, after everything else: write it as \
             the last argument, and write no other that reads the body"
        ),
    })
}

/// The first token that passes the test, which also gets the next token. Skips braces, which hold an
/// expression. Also skips the arguments of function types and the mark of a borrow they return: those
/// are not the endpoint's own.
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
                .next_if(|next| matches!(next, TokenTree::Punct(_)) && !is_punct(next, ','))
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

fn is_punct(tree: &TokenTree, sign: char) -> bool {
    matches!(tree, TokenTree::Punct(punct) if punct.as_char() == sign)
}

fn is_ident(tree: &TokenTree, name: &str) -> bool {
    matches!(tree, TokenTree::Ident(ident) if *ident == name)
}
