use std::sync::Arc;

use super::*;
use crate::policy::{Policy, StreamKind};

/// The policy of a private stream at `path`, whose endpoint declares `declared`.
fn policy(options: &SseOptions, path: &str, declared: &PolicyOverrides) -> Arc<Policy> {
    options.policies(path, declared, Method::Get).private
}

/// Reads these variables, in which nothing is wrong.
fn read_variables(options: &mut SseOptions, variables: &[(&str, &str)]) {
    let text = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    let mut mistakes = Vec::new();
    options.read_environment(variables.iter().map(text), &mut mistakes);
    assert_eq!(mistakes, []);
}

/// The messages about values from code.
fn faults(options: &SseOptions) -> Vec<String> {
    options.faults().iter().map(SetupError::to_string).collect()
}

fn declared(write_timeout: u64) -> PolicyOverrides {
    let timeout = Some(Some(Duration::from_secs(write_timeout)));
    PolicyOverrides { write_timeout: timeout, ..PolicyOverrides::NONE }
}

#[test]
fn defaults_lose_to_options_then_the_attribute_then_the_options_table() {
    let timeout = |options: &SseOptions, path: &str, declared| {
        policy(options, path, &declared).write_timeout.map(|timeout| timeout.as_secs())
    };
    let none = SseOptions::default();
    assert_eq!(timeout(&none, "/a", PolicyOverrides::NONE), Some(5));
    let mut options = SseOptions::from_toml(
        "[SseOptions]\nWriteTimeout = \"6s\"\n[SseOptions.Endpoints.\"/b\"]\nWriteTimeout = \"off\"",
    )
    .expect("options");
    assert_eq!(timeout(&options, "/a", PolicyOverrides::NONE), Some(6));
    assert_eq!(timeout(&options, "/a", declared(7)), Some(7));
    assert_eq!(timeout(&options, "/b", declared(7)), None);
    read_variables(&mut options, &[("HERO_SSE_WRITE_TIMEOUT", "00:00:08")]);
    assert_eq!(timeout(&options, "/a", PolicyOverrides::NONE), Some(8));
    assert_eq!(timeout(&options, "/a", declared(7)), Some(7));
}

#[test]
fn json_and_clock_times_are_read() {
    let options = SseOptions::from_json(
        r#"{"Logging": {}, "SseOptions": {"WriteTimeout": "00:00:05", "HeartbeatInterval": "00:00:15"}}"#,
    )
    .expect("options");
    let policy = |options: &SseOptions| options.general_policies().private;
    assert_eq!(policy(&options), policy(&SseOptions::default()));
}

#[test]
fn every_mistake_is_reported_with_its_key_and_the_cure() {
    let errors = SseOptions::from_toml(
        r#"
        [SseOptions]
        WriteTimeout = 5
        HeartbeatIntervall = "15s"
        Retry = "100ms"
        Enabled = "yes"
        MaxConnections = 0
        OverLimit = "panic"
        Buffer = 0
        Overflow = "drop"
        [SseOptions.Endpoints."/a"]
        PeerTimeout = "1s"
        HeartbeatInterval = "5:00"
        [SseOptions.Endpoints.b]
        "#,
    )
    .expect_err("mistakes");
    for words in [
        "SseOptions.WriteTimeout: \"5\" has no unit: write \"15s\"",
        "SseOptions.HeartbeatIntervall: unknown key; did you mean HeartbeatInterval?",
        "SseOptions.Retry: 100ms is out of bounds: write \"500ms\"",
        "SseOptions.Enabled: \"yes\" is neither true nor false",
        "SseOptions.MaxConnections: 0 is not a limit",
        "SseOptions.OverLimit: \"panic\" is not one of the choices: write \"retry\" or \"refuse\"",
        "SseOptions.Buffer: 0 is not a limit",
        "SseOptions.Overflow: \"drop\" is not one of the choices: write \"disconnect\", \"drop_oldest\" or \"latest\"",
        "SseOptions.Endpoints.\"/a\".PeerTimeout: can only be set for the whole server",
        "SseOptions.Endpoints.\"/a\".HeartbeatInterval: \"5:00\" is ambiguous",
        "SseOptions.Endpoints.\"b\": a path begins with `/`",
    ] {
        assert!(
            errors.iter().any(|error| error.to_string().contains(words)),
            "{words}\nin {errors}"
        );
    }
    assert_eq!(errors.iter().count(), 11, "{errors}");
    for mistake in &errors {
        assert_eq!(mistake.kind(), SetupErrorKind::Options, "{mistake}");
        let message = format!("options: {}: ", mistake.subject());
        assert!(mistake.to_string().starts_with(&message), "{mistake}");
    }
}

