//! Loads and stores in a packet, each one instruction.
//!
//! Words in a packet are not aligned. The compiler knows no unaligned access on BPF and makes bytes of it; allowing it
//! for the whole object makes unaligned accesses of the stack too, which the verifier refuses. So these are written out.

use core::arch::asm;
use core::intrinsics::is_val_statically_known;
use core::mem::transmute_copy;

use eastwest_packet::Unit;

/// The difference of two addresses, which the compiler then cannot take apart: the verifier refuses sums with the end of
/// a packet other than this one.
#[inline(always)]
pub fn distance(from: usize, to: usize) -> usize {
    let mut distance = to.wrapping_sub(from);
    // SAFETY: a register to itself.
    unsafe {
        asm!("{0} = {0}", inout(reg) distance, options(pure, nomem, nostack, preserves_flags));
    }
    distance
}

/// Where the compiler keeps what it has loaded. Without it, of a function that looks at the packet first, it makes one that
/// gets start and end of the packet as words of 32 bits, which the verifier does not take for pointers.
#[inline(always)]
pub fn barrier() {
    // SAFETY: does nothing.
    unsafe { asm!("", options(nostack, preserves_flags)) };
}

/// The farthest offset that is looked at; the verifier wants one. Of use only where the offset is not constant.
const FARTHEST: usize = 0x7fff;

/// The offset, unless it is too far; with its bounds in the very register that is used. Of a comparison alone the verifier of
/// Linux 6.1 knows nothing any more when the compiler loads the value again from the stack.
#[inline(always)]
pub fn near(at: usize) -> Option<usize> {
    if at > FARTHEST {
        return None;
    }
    if is_val_statically_known(at) {
        return Some(at);
    }
    let mut near = at;
    // SAFETY: changes one register.
    unsafe {
        asm!("{0} &= {1}", inout(reg) near, const FARTHEST, options(pure, nomem, nostack, preserves_flags));
    }
    Some(near)
}

/// The value, of which the verifier knows nothing any more: it does not follow a change of byte order.
#[inline(always)]
pub fn forget(value: u64) -> u64 {
    let mut same = value;
    // SAFETY: changes one register, twice.
    unsafe {
        asm!("{0} = be64 {0}", "{0} = be64 {0}", inout(reg) same, options(pure, nomem, nostack, preserves_flags));
    }
    same
}

macro_rules! load {
    ($start:ident, $size:literal, $offset:expr) => {{
        let value: u64;
        // SAFETY: the caller's: the word lies in the packet.
        unsafe {
            asm!(
                concat!("{value} = *(", $size, " *)({start} + {offset})"),
                value = out(reg) value,
                start = in(reg) $start,
                offset = const $offset,
                options(pure, readonly, nostack, preserves_flags),
            );
        }
        value
    }};
}

macro_rules! store {
    ($start:ident, $size:literal, $offset:expr, $value:expr) => {
        // SAFETY: the caller's: the word lies in the packet, which is writable.
        unsafe {
            asm!(
                concat!("*(", $size, " *)({start} + {offset}) = {value}"),
                value = in(reg) $value,
                start = in(reg) $start,
                offset = const $offset,
                options(nostack, preserves_flags),
            );
        }
    };
}

/// For each index below 16, as an instruction's offset is a constant.
macro_rules! each {
    ($N:ident, $index:ident => $body:expr) => {
        each!(@ $N, $index => $body; 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15)
    };
    (@ $N:ident, $index:ident => $body:expr; $($i:literal)*) => {{
        $(if $N > $i {
            const $index: usize = $i;
            $body
        })*
    }};
}

/// Reads units from a packet.
///
/// # Safety
/// All of them must lie in the packet.
#[inline(always)]
pub unsafe fn read<U: Unit, const N: usize>(start: usize) -> [U; N] {
    const { assert!(N <= 16 || size_of::<U>() == 1) };
    let mut units = [U::default(); N];
    match size_of::<U>() {
        4 => each!(N, I => units[I] = {
            let value = load!(start, "u32", I * 4) as u32;
            // SAFETY: `U` is `u32`.
            unsafe { transmute_copy(&value) }
        }),
        2 => each!(N, I => units[I] = {
            let value = load!(start, "u16", I * 2) as u16;
            // SAFETY: `U` is `u16`.
            unsafe { transmute_copy(&value) }
        }),
        _ => {
            let mut i = 0;
            while i < N {
                // SAFETY: as the caller says; bytes are aligned.
                units[i] = unsafe { *(start as *const U).add(i) };
                i += 1;
            }
        }
    }
    units
}

/// Writes units to a packet.
///
/// # Safety
/// All of them must lie in the packet, and it must be writable.
#[inline(always)]
pub unsafe fn write<U: Unit, const N: usize>(start: usize, units: &[U; N]) {
    const { assert!(N <= 16 || size_of::<U>() == 1) };
    match size_of::<U>() {
        4 => each!(N, I => {
            // SAFETY: `U` is `u32`.
            let value: u32 = unsafe { transmute_copy(&units[I]) };
            store!(start, "u32", I * 4, u64::from(value));
        }),
        2 => each!(N, I => {
            // SAFETY: `U` is `u16`.
            let value: u16 = unsafe { transmute_copy(&units[I]) };
            store!(start, "u16", I * 2, u64::from(value));
        }),
        _ => {
            let mut i = 0;
            while i < N {
                // SAFETY: as the caller says; bytes are aligned.
                unsafe { *(start as *mut U).add(i) = units[i] };
                i += 1;
            }
        }
    }
}
