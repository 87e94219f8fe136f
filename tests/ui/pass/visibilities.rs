//! An endpoint has the visibility of its function.
#![deny(warnings, unreachable_pub)]

use hero_sse::prelude::*;

mod outer {
    pub(crate) mod inner {
        use hero_sse::prelude::*;

        #[sse_endpoint("/crate")]
        pub(crate) async fn of_the_crate() -> impl Stream<Item = Event> {
            futures_util::stream::empty()
        }

        #[sse_endpoint("/in")]
        pub(in crate::outer) async fn of_a_path() -> impl Stream<Item = Event> {
            futures_util::stream::empty()
        }

        #[sse_endpoint("/super")]
        pub(super) async fn of_the_parent() -> impl Stream<Item = Event> {
            futures_util::stream::empty()
        }

        #[sse_endpoint("/self")]
        pub(self) async fn of_itself() -> impl Stream<Item = Event> {
            futures_util::stream::empty()
        }

        #[sse_endpoint("/private")]
        async fn private() -> impl Stream<Item = Event> {
            futures_util::stream::empty()
        }

        pub(super) fn own() -> hero_sse::extend::Endpoints<()> {
            endpoints![of_the_crate, of_a_path, of_the_parent, of_itself, private]
        }
    }

    use self::inner::{of_a_path, of_the_parent};

    pub(crate) fn below() -> [hero_sse::extend::Endpoints<()>; 2] {
        [hero_sse::endpoints![of_a_path, of_the_parent], inner::own()]
    }
}

use outer::inner::of_the_crate as renamed;

fn main() {
    let [below, own] = outer::below();
    let text = format!("{below:?} {own:?} {:?}", endpoints![renamed] as hero_sse::extend::Endpoints<()>);
    for path in ["/crate", "/in", "/super", "/self", "/private"] {
        assert!(text.contains(&format!("path: \"{path}\"")), "{text}");
    }
}
