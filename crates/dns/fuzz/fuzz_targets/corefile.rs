#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| eastwest_dns::fuzz::corefile(text));
