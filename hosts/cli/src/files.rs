//! Files as the wire formats read and write them.
//!
//! A file appears under its name only when it is complete, and never in place
//! of another one unless that was asked for. Secrets are readable by their
//! owner alone from the first byte on, and pass through no buffer of ours.

use crate::exit::{Exit, Failure, InFile};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use veilformer::wire::{Fault, Sink, Source};

const BUFFER: usize = 1 << 20;

fn fault(error: &std::io::Error) -> Fault {
    Fault { code: error.raw_os_error().unwrap_or(0) }
}

/// A file to read.
pub(crate) struct FileSource {
    file: BufReader<File>,
    left: u64,
}

impl FileSource {
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        Self::open_at(path, 0)
    }

    /// From byte `start` on.
    pub(crate) fn open_at(path: &Path, start: u64) -> Result<Self, Failure> {
        let mut file = File::open(path).in_file(path)?;
        let metadata = file.metadata().in_file(path)?;
        if !metadata.is_file() {
            return Err(Failure::new(Exit::BadFile, "not a file").during(path.display()));
        }
        file.seek(SeekFrom::Start(start)).in_file(path)?;
        let left = metadata.len().saturating_sub(start);
        Ok(Self { file: BufReader::with_capacity(BUFFER.min(left as usize + 1), file), left })
    }
}

impl Source for FileSource {
    fn read(&mut self, bytes: &mut [u8]) -> Result<usize, Fault> {
        let count = self.file.read(bytes).map_err(|error| fault(&error))?;
        self.left = self.left.saturating_sub(count as u64);
        Ok(count)
    }

    fn remaining(&self) -> Option<u64> {
        Some(self.left)
    }
}

/// Who may read a new file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Readers {
    /// Its owner.
    Owner,
    /// As the system has it.
    Anyone,
}

/// A file that appears under its name when [`NewFile::commit`] is called, and else not at all.
pub(crate) struct NewFile {
    path: PathBuf,
    partial: PathBuf,
    file: File,
    buffer: Vec<u8>,
    buffered: bool,
    force: bool,
    written: u64,
}

/// Refuses early to replace a file: before hours of work, not after.
pub(crate) fn check_free(path: &Path, force: bool) -> Result<(), Failure> {
    if !force && path.symlink_metadata().is_ok() {
        let message = format!("{} exists; choose another name or pass --force to replace it", path.display());
        return Err(Failure::new(Exit::Usage, message));
    }
    Ok(())
}

impl NewFile {
    pub(crate) fn create(path: &Path, readers: Readers, force: bool) -> Result<Self, Failure> {
        check_free(path, force)?;
        let name = path
            .file_name()
            .ok_or_else(|| Failure::new(Exit::Usage, "names no file").during(path.display()))?
            .to_string_lossy();
        let partial = path.with_file_name(format!(".{name}.{}.part", std::process::id()));
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        if readers == Readers::Owner {
            use std::os::unix::fs::OpenOptionsExt;
            options.mode(0o600);
        }
        let file = options.open(&partial).in_file(&partial)?;
        let buffered = readers == Readers::Anyone;
        Ok(Self { path: path.to_owned(), partial, file, buffer: Vec::new(), buffered, force, written: 0 })
    }

    /// Writes through and gives the file its name. Returns its length.
    pub(crate) fn commit(mut self) -> Result<u64, Failure> {
        self.flush().and_then(|()| self.file.sync_all()).in_file(&self.path)?;
        if self.force {
            fs::rename(&self.partial, &self.path).in_file(&self.path)?;
        } else {
            // Unlike a rename, a link fails when somebody took the name in the meantime.
            match fs::hard_link(&self.partial, &self.path) {
                Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                    check_free(&self.path, false)?;
                    fs::rename(&self.partial, &self.path).in_file(&self.path)?;
                }
                result => result.in_file(&self.path)?,
            }
        }
        Ok(self.written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.write_all(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        // Gone already after a rename; best effort after a failure.
        let _ = fs::remove_file(&self.partial);
    }
}

impl Sink for NewFile {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Fault> {
        if self.buffered {
            self.buffer.extend_from_slice(bytes);
            if self.buffer.len() >= BUFFER {
                self.flush().map_err(|error| fault(&error))?;
            }
        } else {
            self.file.write_all(bytes).map_err(|error| fault(&error))?;
        }
        self.written += bytes.len() as u64;
        Ok(bytes.len())
    }
}

/// A stretch of a file that is there already, to be written. Several may be open at once.
pub(crate) struct Stretch {
    file: BufWriter<File>,
}

impl Stretch {
    pub(crate) fn open(path: &Path, start: u64) -> Result<Self, Failure> {
        let mut file = OpenOptions::new().write(true).open(path).in_file(path)?;
        file.seek(SeekFrom::Start(start)).in_file(path)?;
        Ok(Self { file: BufWriter::with_capacity(BUFFER, file) })
    }

