//! Attacks on tokens and keys.

use axum::Router;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use futures_util::stream;
use hero_sse::auth::{Algorithm, Issuer};
use hero_sse::{Event, HeroSse, JwtAuthenticator, Principal};
use http::StatusCode;
use serde_json::{Value, json};

use crate::signing::{Signer, hmac, hmac_raw, message, set};
use crate::support::testing::{self, OpenError};
use crate::support::{SECRET, Wrapped, burst, claims, jwt, now};

const SIGNATURE: &str = "the token's signature is not accepted";
const MALFORMED: &str = "the token is malformed";

fn sse_with(jwt: JwtAuthenticator) -> HeroSse {
    let builder = HeroSse::builder().environment(Vec::<(String, String)>::new());
    builder.authenticator(jwt).build().expect("a server")
}

/// Returns all mistakes that the builder reports.
fn mistakes(jwt: JwtAuthenticator) -> String {
    let builder = HeroSse::builder().environment(Vec::<(String, String)>::new());
    builder.authenticator(jwt).build().err().map(|error| error.to_string()).unwrap_or_default()
}

async fn open(jwt: &JwtAuthenticator, token: &str) -> Result<String, OpenError> {
    let app: Router = sse_with(jwt.clone())
        .endpoint("/s")
        .permission("usage.read")
        .handler(async |who: Principal| stream::iter([Event::text(who.subject())]))
        .expect("a route");
    let mut stream = testing::open(&app, "/s").bearer(token).await?;
    Ok(stream.next().await.expect("in time").expect("an event").data)
}

/// Returns why a token is refused. Checks that it is a `401` with the usual headers.
async fn refused(jwt: &JwtAuthenticator, token: &str) -> String {
    let error = open(jwt, token).await.expect_err("a refusal");
    assert_eq!(error.status, Some(StatusCode::UNAUTHORIZED), "{error}");
    let problem: Value = serde_json::from_str(&error.body).expect("problem+json");
    let detail = problem["detail"].as_str().expect("a detail").to_owned();
    let challenge = format!(
        "Bearer realm=\"hero-sse\", error=\"invalid_token\", error_description=\"{detail}\""
    );
    assert_eq!(error.headers["www-authenticate"], challenge);
    detail
}

fn for_tests(jwt: JwtAuthenticator) -> JwtAuthenticator {
    jwt.issuer("tests").audience("streams")
}

#[tokio::test]
async fn alg_none_in_every_spelling() {
    let signer = Signer::new();
    let published = for_tests(JwtAuthenticator::jwks(set([signer.jwk("k")])));
    let names =
        ["none", "None", "NONE", "nOnE", "", "null", " none", "none ", "hs256", "HS256\\u0000"];
    for name in names {
        let claims = claims(|_| ()).to_string();
        let unsigned = format!("{}.", message(&format!("{{\"alg\": \"{name}\"}}"), &claims));
        for token in [format!("{unsigned}AAAA"), unsigned] {
            assert_eq!(refused(&jwt(), &token).await, SIGNATURE, "{name}");
            assert_eq!(refused(&published, &token).await, SIGNATURE, "{name}");
        }
    }
    for header in ["{}", r#"{"alg": null}"#, r#"{"alg": ["HS256"]}"#, r#"{"alg": 0}"#] {
        let token =
            hmac_raw(Algorithm::HS256, SECRET.as_bytes(), header, &claims(|_| ()).to_string());
        assert_eq!(refused(&jwt(), &token).await, MALFORMED, "{header}");
    }
}

#[tokio::test]
async fn a_public_key_as_a_secret() {
    let algorithms = [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512];
    for kind in [Algorithm::RS256, Algorithm::ES256] {
        let signer = Signer::of(kind);
        let jwk = signer.jwk("k");
        let pem = signer.pem();
        let body: String = pem.lines().filter(|line| !line.starts_with("---")).collect();
        let number = jwk["n"].as_str().or(jwk["x"].as_str()).expect("a number");
        let disguises = [
            pem.clone().into_bytes(),
            pem.trim_end().into(),
            pem.replace('\n', "\r\n").into_bytes(),
            body.clone().into_bytes(),
            STANDARD.decode(body).expect("DER"),
            signer.raw().to_vec(),
            number.into(),
            URL_SAFE_NO_PAD.decode(number).expect("base64url"),
            jwk.to_string().into_bytes(),
            Vec::new(),
        ];
        let by_pem = for_tests(JwtAuthenticator::pem(kind, &pem));
        let by_set = for_tests(JwtAuthenticator::jwks(set([jwk])));
        assert_eq!(
            open(&by_pem, &signer.token("k", &claims(|_| ()))).await.expect("a stream"),
            "ann"
        );
        for secret in disguises {
            for algorithm in algorithms {
                let token = hmac(algorithm, &secret, &claims(|_| ()));
                assert_eq!(refused(&by_pem, &token).await, SIGNATURE);
                assert_eq!(refused(&by_set, &token).await, SIGNATURE);
            }
        }
        // The set-up cannot be that way by mistake either.
        assert!(
            mistakes(for_tests(JwtAuthenticator::pem(Algorithm::HS256, pem))).contains("HS256")
        );
    }
}

