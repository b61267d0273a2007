//! The file of evaluation keys while it is made.
//!
//! Where every key will be follows from the list of keys, and every key from
//! the secret key. So keys are made several at a time, in any order, and a file
//! that was left unfinished needs no record of how far it came: a key is there
//! if its checksum says so, and whatever is not is made again, bit for bit.

use crate::exit::{Exit, Failure, InFile};
use crate::files::{FileSource, Message, Stretch};
use indicatif::ProgressBar;
use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use veilformer::ckks::client::{KeyTag, SecretKey};
use veilformer::ckks::{KeyRequest, KeyRequests, Parameters};
use veilformer::wire::{
    BUNDLE_LEN, Bundle, Codec, PARAMETERS_LEN, Reader, switching_key_len, write_bundle, write_parameters,
};
use veilformer_multicore::Multicore;

/// What a file of keys is called until it is whole.
const SUFFIX: &str = ".unfinished";

/// Most keys in the making at once: memory is bounded on machines of many threads.
const AT_ONCE: usize = 16;

/// The name of a file of keys until it is whole.
pub(crate) fn unfinished(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(SUFFIX);
    name.into()
}

/// Whether that is a file of keys that is not whole yet.
pub(crate) fn is_unfinished(path: &Path) -> bool {
    path.to_string_lossy().ends_with(SUFFIX)
}

/// Refuses a file of keys that is unfinished, or that an unfinished one is about to replace.
pub(crate) fn check_finished(path: &Path) -> Result<(), Failure> {
    if is_unfinished(path) || unfinished(path).symlink_metadata().is_ok() {
        let folder = path.parent().unwrap_or(path).display();
        let message =
            format!("key generation did not finish; run `veilformer keygen --out {folder} --resume` first");
        return Err(Failure::new(Exit::Key, message).during(path.display()));
    }
    Ok(())
}

/// Where every key is in a file of keys.
pub(crate) struct KeyLayout {
    places: Vec<(KeyRequest, u64)>,
    len: u64,
}

impl KeyLayout {
    pub(crate) fn new(parameters: &Parameters, requests: &KeyRequests) -> Self {
        let mut len = PARAMETERS_LEN + BUNDLE_LEN;
        let places = requests.iter().map(|request| {
            let start = len;
            len += switching_key_len(parameters, *request);
            (*request, start)
        });
        Self { places: places.collect(), len }
    }

    /// Keys.
    pub(crate) fn count(&self) -> usize {
        self.places.len()
    }

    /// Bytes of the file.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// What comes before the first key.
    fn front(&self, title: &Title<'_>) -> Result<Vec<u8>, Failure> {
        let mut front = Message::default();
        write_parameters(&mut front, title.parameters)?;
        let bytes = self.len - PARAMETERS_LEN - BUNDLE_LEN;
        let bundle = Bundle { tag: title.tag, count: self.count() as u64, bytes };
        write_bundle(&mut front, title.parameters, title.owner, &bundle)?;
        Ok(front.0)
    }
}

/// What a file of keys says of itself. The keys of the small ring are made under parameters and for a secret that follow
/// from those of the big ring, and it is those that their file names: so files of two generations are told apart.
#[derive(Clone, Copy)]
pub(crate) struct Title<'p> {
    pub(crate) parameters: &'p Parameters,
    pub(crate) owner: KeyTag,
    pub(crate) tag: u64,
}

/// A file of keys in the making.
pub(crate) struct Making<'m> {
    accelerator: &'m Multicore,
    secret: &'m SecretKey<'m, Multicore>,
    layout: &'m KeyLayout,
    path: PathBuf,
    missing: Vec<(KeyRequest, u64)>,
}

impl<'m> Making<'m> {
    /// Limbs that the keys in the making take besides the secret key: each the
    /// secrets switched from and to, and one digit.
    pub(crate) fn limbs(parameters: &Parameters, threads: usize) -> usize {
        4 * parameters.chain().moduli().len() * Self::workers(threads)
    }

    fn workers(threads: usize) -> usize {
        threads.clamp(1, AT_ONCE)
    }

