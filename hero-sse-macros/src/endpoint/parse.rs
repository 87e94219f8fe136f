//! An endpoint as written: the grammar and the keys, without the rules.

use proc_macro2::{Span, TokenStream};
use syn::ext::IdentExt;
use syn::parse::discouraged::Speculative;
use syn::parse::{ParseStream, Parser};
use syn::{Attribute, Ident, LitStr, Signature, Token, Visibility};

use crate::attr::{self, Entries};
use crate::errors::Errors;
use crate::key::{self, Target};
use crate::value;

key::keys! {
    KEYS, key_table;
    "event", Text, r#"event = "usage""#, [Function],
        "the name of events without a name of their own; by default the name of their type in kebab case";
    "method", OneOf("Method", &["get", "post"]), r#"method = "post""#, [Function],
        "`POST` instead of `GET`, for clients that use `fetch`: the last argument may read the body, and the \
         query has no token";
    "permission", Permissions, r#"permission = "usage.read""#, [Function],
        "the permissions that the caller's token must grant: a string, a constant, a variant of an enum, \
         `all(..)` or `any(..)` of these; `{name}` in it is the value of that capture of the path";
    "public", Nothing, "public", [Function],
        "callers need no token; without `public` and `permission`, any valid token is accepted";
    "profile", OneOf("Profile", &["native", "plain"]), r#"profile = "plain""#, [Function], setting;
    "clean_end", Flag, "clean_end = false", [Function], setting;
    "direct_events", Flag, "direct_events = true", [Function], setting;
    "early", Flag, "early = true", [Function], setting;
    "heartbeat", DurationOrOff, r#"heartbeat = "15s""#, [Function], setting;
    "heartbeat_event", Flag, "heartbeat_event = true", [Function], setting;
    "write_timeout", DurationOrOff, r#"write_timeout = "5s""#, [Function], setting;
    "retry", Duration, r#"retry = "3s""#, [Function], setting;
    "max_age", DurationOrOff, r#"max_age = "30m""#, [Function], setting;
    "reauthorize", DurationOrOff, r#"reauthorize = "30s""#, [Function], setting;
    "max_connections", Count, "max_connections = 100", [Function], setting;
    "max_per_principal", Count, "max_per_principal = 4", [Function], setting;
    "over_limit", OneOf("OverLimit", &["retry", "refuse"]), r#"over_limit = "refuse""#, [Function], setting;
    "buffer", Count, "buffer = 256", [Function], setting;
    "overflow", OneOf("Overflow", &["disconnect", "drop_oldest", "latest"]),
        r#"overflow = "drop_oldest""#, [Function], setting;
    "token_sources", SomeOf("TokenSource", &["header", "cookie", "query"]),
        r#"token_sources = ["header", "cookie"]"#, [Function], setting;
    "refusals", Path, "refusals = openai_error", [Function],
        "the format of refusals: a function from `&RefusalInfo` to any response";
    "deprecated", Nothing, "deprecated", [Function],
        "the endpoint's descriptor says that it will be removed, and the log says once that it is still used";
    "state", Type, "state = App", [Function],
        "the type of the application's state: the compiler then reports an argument that is no extractor for \
         it at the argument";
    "crate", Path, "crate = hero_sse", [Function],
        "the path to `hero-sse`, if `Cargo.toml` renames it";
}

pub(super) struct Declaration {
    pub(super) path: PathArgument,
    pub(super) entries: Entries,
    pub(super) function: Function,
}

/// The first argument.
pub(super) enum PathArgument {
    Literal(LitStr),
    /// `path = "/a"`, as in other attributes.
    Keyed(Ident, LitStr),
    Other(TokenStream),
    Missing(Span),
}

/// A function. Its body is not parsed: it may be half typed, and the compiler reports that.
pub(super) struct Function {
    pub(super) attributes: Vec<Attribute>,
    pub(super) visibility: Visibility,
    pub(super) signature: Signature,
    /// Everything after the attributes.
    pub(super) rest: TokenStream,
}

/// `None` for a function whose signature is half typed: the compiler reports that.
pub(super) fn function(item: TokenStream) -> syn::Result<Option<Function>> {
    let parser = |input: ParseStream<'_>| {
        let attributes = input.call(Attribute::parse_outer)?;
        let rest = input.fork().parse()?;
        let visibility = input.parse()?;
        if !starts_function(input) {
            return Err(not_a_function(input));
        }
        let ahead = input.fork();
        let signature = ahead.parse().ok().inspect(|_: &Signature| input.advance_to(&ahead));
        let _body: TokenStream = input.parse()?;
        Ok(signature.map(|signature| Function { attributes, visibility, signature, rest }))
    };
    parser.parse2(item)
}

fn not_a_function(input: ParseStream<'_>) -> syn::Error {
    input.error(
        "only an `async fn` can be an endpoint: write `#[sse_endpoint(..)]` on the function that \
         returns the stream",
    )
}

fn starts_function(input: ParseStream<'_>) -> bool {
    let fork = input.fork();
    let _const: Option<Token![const]> = fork.parse().ok();
    fork.peek(Token![async])
        || fork.peek(Token![unsafe]) && !fork.peek2(Token![impl]) && !fork.peek2(Token![trait])
        || fork.peek(Token![extern]) && fork.peek3(Token![fn])
        || fork.peek(Token![fn])
}

pub(super) fn declaration(
    attribute: TokenStream,
    function: Function,
    errors: &mut Errors,
) -> Declaration {
    let mut path = PathArgument::Missing(Span::call_site());
    let mut entries = Entries::default();
    let parser = |input: ParseStream<'_>| {
        path = path_argument(input);
        if !matches!(path, PathArgument::Missing(_)) {
            attr::comma(input, errors);
        }
        entries.read(input, KEYS, Target::Function, errors);
        Ok(())
    };
    if let Err(error) = parser.parse2(attribute) {
        errors.add(error);
    }
    Declaration { path, entries, function }
}

fn path_argument(input: ParseStream<'_>) -> PathArgument {
    if input.is_empty() {
        return PathArgument::Missing(Span::call_site());
    }
    let fork = input.fork();
    let argument = if let Ok(literal) = fork.parse() {
        PathArgument::Literal(literal)
    } else if let Ok(key) = fork.call(Ident::parse_any) {
        let known = KEYS.iter().any(|row| key == row.name);
        let assigned = fork.parse::<Token![=]>().is_ok();
        match fork.parse() {
            Ok(literal) if assigned && key == "path" => PathArgument::Keyed(key, literal),
            _ if known || assigned => return PathArgument::Missing(key.span()),
            _ => return PathArgument::Other(value::skip(input)),
        }
    } else {
        return PathArgument::Other(value::skip(input));
    };
    input.advance_to(&fork);
    argument
}