#[test]
fn a_symmetric_key_in_a_published_set() {
    let k = URL_SAFE_NO_PAD.encode([7; 64]);
    let oct = json!({ "kty": "oct", "k": k, "alg": "HS256", "kid": "k" });
    let given = mistakes(for_tests(JwtAuthenticator::jwks(set([oct.clone()]))));
    assert!(given.contains("symmetric"), "{given}");
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), set([oct])).expect("written");
    let read = mistakes(for_tests(JwtAuthenticator::jwks_file(file.path())));
    assert!(read.contains("symmetric"), "{read}");
    let file = JwtAuthenticator::jwks_file(file.path()).algorithms([Algorithm::HS256]);
    assert!(mistakes(for_tests(file)).contains("a published key is not secret"));
}

#[tokio::test]
async fn a_key_of_another_issuer() {
    let (ours, theirs) = (Signer::new(), Signer::new());
    let issuer = |name: &str, signer: &Signer| {
        Issuer::new(name).jwks(set([signer.jwk("same kid")])).audience("streams")
    };
    let jwt = JwtAuthenticator::issuers([issuer("ours", &ours), issuer("theirs", &theirs)]);
    let named = |name: &'static str| claims(|claims| claims["iss"] = json!(name));
    for (name, right, wrong) in [("ours", &ours, &theirs), ("theirs", &theirs, &ours)] {
        assert!(open(&jwt, &right.token("same kid", &named(name))).await.is_ok());
        assert_eq!(refused(&jwt, &wrong.token("same kid", &named(name))).await, SIGNATURE);
    }
    for stranger in ["nobody", "", "ours ", "OURS", "ours/"] {
        let token = ours.token("same kid", &named(stranger));
        assert_eq!(refused(&jwt, &token).await, SIGNATURE, "{stranger}");
    }
    for none in [Value::Null, json!(["ours", "theirs"]), json!({ "ours": 1 })] {
        let token = ours.token("same kid", &claims(|claims| claims["iss"] = none));
        assert_eq!(refused(&jwt, &token).await, SIGNATURE);
    }
}

#[tokio::test]
async fn an_algorithm_that_the_issuer_is_not_pinned_to() {
    let rsa = Signer::of(Algorithm::RS256);
    let mut jwk = rsa.jwk("k");
    jwk.as_object_mut().expect("a map").remove("alg");
    let by_pem = for_tests(JwtAuthenticator::pem(Algorithm::PS256, rsa.pem()));
    let by_set = for_tests(JwtAuthenticator::jwks(set([jwk])).algorithms([Algorithm::PS256]));
    for jwt in [by_pem, by_set] {
        assert!(open(&jwt, &rsa.token_as(Algorithm::PS256, &claims(|_| ()))).await.is_ok());
        let others = [Algorithm::RS256, Algorithm::RS384, Algorithm::RS512, Algorithm::PS384];
        for other in others {
            let token = rsa.token_as(other, &claims(|_| ()));
            assert_eq!(refused(&jwt, &token).await, SIGNATURE, "{other:?}");
        }
    }
    let longer = hmac(Algorithm::HS512, SECRET.as_bytes(), &claims(|_| ()));
    assert_eq!(refused(&jwt(), &longer).await, SIGNATURE);
}