    /// Begins the file that will be called `path`, or goes on with what there is of it.
    /// The accelerator has one thread: every key is made on one, and shares none of its work.
    pub(crate) fn begin(
        path: &Path,
        accelerator: &'m Multicore,
        secret: &'m SecretKey<'m, Multicore>,
        title: &Title<'_>,
        layout: &'m KeyLayout,
    ) -> Result<Self, Failure> {
        let path = unfinished(path);
        let front = layout.front(title)?;
        let mut options = OpenOptions::new();
        let mut file =
            options.read(true).write(true).create(true).truncate(false).open(&path).in_file(&path)?;
        let have = file.metadata().in_file(&path)?.len();
        let mut found = vec![0; front.len().min(have as usize)];
        file.read_exact(&mut found).in_file(&path)?;
        // A crash can leave zeros where something was to be.
        if found.iter().any(|&byte| byte != 0) && !front.starts_with(&found) {
            let message = "begun for another secret key, other parameters or another model; \
                           repeat what it was begun with, or start anew with --force";
            return Err(Failure::new(Exit::BadFile, message).during(path.display()));
        }
        if found != front {
            let mut start = Stretch::open(&path, 0)?;
            veilformer::wire::Sink::write(&mut start, &front)
                .map_err(veilformer::wire::Error::from)
                .in_file(&path)?;
            start.finish().in_file(&path)?;
        }
        let whole = |&(request, start): &(KeyRequest, u64)| is_whole(&path, have, secret, request, start);
        let missing = layout.places.iter().filter(|place| !whole(place)).copied().collect();
        Ok(Self { accelerator, secret, layout, path, missing })
    }

    /// Keys that were there.
    pub(crate) fn kept(&self) -> usize {
        self.layout.count() - self.missing.len()
    }

    /// Makes the keys that are missing, each on one of `threads`.
    pub(crate) fn fill(&self, threads: usize, bar: &ProgressBar) -> Result<(), Failure> {
        let (next, failed) = (AtomicUsize::new(0), Mutex::new(None));
        let work = || {
            let degree = self.secret.parameters().degree();
            let mut scratch = (vec![0; degree], vec![0; degree], vec![0; degree]);
            while let Some(&(request, start)) = self.missing.get(next.fetch_add(1, Ordering::Relaxed)) {
                if let Err(failure) = self.make(request, start, &mut scratch) {
                    next.store(self.missing.len(), Ordering::Relaxed);
                    failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(failure);
                }
                bar.inc(1);
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..Self::workers(threads).min(self.missing.len()) {
                scope.spawn(work);
            }
        });
        let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
        let again = |failure: Failure| match self.path.exists() {
            true => Failure {
                message: format!("{}; what was made is kept: repeat with --resume", failure.message),
                ..failure
            },
            false => failure,
        };
        failed.map_or(Ok(()), |failure| Err(again(failure)))
    }

    fn make(
        &self,
        request: KeyRequest,
        start: u64,
        (signed, words, codec): &mut (Vec<i64>, Vec<u64>, Vec<u64>),
    ) -> Result<(), Failure> {
        let mut place = Stretch::open(&self.path, start)?;
        let mut codec = Codec::new(self.accelerator, self.secret.parameters(), codec)?;
        codec.make_switching_key(&mut place, self.secret, request, signed, words).in_file(&self.path)?;
        place.finish().in_file(&self.path)
    }

    /// Gives the file, which is whole now, its name. Returns its length.
    pub(crate) fn finish(self, path: &Path) -> Result<u64, Failure> {
        let file = OpenOptions::new().write(true).open(&self.path).in_file(&self.path)?;
        file.set_len(self.layout.len).and_then(|()| file.sync_all()).in_file(&self.path)?;
        fs::rename(&self.path, path).in_file(path)?;
        Ok(self.layout.len)
    }
}

/// Whether `path` begins as the file of these keys does.
pub(crate) fn is_of(path: &Path, title: &Title<'_>, layout: &KeyLayout) -> Result<bool, Failure> {
    let front = layout.front(title)?;
    let mut file = File::open(path).in_file(path)?;
    let mut found = vec![0; front.len()];
    let same_len = file.metadata().in_file(path)?.len() == layout.len;
    Ok(same_len && file.read_exact(&mut found).is_ok() && found == front)
}

/// Whether the key is at its place, undamaged.
fn is_whole(
    path: &Path,
    have: u64,
    secret: &SecretKey<'_, Multicore>,
    request: KeyRequest,
    start: u64,
) -> bool {
    let len = switching_key_len(secret.parameters(), request);
    if start + len > have {
        return false;
    }
    let Ok(source) = FileSource::open_at(path, start) else { return false };
    Reader::new(source).skip().is_ok_and(|header| {
        header.key == secret.tag()
            && header.key_id() == Some(request.id)
            && usize::from(header.level) == request.level
            && header.object_len() == len
    })
}
