//! Declarations written by a `macro_rules!`, from fragments of every kind.
#![deny(warnings)]

use hero_sse::prelude::*;
use axum::extract::State;
use serde::Serialize;
use hero_sse::testing::frame;
use hero_sse::auth::Permission;
use hero_sse::extend::EndpointMeta;

#[derive(Serialize, SseEvent)]
pub struct Usage {
    used: u64,
}

mod scopes {
    pub const READ: &str = "usage.read";
}

macro_rules! endpoint {
    (
        $(#[$meta:meta])*
        $doc:literal $more:expr;
        $vis:vis $name:ident $path:expr, $method:literal, $event:literal, $permission:path,
        $buffer:literal, $flag:literal, $retry:expr, $state:ty, $krate:path;
        ($pattern:pat => $argument:ty) -> $item:ty $body:block
    ) => {
        $(#[$meta])*
        #[doc = $doc]
        #[doc = $more]
        #[sse_endpoint(
            $path,
            method = $method,
            event = $event,
            permission = all($permission, any($permission, "admin")),
            buffer = $buffer,
            heartbeat_event = $flag,
            retry = $retry,
            state = $state,
            crate = $krate,
        )]
        $vis async fn $name($pattern: $argument) -> impl Stream<Item = $item> $body
    };
}

endpoint! {
    #[cfg(all())]
    #[doc = "First."]
    "Second." concat!("Th", "ird.");
    pub usage "/usage", "post", "usage", scopes::READ, 16, true, "2s", u64, ::hero_sse;
    (State(used) => State<u64>) -> Usage { futures_util::stream::iter([Usage { used }]) }
}

macro_rules! tokens {
    ($path:literal $name:ident $($argument:tt)*) => {
        #[sse_endpoint($path, public)]
        async fn $name(_: $($argument)*) -> Result<impl Stream<Item = Event>, Refusal> {
            Ok(futures_util::stream::empty())
        }
    };
    ($item:item) => {
        #[sse_endpoint("/item", public)]
        $item
    };
}

tokens!("/tokens" tokens Option<Principal>);

macro_rules! item {
    ($item:item) => {
        #[sse_endpoint("/item", public)]
        $item
    };
}

item! {
    /// An item.
    pub(crate) async fn item() -> impl Stream<Item = Usage> {
        futures_util::stream::empty()
    }
}

macro_rules! events {
    ($(#[$meta:meta])* $vis:vis $name:ident $type:ident $event:literal $field:ident: $ty:ty, $mark:meta, $variant:ident $data:literal $life:lifetime) => {
        $(#[$meta])*
        #[derive(Serialize, SseEvent)]
        #[sse(event = $event)]
        $vis struct $name {
            #[$mark]
            $field: $ty,
        }

        #[derive(SseEvent)]
        #[sse(crate = ::hero_sse)]
        $vis enum $type<$life> {
            #[sse(event = $event, data = $data)]
            $variant($ty, #[$mark] u8, #[sse(key)] &$life str),
            More { $field: $ty, list: Vec<$ty> },
        }
    };
}

events!(#[doc = "Docs."] pub Reading Change "reading" number: u64, sse(id), Text "text" 'a);

macro_rules! marks {
    ($name:ident $text:ident $(#[$mark:meta] $field:ident: $ty:ty,)*) => {
        #[derive(Serialize, SseEvent)]
        struct $name {
            $(#[$mark] #[serde(skip)] $field: $ty,)*
            #[sse(id)]
            last: $crate::Number,
        }

        #[derive(SseEvent)]
        #[sse(data = "text")]
        struct $text($crate::Number);
    };
}

type Number = u8;

marks!(Marked Plain #[sse(retry)] retry: std::time::Duration, #[sse(key)] about: &'static str,);

pub mod lib {
    pub use ::hero_sse as sse;

    /// As in a crate that writes endpoints for its users.
    #[macro_export]
    macro_rules! ready_made {
        ($name:ident, $event:ident) => {
            #[derive($crate::lib::sse::SseEvent)]
            #[sse(crate = $crate::lib::sse)]
            enum $event {
                Made(u64),
                Of { scope: $crate::Scope, list: [$crate::Scope; 1] },
            }

            #[$crate::lib::sse::sse_endpoint(
                                        "/made",
                                        permission = $crate::Scope::Read,
                                        state = (),
                                        crate = $crate::lib::sse
                                    )]
            async fn $name(
                _: $crate::lib::sse::LastEventId,
            ) -> impl $crate::lib::sse::futures_core::Stream<Item = $event> {
                ::futures_util::stream::iter([$event::Made(1)])
            }
        };
    }
}

#[derive(Serialize)]
pub enum Scope {
    Read,
}

impl From<Scope> for Permission {
    fn from(Scope::Read: Scope) -> Self {
        Self::from_static("read")
    }
}

mod elsewhere {
    crate::ready_made!(made, Made);

    pub(super) fn frames() -> [String; 2] {
        let frame = |event: &Made| super::frame(event).unwrap();
        let of = Made::Of { scope: super::Scope::Read, list: [super::Scope::Read] };
        [frame(&Made::Made(1)), frame(&of)]
    }

    pub(super) fn endpoints() -> hero_sse::extend::Endpoints<()> {
        hero_sse::endpoints![made]
    }
}

fn main() {
    let marked = Marked { retry: std::time::Duration::from_secs(1), about: "it", last: 3 };
    let text = "event: marked\nid: 3\nretry: 1000\ndata: {\"last\":3}\n\n";
    assert_eq!((frame(&marked).unwrap().as_str(), marked.key().as_deref()), (text, Some("it")));
    assert_eq!(frame(&Plain(4)).unwrap(), "event: plain\ndata: 4\n\n");
    let shown = format!("{:?}", usage::DESCRIPTOR);
    for part in [
        "path: \"/usage\"",
        "docs: \"First.\\nSecond.\\nThird.\"",
        "method: Post",
        "event: Some(\"usage\")",
        "rule: Some(",
        "buffer: Some(Some(16))",
        "heartbeat_event: Some(true)",
        "retry: Some(2s)",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let _ = hero_sse::endpoints![usage, tokens, item] as hero_sse::extend::Endpoints<u64>;
    assert!(format!("{:?}", elsewhere::endpoints()).contains("\"/made\""));
    assert_eq!(
        frame(&Reading { number: 1 }).unwrap(),
        "event: reading\nid: 1\ndata: {\"number\":1}\n\n"
    );
    let text = Change::Text(2, 3, "k");
    assert_eq!(
        (frame(&text).unwrap().as_str(), text.key().as_deref()),
        ("event: reading\nid: 3\ndata: 2\n\n", Some("k"))
    );
    let more = Change::More { number: 1, list: vec![2] };
    assert_eq!(frame(&more).unwrap(), "event: more\ndata: {\"number\":1,\"list\":[2]}\n\n");
    assert_eq!(
        elsewhere::frames(),
        [
            "event: made\ndata: 1\n\n",
            "event: of\ndata: {\"scope\":\"Read\",\"list\":[\"Read\"]}\n\n"
        ],
    );
}