/// A token that brings its own key, or says where to fetch it.
#[tokio::test]
async fn a_key_inside_the_token() {
    let (issuer, attacker) = (Signer::new(), Signer::new());
    let jwt = for_tests(JwtAuthenticator::jwks(set([issuer.jwk("k")])));
    let bait = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/keys", bait.local_addr().expect("an address"));
    let certificate = STANDARD.encode(attacker.raw());
    for (name, value) in [
        ("jwk", attacker.jwk("k")),
        ("jku", json!(url)),
        ("x5u", json!(url)),
        ("x5c", json!([certificate])),
        ("x5t", json!("AAAA")),
    ] {
        for kid in ["k", "unknown"] {
            let mut header = json!({ "alg": "ES256", "kid": kid });
            header[name] = value.clone();
            let claims = claims(|_| ()).to_string();
            let token = attacker.sign(&header.to_string(), &claims);
            assert_eq!(refused(&jwt, &token).await, SIGNATURE, "{name}");
            // A valid signature counts, whatever else the header contains.
            let good = issuer.sign(&header.to_string(), &claims);
            assert_eq!(open(&jwt, &good).await.is_ok(), kid == "k", "{name}");
        }
    }
    let waited = tokio::time::timeout(std::time::Duration::from_millis(50), bait.accept()).await;
    assert!(waited.is_err(), "a key was fetched from a URL in the token");
}

#[tokio::test]
async fn a_kid_that_is_a_path_a_query_or_not_a_string() {
    let signer = Signer::new();
    let jwt = for_tests(JwtAuthenticator::jwks(set([signer.jwk("k")])));
    for kid in [
        "../../dev/null",
        "/etc/passwd",
        "' OR '1'='1",
        "k\u{0}",
        "K",
        " k",
        "",
        "http://127.0.0.1/",
    ] {
        assert_eq!(refused(&jwt, &signer.token(kid, &claims(|_| ()))).await, SIGNATURE, "{kid}");
    }
    for kid in ["7", "null", "[\"k\"]", "{}", "true"] {
        let header = format!("{{\"alg\": \"ES256\", \"kid\": {kid}}}");
        let token = signer.sign(&header, &claims(|_| ()).to_string());
        assert_eq!(refused(&jwt, &token).await, MALFORMED, "{kid}");
    }
}

#[tokio::test]
async fn critical_extensions_and_payloads_that_are_not_encoded() {
    for extension in [
        r#""crit": ["exp"]"#,
        r#""crit": []"#,
        r#""crit": null"#,
        r#""crit": "b64""#,
        r#""b64": false, "crit": ["b64"]"#,
        r#""b64": false"#,
    ] {
        let header = format!("{{\"alg\": \"HS256\", {extension}}}");
        let token =
            hmac_raw(Algorithm::HS256, SECRET.as_bytes(), &header, &claims(|_| ()).to_string());
        let told = refused(&jwt(), &token).await;
        assert_eq!(told, "the token needs extensions that are not supported", "{extension}");
    }
}

