//! Each story in every order; `--nocapture` says how many those were.

macro_rules! stories {
    ($($story:ident),* $(,)?) => {$(
        #[test]
        fn $story() {
            hero_sse_model::$story();
        }
    )*};
}

stories![
    joins_while_one_publishes,
    joins_while_two_publish,
    resumes_while_one_publishes,
    resumes_ahead,
    two_share_what_one_joined,
    eviction_is_told,
    close_ends_the_reader,
    the_last_event_ends_the_reader,
    another_life_is_told,
    a_hole_is_told,
    one_leaves_while_all_are_woken,
];
