//! Memory that will be needed soon.
//!
//! Safe code will not do: the processor's hint takes a bare address.
#![allow(unsafe_code)]

/// Asks the processor to bring a value close before it is looked at. With thousands of busy
/// connections what is kept of each is far away, and the processor would wait for one line after
/// the other.
///
/// Cost: an instruction per 64 bytes, and nothing waits. Does nothing where the processor has no
/// such hint that Rust knows.
#[inline]
pub fn prefetch<T>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    for offset in (0..size_of::<T>()).step_by(LINE_BYTES) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let line = std::ptr::from_ref(value).cast::<i8>().wrapping_add(offset);
        // SAFETY: a hint reads nothing a program could see, whatever its address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = value;
}

#[cfg(target_arch = "x86_64")]
const LINE_BYTES: usize = 64;
