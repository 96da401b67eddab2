//! The kernel programs, as `cargo xtask bpf` built them.

/// ELF object with all programs and maps; names in `eastwest_abi`. Aligned to 8 bytes, as the parser wants it.
pub const OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/eastwest.bpf.o"));
