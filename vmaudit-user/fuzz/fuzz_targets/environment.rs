#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| vmaudit_user::strangers::environment(bytes));
