//! Hints to the processor's cache.

use std::arch::asm;
use std::mem::MaybeUninit;

use mrtc_core::prefetch::Prefetch;

/// Bytes of a line on all processors that are hinted to.
const LINE: usize = 64;

/// This processor's cache.
pub(crate) struct Cache;

impl Prefetch for Cache {
    fn prefetch<T>(&self, value: &T) {
        let at = MaybeUninit::new((&raw const *value).addr());
        // From the line where it begins to the one where it ends.
        for offset in (0..size_of::<T>()).step_by(LINE).chain([size_of::<T>().saturating_sub(1)]) {
            hint(at, offset);
        }
    }

    fn prefetch_behind<T>(&self, value: &T, len: usize) {
        if align_of::<T>() < align_of::<usize>() {
            return;
        }
        let words = size_of::<T>() / size_of::<usize>();
        // SAFETY: the words are inside `value`, aligned, and borrowed; whether they are initialised does not matter.
        let words = unsafe { std::slice::from_raw_parts((&raw const *value).cast::<MaybeUninit<usize>>(), words) };
        for word in words {
            (0..len).step_by(LINE).for_each(|offset| hint_behind(*word, offset));
        }
    }
}

/// The same if the word looks like a pointer to the heap or a library: a hint to an address without memory has the
/// processor search the page tables in vain.
#[cfg(target_arch = "x86_64")]
fn hint_behind(word: MaybeUninit<usize>, offset: usize) {
    // SAFETY: the instruction never faults; what is changed is a scratch register and the flags.
    unsafe {
        asm!("mov {scratch}, {word}", "shr {scratch}, 40", "dec {scratch}", "cmp {scratch}, 0x7e", "ja 2f",
            "prefetcht0 [{word} + {offset}]", "2:",
            word = in(reg) word, offset = in(reg) offset, scratch = out(reg) _, options(nostack, readonly));
    }
}

/// Elsewhere each word is taken for a pointer.
#[cfg(not(target_arch = "x86_64"))]
fn hint_behind(word: MaybeUninit<usize>, offset: usize) {
    hint(word, offset);
}

/// Has the line of an address brought near. An address that leads nowhere is passed over by the processor.
#[cfg(target_arch = "x86_64")]
fn hint(at: MaybeUninit<usize>, offset: usize) {
    // SAFETY: the instruction never faults and changes neither memory nor registers.
    unsafe {
        asm!("prefetcht0 [{at} + {offset}]", at = in(reg) at, offset = in(reg) offset,
            options(nostack, preserves_flags, readonly));
    }
}

/// As above.
#[cfg(target_arch = "aarch64")]
fn hint(at: MaybeUninit<usize>, offset: usize) {
    // SAFETY: as above.
    unsafe {
        asm!("prfm pldl1keep, [{at}, {offset}]", at = in(reg) at, offset = in(reg) offset,
            options(nostack, preserves_flags, readonly));
    }
}

/// Elsewhere the processor is left to itself.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn hint(_: MaybeUninit<usize>, _: usize) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_value_may_be_hinted_at() {
        Cache.prefetch(&());
        Cache.prefetch(&[0_u8; 1000]);
        Cache.prefetch_behind(&(vec![1_u64; 100], 7_usize, usize::MAX, true), 600);
        Cache.prefetch_behind(&[1_u8; 3], 64);
    }
}
