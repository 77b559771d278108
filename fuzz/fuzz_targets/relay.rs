#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| peercam_fuzz::relay(bytes));
