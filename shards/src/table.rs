//! Tables that grow in chunks, never by doubling, so that a shard's memory follows its load.
//!
//! [`Table`] is indexed from outside (by connection slot); [`Slab`] hands out its own indices.

use crate::io::pages::Chunk;

/// A multiple of eight bytes so often fills pages to the end.
const CHUNK: usize = 512;

/// A vector in chunks of 512 whose entries come into being with their default value.
#[derive(Debug)]
pub(crate) struct Table<T> {
    chunks: Vec<Option<Chunk<T, CHUNK>>>,
}

impl<T: Default> Table<T> {
    pub(crate) fn new() -> Self {
        Self { chunks: Vec::new() }
    }

    pub(crate) fn get(&self, index: u32) -> Option<&T> {
        let index = index as usize;
        Some(&self.chunks.get(index / CHUNK)?.as_ref()?[index % CHUNK])
    }

    pub(crate) fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        let index = index as usize;
        Some(&mut self.chunks.get_mut(index / CHUNK)?.as_mut()?[index % CHUNK])
    }

    /// The entry, made if its chunk does not exist yet.
    pub(crate) fn entry(&mut self, index: u32) -> &mut T {
        let (chunk, offset) = (index as usize / CHUNK, index as usize % CHUNK);
        if self.chunks.len() <= chunk {
            self.chunks.resize_with(chunk + 1, || None);
        }
        &mut self.chunks[chunk].get_or_insert_default()[offset]
    }

    /// All entries that exist, in order of index.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        self.chunks.iter().enumerate().flat_map(|(chunk, entries)| {
            let entries = entries.iter().flat_map(|chunk| chunk.iter());
            entries.enumerate().map(move |(i, entry)| ((chunk * CHUNK + i) as u32, entry))
        })
    }
}

/// A slab: insert gives an index that stays valid until removed. Freed entries are used again,
/// last freed first.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    entries: Table<Option<T>>,
    free: Vec<u32>,
    end: u32,
}

impl<T> Slab<T> {
    pub(crate) fn new() -> Self {
        Self { entries: Table::new(), free: Vec::new(), end: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.end as usize - self.free.len()
    }

    pub(crate) fn insert(&mut self, value: T) -> u32 {
        let index = self.free.pop().unwrap_or_else(|| {
            self.end += 1;
            self.end - 1
        });
        *self.entries.entry(index) = Some(value);
        index
    }

    pub(crate) fn get(&self, index: u32) -> Option<&T> {
        self.entries.get(index)?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        self.entries.get_mut(index)?.as_mut()
    }

    #[inline]
    pub(crate) fn remove(&mut self, index: u32) -> Option<T> {
        let value = self.entries.get_mut(index)?.take();
        if value.is_some() {
            self.free.push(index);
        }
        value
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        self.entries.iter().filter_map(|(index, entry)| Some((index, entry.as_ref()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slab_reuses_freed_entries_and_counts_live_ones() {
        let mut slab = Slab::new();
        let indices: Vec<u32> = (0..600).map(|n| slab.insert(n)).collect();
        assert_eq!(slab.remove(indices[300]), Some(300));
        assert_eq!(slab.remove(indices[300]), None);
        assert_eq!(slab.len(), 599);
        assert_eq!(slab.insert(7), indices[300]);
        assert_eq!(slab.iter().count(), 600);
        assert_eq!(slab.get(indices[300]), Some(&7));
    }
}