#[test]
fn unreadable_files_and_misspelt_names_are_errors() {
    let error = SseOptions::from_toml("[SseOptions").expect_err("no TOML").to_string();
    assert!(error.contains("not TOML"), "{error}");
    let error = SseOptions::from_toml("[sseoptions]").expect_err("a misspelling").to_string();
    assert!(error.contains("spell it [SseOptions]"), "{error}");
    let errors = SseOptions::from_file("/no/such/file").expect_err("no file");
    assert!(errors.to_string().starts_with("options file /no/such/file: "), "{errors}");
    assert_eq!(errors.iter().map(SetupError::subject).collect::<Vec<_>>(), ["/no/such/file"]);
    let mut mistakes = Vec::new();
    let variable = ("HERO_SSE_WRIT_TIMEOUT".to_owned(), "5s".to_owned());
    SseOptions::default().read_environment([variable], &mut mistakes);
    let mistakes: Vec<_> = mistakes.iter().map(|m| (m.kind(), m.subject())).collect();
    assert_eq!(mistakes, [(SetupErrorKind::Environment, "HERO_SSE_WRIT_TIMEOUT")]);
}

#[test]
fn reauthorization_is_read_from_files_variables_and_code() {
    let options = SseOptions::from_toml(
        "[SseOptions]\nReauthorizeInterval = \"30s\"\nAuthorizerTimeout = \"2s\"\n\
         [SseOptions.Endpoints.\"/a\"]\nReauthorizeInterval = \"off\"",
    );
    let mut options = options.expect("options");
    let declared = PolicyOverrides {
        reauthorize: Some(Some(Duration::from_secs(9))),
        ..PolicyOverrides::NONE
    };
    let reauthorize = |options: &SseOptions, path, over: &PolicyOverrides| {
        policy(options, path, over).reauthorize.map(|interval| interval.as_secs())
    };
    assert_eq!(reauthorize(&options, "/b", &PolicyOverrides::NONE), Some(30));
    assert_eq!(reauthorize(&options, "/b", &declared), Some(9));
    assert_eq!(reauthorize(&options, "/a", &declared), None, "the options' table wins");
    assert_eq!(options.server.authorizer_timeout, Some(Duration::from_secs(2)));
    let variables =
        [("HERO_SSE_REAUTHORIZE_INTERVAL", "1m"), ("HERO_SSE_AUTHORIZER_TIMEOUT", "off")];
    read_variables(&mut options, &variables);
    assert_eq!(reauthorize(&options, "/b", &PolicyOverrides::NONE), Some(60));
    assert_eq!(options.server.authorizer_timeout, None);
    let code = SseOptions::default()
        .reauthorize_interval(Duration::ZERO)
        .authorizer_timeout(Duration::ZERO);
    let all = faults(&code).join("\n");
    for words in ["SseOptions.ReauthorizeInterval: 0ns", "SseOptions.AuthorizerTimeout: 0ns"] {
        assert!(all.contains(words), "{words} in {all}");
    }
    let code = code.reauthorize_interval(None).authorizer_timeout(None);
    assert_eq!(code.faults(), []);
}

