#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| eastwest_dns::fuzz::reply(bytes));