/// Of two members with one name, some parsers take the first and others the last.
#[tokio::test]
async fn a_repeated_member_name() {
    let good = claims(|_| ()).to_string();
    let rest = good.strip_prefix('{').expect("an object");
    for doubled in [
        format!("{{\"sub\": \"root\", {rest}"),
        format!("{{\"s\\u0075b\": \"root\", {rest}"),
        format!("{{\"exp\": 9999999999, {rest}"),
        format!("{{\"extra\": [{{\"a\": 1, \"a\": 2}}], {rest}"),
    ] {
        let header = r#"{"alg": "HS256"}"#;
        let token = hmac_raw(Algorithm::HS256, SECRET.as_bytes(), header, &doubled);
        assert_eq!(refused(&jwt(), &token).await, MALFORMED, "{doubled}");
    }
    for header in
        [r#"{"alg": "none", "alg": "HS256"}"#, r#"{"alg": "HS256", "kid": "a", "kid": "b"}"#]
    {
        let token = hmac_raw(Algorithm::HS256, SECRET.as_bytes(), header, &good);
        assert_eq!(refused(&jwt(), &token).await, MALFORMED, "{header}");
    }
}

#[tokio::test]
async fn tokens_that_are_too_big_or_too_deep() {
    let huge = hmac(
        Algorithm::HS256,
        SECRET.as_bytes(),
        &claims(|claims| claims["ballast"] = json!("x".repeat(8 * 1024))),
    );
    assert_eq!(refused(&jwt(), &huge).await, "the token is too long");
    let good = claims(|_| ()).to_string();
    let rest = good.strip_prefix('{').expect("an object");
    let deep = format!("{{\"deep\": {}{}, {rest}", "[".repeat(1000), "]".repeat(1000));
    let token = hmac_raw(Algorithm::HS256, SECRET.as_bytes(), r#"{"alg": "HS256"}"#, &deep);
    assert_eq!(refused(&jwt(), &token).await, MALFORMED);
}

/// Another encoding of the same bytes would bypass a list of revoked tokens.
#[tokio::test]
async fn another_encoding_of_the_same_token() {
    let good = crate::support::token();
    assert!(open(&jwt(), &good).await.is_ok());
    let (message, signature) = good.rsplit_once('.').expect("three parts");
    let (header, body) = message.split_once('.').expect("three parts");
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let (start, last) = signature.split_at(signature.len() - 1);
    let place = alphabet.find(last).expect("base64url");
    let sloppy = alphabet.get(place ^ 1..=place ^ 1).expect("a character");
    for token in [
        format!("{message}.{start}{sloppy}"),
        format!("{good}="),
        format!("{header}=.{body}.{signature}"),
        format!("{good}."),
        format!(".{good}"),
        format!("{message}..{signature}"),
        format!("{good}.{signature}"),
        format!("{message}.{start}+"),
        format!("{message}."),
        message.to_owned(),
    ] {
        let told = refused(&jwt(), &token).await;
        assert!([MALFORMED, SIGNATURE].contains(&&*told), "{told}: {token}");
    }
    for token in [".", "..", "...", "....", "a.b.c", "e30.e30.", "e30.e30.AAAA"] {
        assert_eq!(refused(&jwt(), token).await, MALFORMED, "{token}");
    }
}

#[tokio::test]
async fn an_encrypted_token_and_a_token_inside_a_token() {
    let inner = crate::support::token();
    let nested = {
        let message = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(r#"{"alg": "HS256", "cty": "JWT"}"#),
            URL_SAFE_NO_PAD.encode(&inner)
        );
        let key = jsonwebtoken::EncodingKey::from_secret(SECRET.as_bytes());
        let algorithm = jsonwebtoken::Algorithm::HS256;
        let signed = jsonwebtoken::crypto::sign(message.as_bytes(), &key, algorithm);
        format!("{message}.{}", signed.expect("a signature"))
    };
    assert_eq!(refused(&jwt(), &nested).await, MALFORMED);
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg": "dir", "enc": "A128CBC-HS256"}"#);
    let encrypted = format!("{header}..AAAAAAAAAAAAAAAAAAAAAA.AAAA.AAAAAAAAAAAAAAAAAAAAAA");
    assert_eq!(refused(&jwt(), &encrypted).await, MALFORMED);
}

/// Zeros, which Java's ECDSA once accepted as a valid signature (CVE-2022-21449), and similar ones.
#[tokio::test]
async fn a_blank_signature() {
    let claims = claims(|_| ()).to_string();
    for (algorithm, length) in [
        (Algorithm::ES256, 64),
        (Algorithm::ES384, 96),
        (Algorithm::EdDSA, 64),
        (Algorithm::RS256, 256),
        (Algorithm::PS256, 256),
    ] {
        let signer = Signer::of(algorithm);
        let jwt = for_tests(JwtAuthenticator::pem(algorithm, signer.pem()));
        let message = message(&format!("{{\"alg\": \"{algorithm:?}\"}}"), &claims);
        for signature in [
            vec![0; length],
            vec![0xff; length],
            vec![0; length - 1],
            vec![],
            [vec![0; length - 1], vec![1]].concat(),
        ] {
            let token = format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature));
            assert_eq!(refused(&jwt, &token).await, SIGNATURE, "{algorithm:?}");
        }
    }
}