#[test]
fn admission_and_drain_are_read_from_files_variables_and_code() {
    let options = SseOptions::from_toml(
        r#"
        [SseOptions]
        MaxPerAddress = 40
        ConnectsPerMinute = "off"
        TrustedProxies = ["10.0.0.0/8", "::1"]
        ForwardedHeader = "Forwarded"
        DrainJitter = "20s"
        DrainDelay = "7s"
        [SseOptions.Endpoints."/a"]
        MaxPerAddress = "off"
        DrainJitter = "off"
        "#,
    );
    let mut options = options.expect("options");
    let policy = |options: &SseOptions, path| {
        let policy = policy(options, path, &PolicyOverrides::NONE);
        (policy.max_per_address, policy.drain_jitter.map(|spread| spread.as_secs()))
    };
    assert_eq!(policy(&options, "/a"), (None, None));
    assert_eq!(policy(&options, "/b"), (Some(40), Some(20)));
    assert_eq!(options.server.connects_per_minute, None);
    assert_eq!(options.server.drain_delay, Some(Duration::from_secs(7)));
    assert_eq!(options.server.forwarded_header, ForwardedHeader::Forwarded);
    assert!(format!("{:?}", options.server.trusted_proxies).contains("10.0.0.0/8"));

    let variables = [
        ("HERO_SSE_MAX_PER_ADDRESS", "5"),
        ("HERO_SSE_CONNECTS_PER_MINUTE", "60"),
        ("HERO_SSE_TRUSTED_PROXIES", "192.0.2.1, 2001:db8::/32"),
        ("HERO_SSE_FORWARDED_HEADER", "x-forwarded-for"),
        ("HERO_SSE_DRAIN_JITTER", "off"),
        ("HERO_SSE_DRAIN_DELAY", "1s"),
    ];
    read_variables(&mut options, &variables);
    assert_eq!(policy(&options, "/b"), (Some(5), None));
    assert_eq!(options.server.connects_per_minute, Some(60));
    assert_eq!(options.server.drain_delay, Some(Duration::from_secs(1)));
    let proxies = format!("{:?}", options.server.trusted_proxies);
    assert!(proxies.contains("192.0.2.1") && proxies.contains("2001:db8::"), "{proxies}");
    assert!(!proxies.contains("10.0.0.0"), "{proxies}");

    for (wrong, words) in [
        ("MaxPerAddress = 0", "or \"off\""),
        ("ConnectsPerMinute = \"many\"", "or \"off\""),
        ("TrustedProxies = [\"proxy\"]", "\"proxy\" is not a network"),
        ("TrustedProxies = [\"0.0.0.0/0\"]", "trusts everybody"),
        ("TrustedProxies = [10]", "not a list of texts"),
        ("ForwardedHeader = \"x-real-ip\"", "write \"x-forwarded-for\" or \"forwarded\""),
        ("DrainDelay = 5", "no unit"),
        ("DrainJitter = \"0s\"", "is zero"),
    ] {
        let error = SseOptions::from_toml(&format!("[SseOptions]\n{wrong}")).expect_err(wrong);
        assert!(error.to_string().contains(words), "{error}");
    }
    let code = SseOptions::default()
        .max_per_address(0)
        .connects_per_minute(0)
        .trusted_proxies(["10.0.0.0/8", "nobody"])
        .drain_jitter(Duration::ZERO)
        .drain_delay(Duration::from_secs(u64::MAX));
    let all = faults(&code).join("\n");
    for words in [
        "SseOptions.MaxPerAddress: 0 is not a limit: write a whole number from 1 on, or \"off\"",
        "SseOptions.ConnectsPerMinute: 0 is not",
        "SseOptions.TrustedProxies: \"nobody\"",
        "SseOptions.DrainJitter: 0ns is out of bounds",
        "SseOptions.DrainDelay: 18446744073709551615s is out of bounds",
    ] {
        assert!(all.contains(words), "{words} in {all}");
    }
    let code = code.trusted_proxies(["10.0.0.0/8"]).drain_jitter(None).max_per_address(None);
    assert_eq!(code.faults().len(), 2, "{:?}", code.faults());
}

