//! Memory straight from the kernel: mappings, and arrays that lie in one.
//!
//! Invariants of the `unsafe` here: a mapping is unmapped once, when nothing leads into it any
//! more; a [`Chunk`] lies at the start of its own mapping, which is large and aligned enough for
//! it, and its elements are whole from its creation to its end. Never: says what the memory is for.
#![allow(unsafe_code)]

use std::alloc::{Layout, handle_alloc_error};
use std::fmt;
use std::io::{Error, Result};
use std::ops::{Deref, DerefMut};
use std::ptr::{self, NonNull};

/// A private anonymous mapping; pages come into being when touched.
pub(crate) struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

impl Mapping {
    pub(crate) fn new(len: usize) -> Result<Self> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: an anonymous mapping at an address of the kernel's choice touches no memory of
        // ours.
        let start = unsafe { libc::mmap(ptr::null_mut(), len, access, kind, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or_else(Error::last_os_error)?;
        Ok(Self { start, len })
    }

    pub(crate) fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// Has the kernel back it with small pages. It may know no others.
    fn avoid_huge_pages(&self) {
        // SAFETY: the range is ours, and the advice changes nothing that a program could see.
        unsafe { libc::madvise(self.start.as_ptr().cast(), self.len, libc::MADV_NOHUGEPAGE) };
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range is the one that was mapped, and whoever could reach into it holds a
        // reference that keeps `self` alive.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

/// An array in small pages of its own, like a `Box<[T; N]>`. The heap may be in huge ones, which is
/// good for what is busy; what every idle session has must not come in steps of 2 MiB.
pub(crate) struct Chunk<T, const N: usize> {
    array: NonNull<[T; N]>,
    /// Goes after the array, in [`Drop`].
    _mapping: Mapping,
}

// SAFETY: a chunk owns its elements, as a box does, and shares its mapping with nobody.
unsafe impl<T: Send, const N: usize> Send for Chunk<T, N> {}

impl<T: Default, const N: usize> Default for Chunk<T, N> {
    /// All elements have their default value.
    fn default() -> Self {
        const { assert!(align_of::<T>() <= 4096 && size_of::<[T; N]>() > 0) };
        let layout = Layout::new::<[T; N]>();
        let mapping = Mapping::new(layout.size()).unwrap_or_else(|_| handle_alloc_error(layout));
        mapping.avoid_huge_pages();
        let first = mapping.start().cast::<T>();
        for index in 0..N {
            // SAFETY: the place is inside the mapping, which has room for `N` elements at page
            // alignment. If a default panics, the elements before it are leaked, not dropped.
            unsafe { first.add(index).write(T::default()) };
        }
        Self { array: mapping.start().cast(), _mapping: mapping }
    }
}

impl<T, const N: usize> Deref for Chunk<T, N> {
    type Target = [T; N];

    #[inline]
    fn deref(&self) -> &[T; N] {
        // SAFETY: whole since `default`, and borrowed as long as `self` is.
        unsafe { self.array.as_ref() }
    }
}

impl<T, const N: usize> DerefMut for Chunk<T, N> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T; N] {
        // SAFETY: as above, and `self` is borrowed by nobody else.
        unsafe { self.array.as_mut() }
    }
}

impl<T, const N: usize> Drop for Chunk<T, N> {
    fn drop(&mut self) {
        // SAFETY: the elements are whole, and not used again; the mapping goes after them.
        unsafe { self.array.drop_in_place() };
    }
}

impl<T: fmt::Debug, const N: usize> fmt::Debug for Chunk<T, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;

    #[test]
    fn a_chunk_keeps_what_is_put_into_it_and_drops_it_once() {
        let shared = Rc::new(7);
        let mut chunk = Chunk::<Option<Rc<u32>>, 512>::default();
        assert!(chunk.iter().all(Option::is_none));
        for element in chunk.iter_mut().step_by(3) {
            *element = Some(Rc::clone(&shared));
        }
        assert_eq!(Rc::strong_count(&shared), 1 + 171);
        let moved = chunk;
        assert_eq!(moved.iter().flatten().count(), 171);
        drop(moved);
        assert_eq!(Rc::strong_count(&shared), 1);
    }
}
