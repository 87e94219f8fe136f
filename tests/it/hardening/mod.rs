//! One attack a test, named after the attack.
//!
//! What other kits got wrong, by the classes of their advisories and issues, and what stands against each
//! here. Some stand elsewhere, where the promise itself is tested.
//!
//! | what went wrong elsewhere | tests |
//! |---|---|
//! | line breaks in names, ids, retry | `line_breaks_and_controls_in_a_name_forge_no_field`, `line_breaks_and_controls_in_an_id_forge_no_field` |
//! | a bare carriage return in data | `line_breaks_in_data_forge_no_field_and_no_event`, `raw_json_with_line_breaks_forges_no_event` |
//! | panics on data | `no_bytes_in_the_cursor_panic_anybody`, `what_is_sent_is_what_a_conforming_parser_reads` |
//! | tokens in URLs, logs, traces, histories | `a_canary_is_seen_by_no_log_span_panic_or_label_under_serve`, `a_canary_is_seen_by_nobody_under_axum_serve_with_guarded_connections`, `a_canary_is_seen_by_nobody_behind_the_redact_layer`, `a_canary_is_seen_by_nobody_over_http2`, `no_answer_lets_its_url_out_as_a_referrer` |
//! | query tokens accepted everywhere, or before the header | `a_token_where_none_may_stand_is_none`, `a_token_beside_the_cookie_overrides_it` |
//! | CORS that reflects, or `*` with credentials | `an_origin_is_never_reflected`, `without_cors_no_header_says_anything_of_it`, `cors_without_credentials_trusts_nobody_with_a_cookie` |
//! | DNS rebinding | `a_page_whose_name_was_made_to_lead_here_asks_for_its_own_host` |
//! | cookies that other sites' pages use | `a_page_of_another_site_opens_a_stream_with_its_visitors_cookie`, `a_form_of_another_site_posts_with_its_visitors_cookie`, `a_sandboxed_frame_says_null` |
//! | connections exhausted, slow readers, churn | `one_callers_streams_leave_room_for_the_others`, `a_reader_that_stops_does_not_fill_the_memory`, `never_reads`, `who_comes_too_often_is_told_to_stay_away_until_there_is_room` |
//! | replay and cursors as a way to do harm | `a_huge_cursor_brings_nobody_down`, `an_end_mark_in_the_cursor_tells_a_stranger_nothing`, `a_cursor_of_another_tenant_replays_nothing_of_it`, `an_id_of_another_tenants_topic_opens_nothing_of_either`, `an_id_that_was_touched_or_made_up_is_none` |
//! | ids that tell of events one may not see | `ids_tell_nothing_of_events_that_one_does_not_see` |
//! | a restart, or a lag, that loses events without a word | `an_id_of_the_life_before_the_restart_is_no_silent_hole`, `a_cursor_beyond_the_end_is_a_gap`, `a_burst_larger_than_what_is_kept_is_a_gap_for_who_follows`, `whoever_loses_its_connection_again_and_again_gets_every_event_once` |
//! | one tenant's events sent to another | `each_of_many_lookalikes_receives_its_own_and_nothing_else`, `a_status_page_lists_and_counts_the_callers_own_alone` |
//! | an id in the URL that opens what is another's | `a_value_in_the_path_reaches_no_other_build`, `two_values_cannot_pose_as_two_others`, `a_grant_that_holds_the_template_itself_opens_nothing`, `a_value_that_is_decoded_is_the_one_that_the_function_gets`, `an_outer_router_cannot_say_which_build_is_meant`, `a_ticket_for_another_build_is_not_sold` |
//! | authorisation that grows stale | `a_permission_that_is_gone_ends_the_stream_at_the_next_look`, `whoever_was_let_in_before_a_disconnect_does_not_slip_in_after_it`, `a_client_that_takes_nothing_cannot_sit_a_revocation_out`, `a_stream_ends_with_its_token` |
//! | checks that fail open | `while_nobody_can_be_verified_nobody_gets_in_and_browsers_come_back`, `an_authorizer_that_fails_refuses_before_the_function_runs_and_the_log_tells`, `a_permission_that_nobody_checks_is_a_mistake_at_the_start`, `all_listed_permissions_must_hold` |
//! | streams left open to all, since an `EventSource` has no headers | `silence_about_permissions_still_asks_for_a_token` |
//! | tickets spent twice | `double_spend_of_a_hundred_opens_at_once_one_wins` |
//! | credentials sent on by a redirect | `a_redirect_repeats_neither_ticket_nor_token`, `the_kit_redirects_nobody` |
//! | events that pose as the kit's | `an_application_cannot_be_made_to_send_the_kits_own_events` |
//! | key confusion, `none`, `crit`, keys in tokens | `a_public_key_as_a_secret`, `alg_none_in_every_spelling`, `critical_extensions_and_payloads_that_are_not_encoded`, `a_key_inside_the_token`, `a_key_of_another_issuer` |
//! | answers that tell too much | `probing_for_issuers_keys_and_audiences`, `a_spent_an_unknown_an_expired_and_a_malformed_ticket_look_the_same`, `the_path_of_another_tenant_is_refused_whether_there_is_one_or_not` |
//! | guessing without end | `guessing_is_stopped_after_a_minutes_attempts_whatever_comes_next`, `a_network_of_a_billion_billion_addresses_is_one_guesser` |
//! | a browser that hangs behind a login dialog | `no_refusal_makes_a_browser_ask_for_a_password` |
//! | reconnecting for ever with a token that is over | `a_token_in_its_leeway_does_not_open_stream_after_stream` |

use std::fs;
use std::path::Path;

mod credentials;
mod jwt;
mod keyed;
mod protocol;
mod staying;
mod tickets;
mod topics;

/// The table names no test that is not there.
#[test]
fn the_table_is_true() {
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