#[test]
fn token_sources_and_origins_are_read_from_files_variables_and_code() {
    let options = SseOptions::from_toml(
        r#"
        [SseOptions]
        TokenSources = ["cookie", "header"]
        TokenCookie = "__Host-session"
        PublicOrigins = ["https://app.example.com"]
        AllowedHosts = ["app.example.com", "localhost:8080"]
        CorsOrigins = ["https://pages.example.net"]
        CorsCredentials = true
        RedactQuery = false
        [SseOptions.Endpoints."/a"]
        TokenSources = ["query"]
        "#,
    );
    let mut options = options.expect("options");
    assert_eq!(options.faults(), []);
    let sources = |options: &SseOptions, path: &str, declared: Option<TokenSources>| {
        let declared = PolicyOverrides { token_sources: declared, ..PolicyOverrides::NONE };
        format!("{:?}", policy(options, path, &declared).token_sources)
    };
    let only = |source| Some(TokenSources::of(&[source]));
    assert_eq!(sources(&options, "/b", None), r#"["header", "cookie"]"#);
    assert_eq!(sources(&options, "/b", only(TokenSource::Cookie)), r#"["cookie"]"#);
    // A declaration can only remove sources; the options' table can set any.
    assert_eq!(sources(&options, "/b", only(TokenSource::Query)), "[]");
    assert_eq!(sources(&options, "/a", only(TokenSource::Cookie)), r#"["query"]"#);
    assert_eq!(options.server.token_cookie.as_deref(), Some("__Host-session"));
    assert_eq!(
        (options.server.public_origins.entries.len(), options.server.allowed_hosts.entries.len()),
        (1, 2)
    );
    let cors = options.cors_settings();
    assert!(cors.is_on() && cors.credentials && !options.server.redact_query);

    let variables = [
        ("HERO_SSE_TOKEN_SOURCES", "header, query"),
        ("HERO_SSE_TOKEN_COOKIE", "token"),
        ("HERO_SSE_PUBLIC_ORIGINS", "https://a.example, https://b.example"),
        ("HERO_SSE_ALLOWED_HOSTS", "a.example"),
        ("HERO_SSE_CORS_ORIGINS", "http://localhost:5173,http://localhost:3000"),
        ("HERO_SSE_CORS_CREDENTIALS", "false"),
        ("HERO_SSE_REDACT_QUERY", "true"),
    ];
    read_variables(&mut options, &variables);
    assert_eq!(sources(&options, "/b", None), r#"["header", "query"]"#);
    assert_eq!(options.server.token_cookie.as_deref(), Some("token"));
    assert_eq!(
        (options.server.public_origins.entries.len(), options.server.allowed_hosts.entries.len()),
        (2, 1)
    );
    let cors = options.cors_settings();
    assert_eq!(cors.origins.entries.len(), 2);
    assert!(!cors.credentials && options.server.redact_query);

    for (wrong, words) in [
        ("TokenSources = []", "names no source"),
        (
            "TokenSources = [\"body\"]",
            "\"body\" is not one of the choices: write \"header\", \"cookie\" or \"query\"",
        ),
        ("TokenSources = true", "not a list of texts: write [\"header\"]"),
        ("TokenCookie = \"\"", "cannot be the name of a cookie"),
        ("TokenCookie = \"a b\"", "cannot be the name of a cookie"),
        ("TokenCookie = 1", "is not a text"),
        ("PublicOrigins = [\"app.example.com\"]", "has no scheme: put `https://` before it"),
        ("PublicOrigins = [\"https://app.example.com/\"]", "ends in a slash"),
        ("AllowedHosts = [\"https://app.example.com\"]", "leave out its scheme"),
        ("AllowedHosts = [\"*.example.com\"]", "name each host"),
        ("CorsOrigins = [\"*\"]", "name each origin"),
        ("CorsOrigins = [\"null\"]", "sandboxed"),
        ("CorsOrigins = [\"https://app.example.com/page\"]", "has a path"),
        ("CorsCredentials = \"yes\"", "neither true nor false"),
    ] {
        let error = SseOptions::from_toml(&format!("[SseOptions]\n{wrong}")).expect_err(wrong);
        assert!(error.to_string().contains(words), "{error}");
    }
    let code = SseOptions::default()
        .token_sources([TokenSource::Cookie])
        .public_origins(["app.example.com"])
        .allowed_hosts(["a b"])
        .cors(Cors::origins(["*"]));
    let all = faults(&code).join("\n");
    for words in [
        "SseOptions.PublicOrigins: \"app.example.com\" has no scheme",
        "SseOptions.AllowedHosts: \"a b\" is not a host",
        "SseOptions.CorsOrigins: \"*\" is a pattern",
        "but none is named: set TokenCookie",
    ] {
        assert!(all.contains(words), "{words} in {all}");
    }
    let code = SseOptions::default()
        .token_sources([])
        .token_cookie("a;b")
        .cors(Cors::origins([]).credentials(true));
    assert_eq!(code.faults().len(), 3, "{:?}", code.faults());
    let table = "[SseOptions.Endpoints.\"/a\"]\nTokenSources = [\"cookie\"]";
    let table = faults(&SseOptions::from_toml(table).expect("options")).join("\n");
    let words = "SseOptions.Endpoints.\"/a\".TokenSources: a token may be in a cookie";
    assert!(table.contains(words), "{table}");
}

#[test]
fn failed_attempts_are_read_from_files_variables_and_code() {
    let read = |text: &str| SseOptions::from_toml(&format!("[SseOptions]\n{text}"));
    let of = |options: &SseOptions| options.server.failed_attempts_per_minute;
    assert_eq!(of(&SseOptions::default()), Some(60));
    assert_eq!(of(&read("FailedAttemptsPerMinute = 7").expect("options")), Some(7));
    let mut options = read("FailedAttemptsPerMinute = \"off\"").expect("options");
    assert_eq!(of(&options), None);
    read_variables(&mut options, &[("HERO_SSE_FAILED_ATTEMPTS_PER_MINUTE", "9")]);
    assert_eq!(of(&options), Some(9));
    let error = read("FailedAttemptsPerMinute = 0").expect_err("no limit").to_string();
    assert!(error.contains("or \"off\""), "{error}");
    let code = SseOptions::default().failed_attempts_per_minute(0);
    assert!(faults(&code).concat().contains("FailedAttemptsPerMinute: 0"), "{:?}", code.faults());
    assert!(code.failed_attempts_per_minute(None).faults().is_empty());
}

#[test]
fn a_buffer_brings_its_overflow_and_an_overflow_its_buffer() {
    let declared = PolicyOverrides {
        buffer: Some(Some(4)),
        overflow: Some(Overflow::DropOldest),
        ..PolicyOverrides::NONE
    };
    let none = PolicyOverrides::NONE;
    // A subscription's events stay in the topic, so an overflow alone gives it no buffer.
    for (text, declared, private, subscription) in [
        ("", &none, (None, Overflow::Disconnect), None),
        ("Buffer = 7", &none, (Some(7), Overflow::Disconnect), Some(7)),
        ("Overflow = \"latest\"", &none, (Some(256), Overflow::Latest), None),
        ("Buffer = \"off\"\nOverflow = \"latest\"", &none, (None, Overflow::Latest), None),
        ("Buffer = 7\nOverflow = \"latest\"", &declared, (Some(4), Overflow::DropOldest), Some(4)),
        (
            "[SseOptions.Endpoints.\"/a\"]\nBuffer = 9",
            &declared,
            (Some(9), Overflow::DropOldest),
            Some(9),
        ),
        (
            "[SseOptions.Endpoints.\"/a\"]\nBuffer = \"off\"",
            &declared,
            (None, Overflow::DropOldest),
            None,
        ),
        (
            "[SseOptions.Endpoints.\"/a\"]\nOverflow = \"disconnect\"",
            &declared,
            (Some(4), Overflow::Disconnect),
            Some(4),
        ),
    ] {
        let options = SseOptions::from_toml(&format!("[SseOptions]\n{text}")).expect(text);
        let policies = options.policies("/a", declared, Method::Get);
        let of = |kind| (policies.of(kind).buffer, policies.of(kind).overflow);
        assert_eq!(of(StreamKind::Private), private, "{text}");
        assert_eq!(of(StreamKind::Subscription), (subscription, private.1), "{text}");
    }
    let mut options = SseOptions::default();
    read_variables(
        &mut options,
        &[("HERO_SSE_BUFFER", "12"), ("HERO_SSE_OVERFLOW", "drop_oldest")],
    );
    let policy = policy(&options, "/a", &none);
    assert_eq!((policy.buffer, policy.overflow), (Some(12), Overflow::DropOldest));
}

#[test]
fn a_post_never_has_a_token_in_its_query() {
    let table = "[SseOptions.Endpoints.\"/a\"]\nTokenSources = [\"header\", \"query\"]";
    let options = SseOptions::from_toml(table).expect("options");
    for (method, sources) in [
        (Method::Get, r#"["header", "query"] ["header", "cookie", "query"]"#),
        (Method::Post, r#"["header"] ["header", "cookie"]"#),
    ] {
        let sources_at = |path| {
            let policies = options.policies(path, &PolicyOverrides::NONE, method);
            format!("{:?}", policies.private.token_sources)
        };
        assert_eq!(format!("{} {}", sources_at("/a"), sources_at("/b")), sources, "{method:?}");
    }
}

#[test]
fn the_limit_of_an_endpoint_is_no_option_of_all_endpoints() {
    let table =
        "[SseOptions]\nMaxConnections = 7\n[SseOptions.Endpoints.\"/a\"]\nMaxConnections = 3";
    let options = SseOptions::from_toml(table).expect("options");
    let limit = |path| policy(&options, path, &PolicyOverrides::NONE).max_connections;
    assert_eq!((options.server.max_connections, limit("/a"), limit("/b")), (7, Some(3), None));
    let declared = PolicyOverrides { max_connections: Some(Some(9)), ..PolicyOverrides::NONE };
    let lifted = "[SseOptions.Endpoints.\"/a\"]\nMaxConnections = \"off\"";
    let options = SseOptions::from_toml(lifted).expect("options");
    assert_eq!(policy(&options, "/a", &declared).max_connections, None);
}
