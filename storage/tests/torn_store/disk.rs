//! A disk that keeps what was flushed, and of the rest whatever it likes.
//!
//! - A file's content is durable up to its last successful sync. Of the writes since, any set of
//!   512-byte sectors may be there, and truncations may have happened or not.
//! - A file's name is durable, or its removal, after a sync of the directory.
//! - After a failed sync the writes before it never reach the disk, however often one syncs again.

use std::collections::BTreeMap;
use std::path::Path;

use super::trace::Event;
use super::workload::Random;

/// What a crash leaves of the writes that were not flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Image {
    Nothing,
    Everything,
    SomeSectors,
}

#[derive(Default)]
pub(crate) struct Disk {
    files: Vec<File>,
    /// As running processes see them.
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    /// Syncs are acknowledged and do nothing.
    lies: bool,
}

#[derive(Default)]
struct File {
    durable: Vec<u8>,
    pending: Vec<Change>,
}

enum Change {
    Write { at: usize, bytes: Vec<u8> },
    Truncate(usize),
}

impl Disk {
    /// `lies` is for a control of the test: syncs that do nothing.
    pub(crate) fn new(lies: bool) -> Self {
        Self { lies, ..Self::default() }
    }

    pub(crate) fn apply(&mut self, event: &Event) {
        match event {
            Event::Create(name) => {
                if !self.names.contains_key(name) {
                    self.files.push(File::default());
                    self.names.insert(name.clone(), self.files.len() - 1);
                }
            }
            Event::Write { name, at, bytes } => {
                let change = Change::Write { at: *at as usize, bytes: bytes.clone() };
                self.file(name).pending.push(change);
            }
            Event::Truncate { name, len } => {
                self.file(name).pending.push(Change::Truncate(*len as usize));
            }
            Event::Unlink(name) => {
                self.names.remove(name);
            }
            Event::Sync { .. } | Event::SyncDirectory if self.lies => {}
            Event::Sync { name, kept } => self.file(name).sync(*kept),
            Event::SyncDirectory => self.durable_names = self.names.clone(),
            Event::Mark(_) => {}
        }
    }

    fn file(&mut self, name: &str) -> &mut File {
        let index = self.names[name];
        &mut self.files[index]
    }

    /// Writes what a crash at this moment leaves into an empty directory.
    pub(crate) fn crash(&self, image: Image, random: &mut Random, dir: &Path) {
        let names = match image {
            Image::Nothing => self.durable_names.clone(),
            Image::Everything => self.names.clone(),
            Image::SomeSectors => self.some_names(random),
        };
        for (name, index) in names {
            let content = self.files[index].content(image, random);
            std::fs::write(dir.join(name), content).unwrap();
        }
    }

    /// Each creation and removal since the directory's sync may have reached the disk.
    fn some_names(&self, random: &mut Random) -> BTreeMap<String, usize> {
        let mut names = self.durable_names.clone();
        for (name, index) in &self.names {
            if self.durable_names.get(name) != Some(index) && random.below(2) == 0 {
                names.insert(name.clone(), *index);
            }
        }
        names.retain(|name, _| self.names.contains_key(name) || random.below(2) == 0);
        names
    }
}

impl File {
    fn sync(&mut self, kept: bool) {
        for change in std::mem::take(&mut self.pending) {
            if kept || matches!(change, Change::Truncate(_)) {
                change.apply(&mut self.durable, || true);
            }
        }
    }

    fn content(&self, image: Image, random: &mut Random) -> Vec<u8> {
        let mut content = self.durable.clone();
        for change in &self.pending {
            change.apply(&mut content, || match image {
                Image::Nothing => false,
                Image::Everything => true,
                Image::SomeSectors => random.below(2) == 0,
            });
        }
        content
    }
}

impl Change {
    /// Carries out the parts of which `takes` says that they reached the disk.
    fn apply(&self, content: &mut Vec<u8>, mut takes: impl FnMut() -> bool) {
        match self {
            Self::Truncate(len) => {
                if takes() {
                    content.resize(*len, 0);
                }
            }
            Self::Write { at, bytes } => {
                let mut from = 0;
                while from < bytes.len() {
                    let sector_end = (at + from) / SECTOR * SECTOR + SECTOR - at;
                    let to = sector_end.min(bytes.len());
                    if takes() {
                        content.resize(content.len().max(at + to), 0);
                        content[at + from..at + to].copy_from_slice(&bytes[from..to]);
                    }
                    from = to;
                }
            }
        }
    }
}

const SECTOR: usize = 512;
