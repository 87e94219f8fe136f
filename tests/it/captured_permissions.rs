//! Permissions that name captures of the path, such as `builds.{build}.read`.

use axum::Router;
use axum::extract::Path;
use axum::routing::get;
use futures_util::{Stream, stream};
use hero_sse::auth::{Permission, PermissionRule};
use hero_sse::{Event, Principal, SseContext, SseOptions, endpoints, sse_endpoint};
use http::StatusCode;

use crate::support::testing;
use crate::support::{Log, burst, sse_with};

use crate::access::challenge;

#[sse_endpoint("/builds/{build}/stream", permission = any("admin", all("staff", "builds.{build}.read")))]
async fn build(Path(build): Path<String>) -> impl Stream<Item = Event> {
    stream::iter([Event::text(build)])
}

const OF_THE_TENANT: &str = "tenants.{tenant}.builds";

#[sse_endpoint("/builds", permission = OF_THE_TENANT)]
async fn of_the_tenant() -> impl Stream<Item = Event> {
    burst(1)
}

#[tokio::test]
async fn a_permission_may_name_captures_of_the_path() {
    let (log, _guard) = Log::everything();
    let sse = sse_with(SseOptions::default());
    let prefixed = sse.at("/t/{tenant}").routes(endpoints![of_the_tenant]).expect("a prefix's");
    let audit = sse.endpoint("/audit/{tenant}").permission("audit.{tenant}.read");
    let audit = audit.handler(async || burst(1)).expect("a route");
    let app: Router = sse.routes(endpoints![build]).expect("routes").merge(prefixed).merge(audit);
    let ann = ["staff", "builds.7.read", "tenants.t1.builds", "audit.t1.read"];
    let ann = ann.into_iter().fold(Principal::test("ann"), Principal::permission);
    let open = |path: &str, who: &Principal| testing::open(&app, path).principal(who.clone());
    for path in ["/builds/7/stream", "/builds/%37/stream", "/t/t1/builds", "/audit/t1"] {
        open(path, &ann).await.expect(path);
    }
    for (path, asked, lacks) in [
        ("/builds/8/stream", "admin", "admin or (staff and builds.8.read)"),
        ("/builds/7-/stream", "admin", "admin or (staff and builds.7-.read)"),
        ("/t/t2/builds", "tenants.t2.builds", "tenants.t2.builds"),
        ("/audit/T1", "audit.T1.read", "audit.T1.read"),
    ] {
        let error = open(path, &ann).await.expect_err(path);
        assert_eq!(error.status, Some(StatusCode::FORBIDDEN), "{path}");
        let scope = format!("scope=\"{asked}\"");
        assert!(challenge(&error).ends_with(&scope), "{path}: {}", challenge(&error));
        let lacks = format!("the caller lacks the permission {lacks}");
        assert!(error.body.contains(&lacks) && log.text().contains(&lacks), "{path}: {error}");
    }
    open("/builds/8/stream", &Principal::test("eve").permission("admin")).await.expect("any");
    let without = testing::open(&app, "/builds/a.b/stream").await.expect_err("401");
    assert_eq!(
        without.status,
        Some(StatusCode::UNAUTHORIZED),
        "a client without a token learns nothing"
    );
}

#[tokio::test]
async fn sse_context_may_name_captures_of_its_path() {
    let (log, _guard) = Log::everything();
    let sse = sse_with(SseOptions::default());
    let own = |permission: &'static str| {
        get(async move |sse: SseContext| sse.permission(permission).stream(burst(1)).await)
    };
    let inner = Router::new().route("/builds/{build}", own("t.{tenant}.{build}"));
    let app: Router = Router::new()
        .nest("/t/{tenant}", inner)
        .route("/wrong/{build}", own("builds.{id}"))
        .route("/rest/{*build}", own("builds.{build}"))
        .layer(axum::Extension(sse));
    let ann = Principal::test("ann").permission("t.t1.7").permission("builds.7");
    let open = |path: &str| testing::open(&app, path).principal(ann.clone());
    open("/t/t1/builds/7").await.expect("a stream");
    let error = open("/t/t1/builds/8").await.expect_err("403");
    assert!(challenge(&error).ends_with("scope=\"t.t1.8\""), "{}", challenge(&error));
    let error = open("/t/t1.7/builds/7").await.expect_err("403");
    assert_eq!((error.status, challenge(&error)), (Some(StatusCode::FORBIDDEN), ""));
    for path in ["/wrong/7", "/rest/7"] {
        let error = open(path).await.expect_err("a mistake");
        assert_eq!(error.status, Some(StatusCode::INTERNAL_SERVER_ERROR));
    }
    let text = log.text();
    assert!(text.contains("builds.{id} has `{id}`, which is not a capture of the path"), "{text}");
    assert!(
        text.contains("builds.{build} has `{build}`, which takes the rest of the path"),
        "{text}"
    );
}

#[test]
fn a_permission_with_an_unknown_capture_is_a_mistake_with_its_location() {
    let sse = sse_with(SseOptions::default());
    let error = sse.routes::<()>(endpoints![of_the_tenant]).expect_err("no prefix").to_string();
    let location = format!("{}:", file!());
    let words = "endpoint /builds: the permission tenants.{tenant}.builds has `{tenant}`, which is not a capture of \
                 the path, prefix included";
    assert!(error.contains(&location) && error.contains(words), "{error}");
    let one = |name: &'static str| PermissionRule::One(Permission::from_static(name));
    let rule = PermissionRule::Any(vec![one("a.{b}"), one("c.{d"), one("e{b}"), one("f.{r}")]);
    let endpoint = sse.endpoint("/x/{b}/{*r}").permission("g.{h}").permissions(rule);
    let error = endpoint.handler::<_, _, ()>(async || burst(1)).expect_err("four mistakes");
    assert_eq!(error.iter().count(), 4, "{error}");
    assert!(error.iter().all(|mistake| mistake.to_string().contains(&location)), "{error}");
    let text = error.to_string();
    for (permission, what) in [
        ("g.{h}", "not a capture of the path"),
        ("c.{d", "an unmatched brace"),
        ("e{b}", "next to other text"),
        ("f.{r}", "takes the rest of the path"),
    ] {
        let mistake = text.lines().find(|line| line.contains(permission));
        assert!(mistake.is_some_and(|mistake| mistake.contains(what)), "{permission}: {text}");
    }
}

#[tokio::test]
async fn braces_in_a_callers_permission_have_no_meaning() {
    let who = Principal::new("ann").permission("builds.{build}.read").permission("builds.7.read");
    who.require("builds.{build}.read").expect("an exact match");
    who.require("builds.7.read").expect("an exact match");
    assert!(who.require("builds.8.read").is_err());
    let sse = sse_with(SseOptions::default());
    sse.authorize(&who, "builds.{build}.read").await.expect("an exact match");
    assert!(sse.authorize(&who, "builds.{x}.read").await.is_err());
}
