//! Our session against a str0m client, in virtual time over an emulated network: one behaviour a file.

mod session {
    mod estimate_follows_the_path;
    mod film;
    #[allow(dead_code, reason = "tests/day.rs uses the rest of it")]
    mod pair;
    #[allow(dead_code, reason = "tests/day.rs uses the rest of it")]
    mod setup;
    mod sweep;
    mod wire;

    mod bad_networks_are_survived;
    mod catching_up_goes_on;
    mod clock_is_told;
    mod foreign_restart_refused;
    mod join_delivers_every_picture;
    mod long_user_name_refused;
    mod loss_recovers;
    mod lost_path_gives_up;
    mod newer_addresses_preferred;
    mod players_for_the_web_get_pictures;
    mod requests_are_bounded;
    mod restart_keeps_the_channel;
    mod viewer_without_h264_refused;
}