#[tokio::test]
async fn an_expiry_that_is_not_a_time() {
    for (exp, told) in [
        (json!("9999999999"), "the token's claims are malformed"),
        (json!([9_999_999_999u64]), "the token's claims are malformed"),
        (json!({ "a": 1 }), "the token's claims are malformed"),
        (json!(true), "the token's claims are malformed"),
        (Value::Null, "the token's claims are malformed"),
        (json!(-1), "the token's claims are malformed"),
        (json!(1e300), "the token's claims are malformed"),
        (json!(u64::MAX), "the token's claims are malformed"),
        (json!(0), "the token has expired"),
        (json!(now() - 31), "the token has expired"),
    ] {
        let token = crate::support::sign(&claims(|claims| claims["exp"] = exp.clone()));
        assert_eq!(refused(&jwt(), &token).await, told, "{exp}");
    }
    for text in ["1e999", "NaN", "Infinity", "-Infinity", "0x7fffffff", "09999999999"] {
        let body = claims(|_| ()).to_string();
        let body = body.replacen("\"exp\":", &format!("\"exp\": {text}, \"was\":"), 1);
        let token = hmac_raw(Algorithm::HS256, SECRET.as_bytes(), r#"{"alg": "HS256"}"#, &body);
        assert_eq!(refused(&jwt(), &token).await, MALFORMED, "{text}");
    }
}

#[tokio::test]
async fn a_token_for_another_audience_or_of_another_type() {
    let mail = crate::support::sign(&claims(|claims| claims["aud"] = json!(["mail", "streams2"])));
    assert_eq!(refused(&jwt(), &mail).await, "the token is meant for another audience");
    let none = crate::support::sign(&claims(|claims| claims["aud"] = json!([])));
    assert_eq!(refused(&jwt(), &none).await, "the token is meant for another audience");
    // An ID token of the same issuer, for the same application.
    let strict = jwt().token_type("at+jwt");
    assert_eq!(refused(&strict, &crate::support::token()).await, "the token is of another type");
    let header = r#"{"alg": "HS256", "typ": "application/AT+JWT"}"#;
    let body = claims(|_| ()).to_string();
    let access = hmac_raw(Algorithm::HS256, SECRET.as_bytes(), header, &body);
    assert_eq!(open(&strict, &access).await.expect("a stream"), "ann");
}

#[tokio::test]
async fn a_wildcard_without_the_setting() {
    for grant in ["*", "usage.*", "usage.rea*", "USAGE.READ", "usage.read.all", "usage"] {
        let token = crate::support::sign(&claims(|claims| claims["permissions"] = json!([grant])));
        let error = open(&jwt(), &token).await.expect_err("403");
        assert_eq!(error.status, Some(StatusCode::FORBIDDEN), "{grant}");
        let wild = open(&jwt().wildcards(), &token).await.is_ok();
        assert_eq!(wild, grant == "*" || grant == "usage.*", "{grant}");
    }
}

/// Without a valid signature, the response is the same whatever the claims.
#[tokio::test]
async fn probing_for_issuers_keys_and_audiences() {
    let (signer, attacker) = (Signer::new(), Signer::new());
    let issuer = Issuer::new("tests").jwks(set([signer.jwk("k")])).audience("streams");
    let other = Issuer::new("other").jwks(set([Signer::new().jwk("o")])).audience("streams");
    let mut answers = Vec::new();
    for jwt in
        [JwtAuthenticator::issuers([issuer.clone(), other]), JwtAuthenticator::issuers([issuer])]
    {
        for kid in ["k", "unknown"] {
            for change in [
                |_: &mut Value| (),
                |claims: &mut Value| claims["iss"] = json!("nobody"),
                |claims: &mut Value| claims["aud"] = json!("mail"),
                |claims: &mut Value| claims["exp"] = json!(1),
                |claims: &mut Value| claims["nbf"] = json!(9_999_999_999u64),
                |claims: &mut Value| claims["sub"] = json!(7),
                |claims: &mut Value| claims["permissions"] = json!(7),
                |claims: &mut Value| *claims = json!({}),
            ] {
                let token = attacker.token(kid, &claims(change));
                let error = open(&jwt, &token).await.expect_err("401");
                let mut headers: Vec<_> = error.headers.iter().map(|h| format!("{h:?}")).collect();
                headers.sort();
                answers.push((error.status, headers, error.body));
            }
        }
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:#?}");
}

#[test]
fn keys_that_are_too_weak_or_of_the_wrong_kind_are_reported_by_build() {
    let (rsa, curve) = (Signer::of(Algorithm::RS256), Signer::new());
    // 1024 bits, by openssl.
    let weak = "-----BEGIN PUBLIC KEY-----\n\
        MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQCcBJiKfSXaDL66Ky6AxJLjbAJg\n\
        Lj+RZluMUXGhXEnBR2A0gezjysIZKlHYnbeEdXd3w7BEAgT60pUCvUE0lZb4AySq\n\
        Jaxzkyy5bQ2aZfwY7/LY+URAYTTFfUGjUCR5BUbZ9S1E8HUvDtzj8WVOqH84JOlz\n\
        fc74Vc5aeFhVcZSGtQIDAQAB\n\
        -----END PUBLIC KEY-----\n";
    let file = tempfile::NamedTempFile::new().expect("a file");
    for (jwt, part) in [
        (JwtAuthenticator::hs256([7; 31]), "31 bytes; give it at least 32"),
        (JwtAuthenticator::hs384([7; 47]), "47 bytes; give it at least 48"),
        (JwtAuthenticator::hs512([7; 63]), "63 bytes; give it at least 64"),
        (JwtAuthenticator::pem(Algorithm::RS256, weak), "1024 bits"),
        (JwtAuthenticator::pem(Algorithm::ES256, rsa.pem()), "needs a key on P-256"),
        (JwtAuthenticator::pem(Algorithm::ES384, curve.pem()), "this is a key on P-256"),
        (JwtAuthenticator::pem(Algorithm::EdDSA, curve.pem()), "needs an Ed25519 key"),
        (JwtAuthenticator::pem(Algorithm::RS256, rsa.private_pem()), "private key"),
        (JwtAuthenticator::pem(Algorithm::RS256, "secret"), "no public key in PEM"),
        (JwtAuthenticator::pem(Algorithm::RS256, format!("{0}{0}", rsa.pem())), "several blocks"),
        (JwtAuthenticator::jwk("{}"), "not for checking signatures"),
        (JwtAuthenticator::jwk("{"), "not JSON"),
        (JwtAuthenticator::jwks("{}"), "no list `keys`"),
        (JwtAuthenticator::jwks(set([])), "no key of it"),
        (JwtAuthenticator::jwks_file(file.path()), "not JSON"),
        (JwtAuthenticator::jwks_file("/nowhere/keys.json"), "/nowhere/keys.json"),
        (JwtAuthenticator::hs256(SECRET).algorithms([]), "list of algorithms is empty"),
        (JwtAuthenticator::hs256(SECRET).algorithms([Algorithm::RS256]), "no key fits"),
        (JwtAuthenticator::jwks_url("http://id.example.com/keys"), "allow_http"),
        (JwtAuthenticator::jwks_url("id.example.com/keys"), "URL"),
    ] {
        let told = mistakes(for_tests(jwt));
        assert!(told.contains(part), "{part} is not in: {told}");
        assert!(!told.contains(SECRET), "{told}");
    }
    let issuer =
        |name: &str| Issuer::new(name).secret(Algorithm::HS256, SECRET).audience("streams");
    for (jwt, part) in [
        (JwtAuthenticator::issuers([]), "no issuers"),
        (
            JwtAuthenticator::issuers([issuer("a"), issuer("b"), issuer("a")]),
            "\"a\" is named twice",
        ),
        (JwtAuthenticator::issuers([issuer("")]), "name is empty"),
        (JwtAuthenticator::issuers([issuer("a"), issuer("b")]).any_issuer(), "several issuers"),
        (JwtAuthenticator::issuers([Issuer::new("a").audience("b")]), "\"a\": no keys"),
        (JwtAuthenticator::issuers([issuer("a").jwks_file("k")]), "has one source"),
        (
            JwtAuthenticator::issuers([Issuer::new("a").secret(Algorithm::HS256, SECRET)]),
            "no audience",
        ),
    ] {
        let told = mistakes(jwt);
        assert!(told.contains(part), "{part} is not in: {told}");
    }
    let secret = JwtAuthenticator::jwks_url("http://ann:pw@id.example.com/keys?code=sesame");
    let told = mistakes(for_tests(secret));
    assert!(!told.contains("pw") && !told.contains("sesame"), "{told}");
}

#[tokio::test]
async fn mistakes_that_a_wrapper_hides_refuse_every_token() {
    let issuer = || Issuer::new("tests").secret(Algorithm::HS256, SECRET).audience("streams");
    let token = crate::support::token();
    for (jwt, good) in [
        (JwtAuthenticator::issuers([issuer()]), true),
        (JwtAuthenticator::issuers([issuer(), issuer()]), false),
        (JwtAuthenticator::issuers([issuer().permissions_claims([""; 0])]), false),
        (JwtAuthenticator::issuers([issuer().secret(Algorithm::HS256, "short")]), false),
    ] {
        let builder = HeroSse::builder().environment(Vec::<(String, String)>::new());
        let sse = builder.authenticator(Wrapped(jwt)).build().expect("a server");
        let app: Router = sse.endpoint("/s").handler(async || burst(1)).expect("a route");
        match testing::open(&app, "/s").bearer(&token).await {
            Ok(_) => assert!(good),
            Err(error) => assert!(!good && error.body.contains("it is not set up"), "{error}"),
        }
    }
}
