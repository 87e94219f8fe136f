//! One attack per test, named after the attack.
//!
//! The table lists what went wrong in other libraries, by the classes of their advisories and issues, and the tests
//! that hold it out here. Some are in other files, where the promise itself is tested.
//!
//! | what went wrong elsewhere | tests |
//! |---|---|
//! | line breaks in names, ids, retry | `line_breaks_and_controls_in_a_name_forge_no_field`, `line_breaks_and_controls_in_an_id_forge_no_field` |
//! | a bare carriage return in data | `line_breaks_in_data_forge_no_field_and_no_event`, `raw_json_with_line_breaks_forges_no_event` |
//! | panics on data | `no_bytes_in_the_cursor_cause_a_panic`, `what_is_sent_is_what_a_conforming_parser_reads` |
//! | tokens in URLs, logs, traces, histories | `a_canary_is_in_no_log_span_panic_or_label_under_serve`, `a_canary_leaks_nowhere_under_axum_serve_with_guarded_connections`, `a_canary_leaks_nowhere_behind_the_redact_layer`, `a_canary_leaks_nowhere_over_http2`, `no_response_lets_its_url_leak_as_a_referrer` |
//! | query tokens accepted everywhere, or before the header | `a_token_from_a_disabled_source_does_not_count`, `a_token_beside_the_cookie_overrides_it` |
//! | CORS that reflects, or `*` with credentials | `an_origin_is_never_reflected`, `without_cors_there_is_no_cors_header`, `cors_without_credentials_accepts_no_cookie` |
//! | DNS rebinding | `a_rebound_dns_name_is_not_an_allowed_host` |
//! | cookies that other sites' pages use | `a_page_of_another_site_opens_a_stream_with_its_visitors_cookie`, `a_form_of_another_site_posts_with_its_visitors_cookie`, `a_sandboxed_frame_says_null` |
//! | connections exhausted, slow readers, rapid reconnects | `one_callers_streams_leave_room_for_the_others`, `a_client_that_stops_reading_does_not_fill_the_memory`, `never_reads`, `a_client_over_the_rate_limit_is_asked_to_wait_until_it_may_connect_again` |
//! | replay and cursors as an attack | `a_huge_cursor_does_not_stop_the_server`, `an_end_mark_in_the_cursor_reveals_nothing_to_a_stranger`, `a_cursor_of_another_tenant_replays_nothing_of_it`, `an_id_of_another_tenants_topic_opens_nothing_of_either`, `an_id_that_was_touched_or_made_up_is_none` |
//! | ids that reveal events of others | `ids_tell_nothing_of_events_that_one_does_not_see` |
//! | a restart or a lag that drops events silently | `an_id_of_the_life_before_the_restart_is_no_silent_hole`, `a_cursor_beyond_the_end_is_a_gap`, `a_burst_larger_than_the_retention_is_a_gap_for_subscribers`, `whoever_loses_its_connection_again_and_again_gets_every_event_once` |
//! | one tenant's events sent to another | `each_of_many_lookalikes_receives_its_own_and_nothing_else`, `a_status_page_lists_and_counts_the_callers_own_alone` |
//! | an id in the URL that opens another caller's data | `a_value_in_the_path_reaches_no_other_build`, `two_values_cannot_pose_as_two_others`, `a_grant_that_holds_the_template_itself_opens_nothing`, `a_value_that_is_decoded_is_the_one_that_the_function_gets`, `an_outer_router_cannot_say_which_build_is_meant`, `a_ticket_for_another_build_is_not_sold` |
//! | stale authorization | `a_withdrawn_permission_ends_the_stream_at_the_next_recheck`, `a_decision_from_before_a_disconnect_opens_no_stream_after_it`, `a_client_that_does_not_read_cannot_outlast_a_revocation`, `a_stream_ends_with_its_token` |
//! | checks that fail open | `while_no_caller_can_be_verified_none_gets_in_and_browsers_reconnect`, `an_authorizer_that_fails_refuses_before_the_handler_runs_and_is_logged`, `a_permission_without_an_authenticator_is_a_mistake_at_the_start`, `all_listed_permissions_must_hold` |
//! | streams without authentication, since an `EventSource` has no headers | `silence_about_permissions_still_asks_for_a_token` |
//! | tickets spent twice | `of_a_hundred_simultaneous_opens_with_one_ticket_one_succeeds` |
//! | credentials in redirects | `a_redirect_contains_neither_ticket_nor_token`, `the_server_never_redirects` |
//! | forged control events | `an_application_cannot_be_made_to_send_control_events` |
//! | key confusion, `none`, `crit`, keys in tokens | `a_public_key_as_a_secret`, `alg_none_in_every_spelling`, `critical_extensions_and_payloads_that_are_not_encoded`, `a_key_inside_the_token`, `a_key_of_another_issuer` |
//! | responses that reveal too much | `probing_for_issuers_keys_and_audiences`, `a_spent_an_unknown_an_expired_and_a_malformed_ticket_look_the_same`, `the_path_of_another_tenant_is_refused_whether_there_is_one_or_not` |
//! | unlimited guessing | `after_a_minutes_failed_attempts_every_credential_is_refused`, `an_ipv6_network_counts_as_one_client` |
//! | a browser that hangs behind a login dialog | `no_refusal_makes_a_browser_ask_for_a_password` |
//! | endless reconnects with an expired token | `a_token_in_its_leeway_does_not_open_one_stream_after_another` |

use std::fs;
use std::path::Path;

mod cookies;
mod cors;
mod expiry;
mod guessing;
mod hosts;
mod jwt;
mod keyed;
mod leaks;
mod protocol;
mod revocation;
mod site;
mod stalled;
mod tickets;
mod topics;
mod user_drops;

#[test]
fn every_test_in_the_table_exists() {
    fn read(folder: &Path) -> String {
        let entries =
            fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("it").path());
        entries
            .map(|path| {
                if path.is_dir() { read(&path) } else { fs::read_to_string(path).expect("a file") }
            })
            .collect()
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("it");
    let table = fs::read_to_string(folder.join("hardening/mod.rs")).expect("this file");
    let (all, mut named) = (read(&folder), 0);
    for row in table.lines().filter(|line| line.starts_with("//! | ")) {
        let cell = row.rsplit('|').nth(1).expect("a cell");
        for name in cell.split('`').skip(1).step_by(2) {
            named += 1;
            assert!(all.contains(&format!("fn {name}(")), "there is no test {name}");
        }
    }
    assert!(named > 40, "{named}");
}
