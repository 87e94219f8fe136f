//! A checked endpoint: every name is legal, every duration a number.

use proc_macro2::{Span, TokenStream};
use syn::{Attribute, Ident, LitStr, Path, Type, Visibility};

pub(super) struct Endpoint {
    /// The user's function, as it is emitted again.
    pub(super) function: TokenStream,
    /// The path to hero-sse, if given.
    pub(super) krate: Option<Path>,
    pub(super) visibility: Visibility,
    pub(super) ident: Ident,
    /// The function's name as text.
    pub(super) name: String,
    pub(super) path: String,
    /// The doc comment: texts, and macros that make one.
    pub(super) docs: Vec<TokenStream>,
    pub(super) shared: SharedAttributes,
    pub(super) permissions: Option<Permissions>,
    /// The other keys, each a call on the descriptor.
    pub(super) settings: Vec<(&'static str, Setting)>,
    /// The function that formats refusals, if given.
    pub(super) refusals: Option<Path>,
    /// The application's state, if given.
    pub(super) state: Option<Type>,
    /// The arguments that are read from the request's head.
    pub(super) arguments: Vec<Argument>,
    /// The last argument of a `POST`, which may read the body.
    pub(super) body: Option<Argument>,
    /// Whether the return type shows headers that come with the stream.
    pub(super) headed: bool,
    /// Whether the head is sent before the function runs.
    pub(super) early: bool,
    /// The span of the return type.
    pub(super) returns: Span,
    /// The span of the stream's item, or of the return type.
    pub(super) item: Span,
    pub(super) event: Option<EventName>,
    /// The return type with `StreamOf<..>` for an `impl Stream`, if it can be written elsewhere.
    pub(super) returned: Option<TokenStream>,
}

pub(super) struct Argument {
    pub(super) ty: Type,
    /// What must hold of the type, as far as its name is a reason to ask.
    pub(super) assertions: Vec<Assertion>,
}

/// A condition that only the compiler can decide, since the macro knows a type by no more than its name.
pub(super) struct Assertion {
    pub(super) condition: Condition,
    /// The error if the condition does not hold.
    pub(super) message: String,
}

pub(super) enum Condition {
    /// It is read without the request's body.
    ReadsNoBody,
    /// It is an extractor, and no plain value such as a number.
    IsNotPlain,
    IsNotPrincipal,
    /// It takes that many captures, or none by their position.
    TakesCaptures(usize),
}

/// The endpoint's name for its events, which must be the one that their type's declaration writes out.
pub(super) struct EventName {
    pub(super) name: LitStr,
    /// The return type with `StreamOf<..>` for an `impl Stream`.
    pub(super) returned: TokenStream,
}

/// `#[doc]` and `#[cfg]` of the function, which also hold for what is written beside it.
#[derive(Default)]
pub(super) struct SharedAttributes {
    pub(super) docs: Vec<Attribute>,
    pub(super) conditions: Vec<Attribute>,
}

/// The permissions that an endpoint asks for.
pub(super) enum Permissions {
    Name(String),
    Path(Path),
    All(Vec<Permissions>),
    Any(Vec<Permissions>),
}

/// The value of one key.
pub(super) enum Setting {
    /// The key alone.
    Bare,
    Text(String),
    Flag(bool),
    Count(u64),
    /// A variant of one of hero-sse's enums.
    Variant(&'static str, String),
    /// Several variants.
    Variants(&'static str, Vec<String>),
    Millis(u64),
    /// A duration that could be `"off"`, and is not.
    Every(u64),
    Off,
}

/// A wrong declaration.
pub(super) struct Rejected {
    pub(super) function: TokenStream,
    pub(super) error: syn::Error,
    /// `None` where no type can be written, as inside an `impl`.
    pub(super) stub: Option<Stub>,
}

/// An endpoint that is never opened: code that names it then adds no second error.
pub(super) struct Stub {
    pub(super) krate: Option<Path>,
    pub(super) visibility: Visibility,
    pub(super) ident: Ident,
    pub(super) name: String,
    pub(super) shared: SharedAttributes,
}