    /// Hands everything to the system. What a stretch that is dropped before was given may be lost.
    pub(crate) fn finish(mut self) -> Result<(), Failure> {
        Ok(self.file.flush()?)
    }
}

impl Sink for Stretch {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Fault> {
        self.file.write_all(bytes).map_err(|error| fault(&error))?;
        Ok(bytes.len())
    }
}

/// One process works in a folder; the system ends the claim with the process.
pub(crate) struct Claim(File);

impl Claim {
    /// The file that is locked stays: whoever removes it could lock another than a rival has open.
    const NAME: &str = ".lock";

    /// `what` says what this process is doing there, for whoever comes second.
    pub(crate) fn take(folder: &Path, what: &str) -> Result<Self, Failure> {
        let path = folder.join(Self::NAME);
        let file = OpenOptions::new().create(true).append(true).open(&path).in_file(&path)?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => {
                let message = format!("another process is {what} in {}; wait for it", folder.display());
                Err(Failure::new(Exit::Usage, message))
            }
            Err(TryLockError::Error(error)) => Err(error).in_file(&path),
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // Closing the file does the same.
        let _ = self.0.unlock();
    }
}

/// Removes what processes that were killed left of new files whose names begin like that.
pub(crate) fn sweep(folder: &Path, name: &str) -> Result<(), Failure> {
    for entry in fs::read_dir(folder).in_file(folder)? {
        let entry = entry.in_file(folder)?;
        let left = entry.file_name();
        let left = left.to_string_lossy();
        if left.starts_with(&format!(".{name}")) && left.ends_with(".part") {
            fs::remove_file(entry.path()).in_file(&entry.path())?;
        }
    }
    Ok(())
}

/// Makes names that were given or taken in a folder last through a power failure.
pub(crate) fn sync_folder(folder: &Path) -> Result<(), Failure> {
    #[cfg(unix)]
    File::open(folder).and_then(|folder| folder.sync_all()).in_file(folder)?;
    #[cfg(not(unix))]
    let _ = folder;
    Ok(())
}

/// Bytes in memory, for objects that pass from one role to the other in one process.
#[derive(Default)]
pub(crate) struct Message(pub(crate) Vec<u8>);

impl Sink for Message {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Fault> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(path: &Path, readers: Readers, force: bool, bytes: &[u8]) -> Result<u64, Failure> {
        let mut file = NewFile::create(path, readers, force)?;
        file.write(bytes).map_err(veilformer::wire::Error::from)?;
        file.commit()
    }

    #[test]
    fn a_file_appears_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        drop(NewFile::create(&path, Readers::Anyone, false).unwrap());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        assert_eq!(put(&path, Readers::Anyone, false, b"one").unwrap(), 3);
        assert_eq!(put(&path, Readers::Anyone, false, b"two").unwrap_err().exit, Exit::Usage);
        assert_eq!(fs::read(&path).unwrap(), b"one");
        put(&path, Readers::Anyone, true, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_name_taken_meanwhile_is_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        let file = NewFile::create(&path, Readers::Anyone, false).unwrap();
        fs::write(&path, b"theirs").unwrap();
        assert_eq!(file.commit().unwrap_err().exit, Exit::Usage);
        assert_eq!(fs::read(&path).unwrap(), b"theirs");
    }

    #[cfg(unix)]
    #[test]
    fn secrets_are_for_their_owner() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret.key");
        put(&path, Readers::Owner, false, b"s").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_source_knows_what_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        fs::write(&path, b"12345").unwrap();
        let mut source = FileSource::open(&path).unwrap();
        let mut bytes = [0; 3];
        assert_eq!((source.read(&mut bytes), source.remaining()), (Ok(3), Some(2)));
        assert_eq!(FileSource::open(folder.path()).err().map(|f| f.exit), Some(Exit::BadFile));
        assert!(FileSource::open(&folder.path().join("no")).is_err());
    }
}
