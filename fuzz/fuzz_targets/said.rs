#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    vestibule_fuzz::but_for_noodles();
    vestibule_importer::fuzz::said(bytes);
});
