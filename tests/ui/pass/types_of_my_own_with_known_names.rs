//! A user's type may have the name of a type that the macros know. Only the type itself counts.
#![deny(warnings)]
#![allow(non_camel_case_types)]

use hero_sse::SseEvent;
use hero_sse::axum::Router;
use hero_sse::axum::extract::{FromRequest, FromRequestParts, Path as AxumPath, Request};
use hero_sse::axum::http::request::Parts;
use hero_sse::prelude::{Event, HeroSse, LastEventId, Refusal, endpoints, sse_endpoint};

/// Extractors that read no body, take no captures, and are not a principal.
macro_rules! extractors {
    ($($name:ident)*) => {
        $(
            pub struct $name(pub String);

            impl<S: Sync> FromRequestParts<S> for $name {
                type Rejection = Refusal;

                async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
                    Ok(Self(format!("{} {}", stringify!($name), parts.uri.path())))
                }
            }
        )*
    };
}

mod mine {
    use super::*;

    extractors!(Json Form Bytes Multipart RawForm Principal Path Query State u64 bool);

    /// With a type parameter, as in axum.
    pub mod of {
        use super::super::*;

        pub struct Path<T>(pub T);

        impl<S: Sync, T: Default> FromRequestParts<S> for Path<T> {
            type Rejection = Refusal;

            async fn from_request_parts(_: &mut Parts, _: &S) -> Result<Self, Refusal> {
                Ok(Self(T::default()))
            }
        }
    }

    /// An extractor with and without a body.
    pub mod either {
        use super::super::*;

        pub struct Json;

        impl<S: Sync> FromRequestParts<S> for Json {
            type Rejection = Refusal;

            async fn from_request_parts(_: &mut Parts, _: &S) -> Result<Self, Refusal> {
                Ok(Self)
            }
        }

        impl<S: Sync> FromRequest<S> for Json {
            type Rejection = Refusal;

            async fn from_request(_: Request, _: &S) -> Result<Self, Refusal> {
                Ok(Self)
            }
        }
    }
}

use futures_util::stream;
use mine::*;

#[sse_endpoint("/get", public)]
async fn get(
    Json(json): Json,
    _: Form,
    _: Bytes,
    _: Multipart,
    _: RawForm,
    Principal(principal): Principal,
    _: Path,
    _: of::Path<(std::string::String, std::string::String)>,
    _: Query,
    _: State,
    _: u64,
    _: bool,
    _: either::Json,
) -> impl hero_sse::futures_core::Stream<Item = Event> {
    stream::iter([Event::text(json), Event::text(principal)])
}

#[sse_endpoint("/post/{id}", public, method = "post", state = ())]
async fn post(
    _: Json,
    _: u64,
    _: Path,
    AxumPath(id): AxumPath<std::primitive::u64>,
    _: Option<hero_sse::Principal>,
    _: LastEventId,
    Form(form): Form,
) -> impl hero_sse::futures_core::Stream<Item = Event> {
    stream::iter([Event::text(id.to_string()), Event::text(form)])
}

/// A trait that is named like the standard one, with an `Item` of another type.
trait Stream: hero_sse::futures_core::Stream<Item = Named> {
    type Item;
}

#[derive(serde::Serialize, SseEvent)]
#[sse(event = "named")]
pub struct Named(std::primitive::u64);

#[derive(serde::Serialize, SseEvent)]
#[sse(event = "other")]
pub struct Other(std::primitive::u64);

impl<T: hero_sse::futures_core::Stream<Item = Named>> Stream for T {
    type Item = Other;
}

#[sse_endpoint("/both", public, event = "named")]
async fn both()
-> impl Stream<Item = Other> + hero_sse::futures_core::Stream<Item = Named> + Send + 'static {
    stream::iter([Named(1), Named(Other(2).0)])
}

/// A stream whose type is named like one in which the macro expects a stream.
mod around {
    use super::*;
    use std::pin::Pin as StdPin;
    use std::task::{Context, Poll};

    pub struct Result<T>(pub T);

    impl<T: hero_sse::futures_core::Stream<Item = Other> + Unpin> hero_sse::futures_core::Stream
        for Result<T>
    {
        type Item = Named;

        fn poll_next(self: StdPin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Named>> {
            let inner = StdPin::new(&mut self.get_mut().0);
            inner.poll_next(cx).map(|item| item.map(|Other(n)| Named(n)))
        }
    }
}

#[sse_endpoint("/around", public, event = "named")]
async fn around_it() -> around::Result<impl hero_sse::futures_core::Stream<Item = Other>> {
    around::Result(stream::iter([Other(1)]))
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let none: [(std::string::String, std::string::String); 0] = [];
    let sse = HeroSse::builder().environment(none).build().unwrap();
    let app: Router = sse.routes(endpoints![get, post, both, around_it]).unwrap();
    let read = async |path: &str, method: &str| {
        let open = hero_sse::testing::open(&app, path).method(method.parse().unwrap());
        let mut stream = open.await.unwrap();
        let (one, two) = (stream.next().await, stream.next().await);
        [one, two].map(|event| event.unwrap().unwrap().data)
    };
    assert_eq!(read("/get", "GET").await, ["Json /get", "Principal /get"]);
    assert_eq!(read("/post/7", "POST").await, ["7", "Form /post/7"]);
    assert_eq!(read("/both", "GET").await, ["1", "2"]);
    assert!(hero_sse::testing::open(&app, "/around").await.is_ok());
}
