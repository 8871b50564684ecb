//! What redb reads and writes: the file, or a view of it whose changes stay in memory.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use ::redb::StorageBackend;

use super::super::EngineError;

/// The first error of a file, kept because redb forgets it.
pub(super) type Fault = Arc<Mutex<Option<EngineError>>>;

/// A file as redb wants it; the seam at which tests make it fail.
pub(super) trait Disk: fmt::Debug + Send + Sync {
    fn len(&self) -> io::Result<u64>;
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()>;
    fn set_len(&self, len: u64) -> io::Result<()>;
    fn sync(&self) -> io::Result<()>;
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()>;
}

/// A real file.
#[derive(Debug)]
pub(super) struct DiskFile(File);

impl DiskFile {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(DiskFile(OpenOptions::new().read(true).write(true).open(path)?))
    }
}

impl Disk for DiskFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(out, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_all_at(data, offset)
    }
}

/// A disk as redb's backend; it remembers the first error.
#[derive(Debug)]
pub(super) struct Backend {
    disk: Arc<dyn Disk>,
    fault: Fault,
}

impl Backend {
    pub(super) fn new(disk: Arc<dyn Disk>, fault: Fault) -> Self {
        Backend { disk, fault }
    }

    fn note<T>(&self, result: io::Result<T>) -> io::Result<T> {
        result.map_err(|error| {
            let copy = io::Error::from(error.kind());
            let mut fault = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
            fault.get_or_insert_with(|| error.into());
            copy
        })
    }
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.note(self.disk.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.note(self.disk.read(offset, out))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.note(self.disk.set_len(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.note(self.disk.sync())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.note(self.disk.write(offset, data))
    }
}

const BLOCK_BYTES: u64 = 4096;

/// A file that is only read; what redb writes while it opens it (repair, its mark of being open) stays in memory.
#[derive(Debug)]
pub(super) struct View {
    file: File,
    changed: Mutex<Changed>,
}

#[derive(Debug)]
struct Changed {
    blocks: BTreeMap<u64, Box<[u8]>>,
    len: u64,
    /// How far the file itself still counts: beyond it a shortened and lengthened view reads zeros.
    file_len: u64,
}

impl View {
    pub(super) fn new(file: File) -> io::Result<Self> {
        let len = file.metadata()?.len();
        Ok(View { file, changed: Mutex::new(Changed { blocks: BTreeMap::new(), len, file_len: len }) })
    }

    fn read_file(&self, file_len: u64, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let within = usize::try_from(file_len.saturating_sub(offset)).unwrap_or(usize::MAX).min(out.len());
        self.file.read_exact_at(&mut out[..within], offset)?;
        out[within..].fill(0);
        Ok(())
    }
}

/// The blocks that a span touches: number, span within the block, span within the data.
fn blocks(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, usize, usize)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == len {
            return None;
        }
        let at = offset + done as u64;
        // Both are below the size of a block.
        let start = (at % BLOCK_BYTES) as usize;
        let count = (BLOCK_BYTES as usize - start).min(len - done);
        let span = (at / BLOCK_BYTES, start, done, count);
        done += count;
        Some(span)
    })
}

impl StorageBackend for View {
    fn len(&self) -> io::Result<u64> {
        Ok(self.changed.lock().unwrap_or_else(PoisonError::into_inner).len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let changed = self.changed.lock().unwrap_or_else(PoisonError::into_inner);
        if offset + out.len() as u64 > changed.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.read_file(changed.file_len, offset, out)?;
        for (block, start, done, count) in blocks(offset, out.len()) {
            if let Some(data) = changed.blocks.get(&block) {
                out[done..done + count].copy_from_slice(&data[start..start + count]);
            }
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut changed = self.changed.lock().unwrap_or_else(PoisonError::into_inner);
        changed.len = len;
        changed.file_len = changed.file_len.min(len);
        let whole = len / BLOCK_BYTES;
        let cut = (len % BLOCK_BYTES) as usize;
        if let Some(block) = changed.blocks.get_mut(&whole) {
            block[cut..].fill(0);
        }
        changed.blocks.retain(|&block, _| block <= whole);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut changed = self.changed.lock().unwrap_or_else(PoisonError::into_inner);
        let file_len = changed.file_len;
        for (number, start, done, count) in blocks(offset, data.len()) {
            let block = match changed.blocks.entry(number) {
                Entry::Occupied(block) => block.into_mut(),
                Entry::Vacant(place) => {
                    let mut block = vec![0; BLOCK_BYTES as usize].into_boxed_slice();
                    self.read_file(file_len, number * BLOCK_BYTES, &mut block)?;
                    place.insert(block)
                }
            };
            block[start..start + count].copy_from_slice(&data[done..done + count]);
        }
        changed.len = changed.len.max(offset + data.len() as u64);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Clone)]
    enum Step {
        Write(u64, Vec<u8>),
        SetLen(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..20_000_u64, proptest::collection::vec(any::<u8>(), 1..9_000))
                .prop_map(|(at, data)| Step::Write(at, data)),
            (0..30_000_u64).prop_map(Step::SetLen),
        ]
    }

    proptest! {
        #[test]
        fn a_view_reads_as_the_changed_file_would_and_leaves_the_file_alone(
            start in proptest::collection::vec(any::<u8>(), 0..20_000),
            steps in proptest::collection::vec(step(), 0..12),
        ) {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), &start).unwrap();
            let view = View::new(File::open(file.path()).unwrap()).unwrap();
            let mut model = start.clone();
            for step in steps {
                match step {
                    Step::Write(at, data) => {
                        let at = usize::try_from(at).unwrap();
                        model.resize(model.len().max(at + data.len()), 0);
                        model[at..at + data.len()].copy_from_slice(&data);
                        view.write(at as u64, &data).unwrap();
                    }
                    Step::SetLen(len) => {
                        model.resize(usize::try_from(len).unwrap(), 0);
                        view.set_len(len).unwrap();
                    }
                }
                let mut all = vec![1; model.len()];
                view.read(0, &mut all).unwrap();
                prop_assert_eq!(&all, &model);
            }
            prop_assert!(view.read(model.len() as u64, &mut [0]).is_err());
            prop_assert_eq!(std::fs::read(file.path()).unwrap(), start);
        }
    }
}
