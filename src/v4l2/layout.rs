//! The sizes that the kernel's headers give its structures: a wrong one would make its ioctl's number wrong.
//!
//! They hold on x86-64, aarch64 and 32-bit ARM. There a C library has a `time_t` of 32 or of 64 bits; the kernel knows both
//! sizes of what carries a time, each by an ioctl number of its own.

use v4l::v4l_sys as sys;

const LONG: bool = cfg!(target_pointer_width = "64");
/// The C library's `time_t` has 64 bits.
const LONG_TIME: bool = size_of::<sys::timeval>() == 16;

/// Of the three: long pointers; short ones with long time; short ones with short time.
const fn one_of(long: usize, short_long_time: usize, short: usize) -> usize {
    match (LONG, LONG_TIME) {
        (true, _) => long,
        (false, true) => short_long_time,
        (false, false) => short,
    }
}

const _: () = {
    assert!(size_of::<sys::v4l2_capability>() == 104);
    assert!(size_of::<sys::v4l2_fmtdesc>() == 64);
    assert!(size_of::<sys::v4l2_requestbuffers>() == 20);
    assert!(size_of::<sys::v4l2_exportbuffer>() == 64);
    assert!(size_of::<sys::v4l2_queryctrl>() == 68);
    assert!(size_of::<sys::v4l2_querymenu>() == 44);
    assert!(size_of::<sys::v4l2_control>() == 8);
    assert!(size_of::<sys::v4l2_ext_control>() == 20);
    assert!(size_of::<sys::v4l2_ext_controls>() == one_of(32, 24, 24));
    assert!(size_of::<sys::v4l2_streamparm>() == 204);
    assert!(size_of::<sys::v4l2_encoder_cmd>() == 40);
    assert!(size_of::<sys::v4l2_event_subscription>() == 32);
    assert!(size_of::<sys::v4l2_event>() == one_of(136, 136, 128));
    assert!(size_of::<sys::v4l2_selection>() == 64);
    assert!(size_of::<sys::v4l2_plane>() == one_of(64, 60, 60));
    assert!(size_of::<sys::v4l2_buffer>() == one_of(88, 80, 68));
    assert!(size_of::<sys::v4l2_pix_format>() == 48);
    assert!(size_of::<sys::v4l2_pix_format_mplane>() == 192);
    assert!(size_of::<sys::v4l2_format>() == one_of(208, 204, 204));
    assert!(LONG || align_of::<sys::v4l2_event>() == 8, "a 32-bit machine that is no ARM");
};
