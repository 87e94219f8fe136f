//! Permissions may be variants of an enum, or constants of several types.
#![deny(warnings)]

use hero_sse::prelude::*;
use hero_sse::auth::{IntoPermission, Permission};

mod scopes {
    use hero_sse::auth::Permission;

    pub const CONSTANT: &str = "a.constant";
    pub const OWN: Permission = Permission::from_static("an.own");
    pub static STATIC: &str = "a.static";

    #[derive(Clone, Copy)]
    pub enum Scope {
        UsageRead,
        r#BuildsRead,
    }

    impl From<Scope> for Permission {
        fn from(scope: Scope) -> Self {
            Self::from_static(match scope {
                Scope::UsageRead => "usage.read",
                Scope::BuildsRead => "builds.read",
            })
        }
    }

    pub struct Unit;

    impl Unit {
        pub const ASSOCIATED: Self = Self;
    }

    impl TryFrom<Unit> for Permission {
        type Error = hero_sse::auth::InvalidPermission;

        fn try_from(_: Unit) -> Result<Self, Self::Error> {
            Self::new("by.trial")
        }
    }
}

use scopes::Scope;

macro_rules! endpoints_of {
    ($($name:ident: $permission:path => $text:literal),* $(,)?) => {
        $(
            #[sse_endpoint("/a", permission = $permission)]
            async fn $name() -> impl Stream<Item = Event> {
                futures_util::stream::empty()
            }
        )*

        fn main() {
            $({
                let rule = IntoPermission::into_permission($permission).map(|p: Permission| p.to_string());
                assert_eq!(rule.as_deref(), Ok($text));
                let shown = format!("{:?}", <$name as hero_sse::extend::EndpointMeta>::DESCRIPTOR);
                assert!(shown.contains("Token { rule: Some("), "{shown}");
            })*
        }
    };
}

endpoints_of! {
    usage: Scope::UsageRead => "usage.read",
    builds: self::scopes::Scope::BuildsRead => "builds.read",
    constant: scopes::CONSTANT => "a.constant",
    own: crate::scopes::OWN => "an.own",
    fixed: scopes::STATIC => "a.static",
    trial: scopes::Unit::ASSOCIATED => "by.trial",
}
