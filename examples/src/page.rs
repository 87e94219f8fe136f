//! The page that shows the streams: plain files, compiled in, without a framework or a build step.

use axum::Router;
use axum::routing::get;
use http::header::CONTENT_TYPE;

macro_rules! files {
    ($($path:literal $content_type:literal $file:literal),* $(,)?) => {
        [$(($path, $content_type, include_str!(concat!("../page/", $file)))),*]
    };
}

/// Path, content type and text of each file.
const FILES: [(&str, &str, &str); 10] = files![
    "/" "text/html; charset=utf-8" "index.html",
    "/style.css" "text/css" "style.css",
    "/app.js" "text/javascript" "app.js",
    "/audit.js" "text/javascript" "audit.js",
    "/builds.js" "text/javascript" "builds.js",
    "/card.js" "text/javascript" "card.js",
    "/dom.js" "text/javascript" "dom.js",
    "/live-stream.js" "text/javascript" "live-stream.js",
    "/session.js" "text/javascript" "session.js",
    "/usage.js" "text/javascript" "usage.js",
];

/// Returns the routes of the page.
pub(crate) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    FILES.into_iter().fold(Router::new(), |router, (path, content_type, text)| {
        router.route(path, get(async move || ([(CONTENT_TYPE, content_type)], text)))
    })
}
