//! Evaluation keys on the server: in memory, or on disk and loaded when they are used.
//!
//! A key on disk is half a key: its uniform half is expanded from a seed, which
//! is most of the time that loading takes. Expanded keys are kept as long as
//! there is room. What goes first is the key used least, and among those the
//! one used last: a bootstrap goes through its keys in one order, again and
//! again, and the least recently used one would always be the next one needed.

use crate::args::Size;
use crate::exit::{Exit, Failure, InFile};
use crate::files::FileSource;
use crate::job::key_limbs;
use crate::output::{available_memory, bytes};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use veilformer::accel::Accelerator;
use veilformer::ckks::client::KeyTag;
use veilformer::ckks::server::bootstrap::BootstrapPlan;
use veilformer::ckks::{Error, KeyId, KeyRequest, KeySource, Parameters, SwitchingKey};
use veilformer::wire::{BUNDLE_LEN, Codec, PARAMETERS_LEN, Reader};

/// Evaluation keys, those in memory and those in a file.
pub(crate) struct KeyStore<'a, A: Accelerator<Word = u64>> {
    memory: Mutex<Memory<A>>,
    disk: Option<Disk<'a, A>>,
}

struct Memory<A: Accelerator> {
    keys: BTreeMap<KeyId, Entry<A>>,
    limbs: usize,
    clock: u64,
    loads: Loads,
    failure: Option<Failure>,
}

struct Entry<A: Accelerator> {
    key: Arc<SwitchingKey<A>>,
    uses: u64,
    last: u64,
}

/// Keys that were loaded from a file, and how long that took.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Loads {
    pub(crate) count: u64,
    pub(crate) seconds: f64,
}

/// Where the keys in a file are.
#[derive(Clone, Debug)]
pub(crate) struct KeyIndex {
    path: PathBuf,
    owner: KeyTag,
    places: BTreeMap<KeyId, (KeyRequest, u64)>,
}

impl KeyIndex {
    /// Reads the headers of the `count` keys in `path`, and no more. They belong to one secret key; which one, the first
    /// says.
    pub(crate) fn read(path: &Path, count: u64) -> Result<Self, Failure> {
        let mut start = PARAMETERS_LEN + BUNDLE_LEN;
        let owner = Reader::new(FileSource::open_at(path, start)?).header().in_file(path)?.key;
        let mut places = BTreeMap::new();
        for _ in 0..count {
            let source = FileSource::open_at(path, start)?;
            let header = Reader::new(source).header().in_file(path)?;
            let id = header.key_id().ok_or_else(|| {
                Failure::new(Exit::BadFile, "holds something that is no key").during(path.display())
            })?;
            places.insert(id, (KeyRequest { id, level: header.level.into() }, start));
            start += header.object_len();
        }
        match path.metadata().in_file(path)?.len() {
            len if len == start => Ok(Self { path: path.to_owned(), owner, places }),
            len => {
                let message = format!("{len} bytes long, {start} announced; copy or make the file again");
                Err(Failure::new(Exit::BadFile, message).during(path.display()))
            }
        }
    }

    /// The secret key they belong to.
    pub(crate) fn owner(&self) -> KeyTag {
        self.owner
    }

    /// Limbs that all of them take in memory.
    pub(crate) fn limbs(&self, parameters: &Parameters) -> usize {
        self.requests().map(|request| key_limbs(parameters, request)).sum()
    }

    /// The keys, and their highest levels.
    pub(crate) fn requests(&self) -> impl Iterator<Item = KeyRequest> {
        self.places.values().map(|(request, _)| *request)
    }

    /// Limbs that the keys may take in memory together: all of them if that was
    /// asked for, or nothing and the machine has memory for them beside `others`.
    ///
    /// # Errors
    /// Out of resources when less was asked for than keys in use at once take.
    pub(crate) fn room(
        &self,
        parameters: &Parameters,
        asked: Option<Size>,
        others: usize,
    ) -> Result<usize, Failure> {
        let limb = 8 * parameters.degree() as u64;
        let sizes = || self.requests().map(|request| key_limbs(parameters, request));
        let all = sizes().sum::<usize>();
        let at_once = BootstrapPlan::new(parameters).map_or(1, |plan| plan.keys_at_once());
        let least = (at_once * sizes().max().unwrap_or(0)).min(all);
        let room = match (asked, available_memory()) {
            (Some(Size(bytes)), _) => (bytes / limb) as usize,
            // A tenth is left to the rest of the system.
            (None, Some(bytes)) => ((bytes / 10 * 9 / limb) as usize).saturating_sub(others).max(least),
            (None, None) => all,
        };
        if room < least {
            let message = format!(
                "keys that are in use at once take {}; give --key-memory that much",
                bytes(least as u64 * limb)
            );
            return Err(Failure::new(Exit::Resources, message));
        }
        Ok(room.min(all))
    }

    /// Whether all keys have room.
    pub(crate) fn fits(&self, parameters: &Parameters, room: usize) -> bool {
        self.limbs(parameters) <= room
    }

    /// That the key is there.
    pub(crate) fn check(&self, id: KeyId, level: usize) -> Result<(), Error> {
        let there = self.places.get(&id).is_some_and(|(request, _)| request.level >= level);
        if there { Ok(()) } else { Err(Error::MissingKey { id, level }) }
    }
}

/// Keys in a file, and room for some of them in memory.
struct Disk<'a, A: Accelerator> {
    accelerator: &'a A,
    parameters: &'a Parameters,
    index: KeyIndex,
    /// Limbs that loaded keys may take together; more where more are in use at once.
    room: usize,
    /// Words to expand with, as many limbs as there are threads.
    lanes: usize,
    scratch: Mutex<Vec<Vec<u64>>>,
}

impl<'a, A: Accelerator<Word = u64>> KeyStore<'a, A> {
    /// Of keys that are put into it.
    pub(crate) fn new() -> Self {
        let memory =
            Memory { keys: BTreeMap::new(), limbs: 0, clock: 0, loads: Loads::default(), failure: None };
        Self { memory: Mutex::new(memory), disk: None }
    }

    /// Of the keys in a file, of which as many are kept in memory as `room` limbs hold.
    pub(crate) fn over(
        accelerator: &'a A,
        parameters: &'a Parameters,
        index: KeyIndex,
        room: usize,
        lanes: usize,
    ) -> Self {
        let disk = Disk { accelerator, parameters, index, room, lanes, scratch: Mutex::default() };
        Self { disk: Some(disk), ..Self::new() }
    }

    /// Keeps a key.
    pub(crate) fn insert(&mut self, key: SwitchingKey<A>) {
        self.memory().put(Arc::new(key));
    }

    /// Keys that it can give.
    pub(crate) fn len(&self) -> usize {
        self.disk.as_ref().map_or_else(|| self.memory().keys.len(), |disk| disk.index.places.len())
    }

    /// Loads all keys of the file; `tick` after each.
    pub(crate) fn load_all(&self, tick: impl Fn()) -> Result<(), Failure> {
        let requests = self.disk.iter().flat_map(|disk| disk.index.requests());
        requests.into_iter().try_for_each(|request| {
            self.key(request.id, request.level).map_err(|error| self.explain(error.into()))?;
            tick();
            Ok(())
        })
    }

    /// What was loaded so far.
    pub(crate) fn loads(&self) -> Loads {
        self.memory().loads
    }

    /// Why a key could not be loaded, if that is what `error` says.
    pub(crate) fn explain(&self, error: Failure) -> Failure {
        self.memory().failure.take().unwrap_or(error)
    }

    fn memory(&self) -> MutexGuard<'_, Memory<A>> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<A: Accelerator<Word = u64>> KeySource<A> for KeyStore<'_, A> {
    type Held<'k>
        = Arc<SwitchingKey<A>>
    where
        Self: 'k;

    fn key(&self, id: KeyId, level: usize) -> Result<Arc<SwitchingKey<A>>, Error> {
        let missing = Error::MissingKey { id, level };
        if let Some(key) = self.memory().take(id) {
            return if key.level() >= level { Ok(key) } else { Err(missing) };
        }
        let disk = self.disk.as_ref().ok_or(missing)?;
        disk.index.check(id, level)?;
        let &(request, start) = disk.index.places.get(&id).ok_or(missing)?;
        self.memory().make_room(disk.room, key_limbs(disk.parameters, request));
        // Nothing is locked meanwhile: loading waits for threads, which may ask for keys.
        let began = Instant::now();
        let key = Arc::new(disk.load(start).map_err(|failure| {
            self.memory().failure.get_or_insert(failure);
            Error::UnreadableKey { id }
        })?);
        let mut memory = self.memory();
        memory.loads.count += 1;
        memory.loads.seconds += began.elapsed().as_secs_f64();
        memory.put(Arc::clone(&key));
        Ok(key)
    }

    fn check(&self, id: KeyId, level: usize) -> Result<(), Error> {
        match &self.disk {
            Some(disk) => disk.index.check(id, level),
            None => self.key(id, level).map(drop),
        }
    }
}

impl<A: Accelerator> Memory<A> {
    fn put(&mut self, key: Arc<SwitchingKey<A>>) {
        self.clock += 1;
        self.limbs += limbs_of(&key);
        let entry = Entry { uses: 1, last: self.clock, key };
        if let Some(old) = self.keys.insert(entry.key.id(), entry) {
            self.limbs -= limbs_of(&old.key);
        }
    }

    fn take(&mut self, id: KeyId) -> Option<Arc<SwitchingKey<A>>> {
        self.clock += 1;
        let entry = self.keys.get_mut(&id)?;
        (entry.uses, entry.last) = (entry.uses + 1, self.clock);
        Some(Arc::clone(&entry.key))
    }

    /// Lets go of keys until `need` more limbs fit into `room`. Keys in use stay.
    fn make_room(&mut self, room: usize, need: usize) {
        while self.limbs + need > room {
            let idle = self.keys.iter().filter(|(_, entry)| Arc::strong_count(&entry.key) == 1);
            let Some((&id, _)) = idle.min_by_key(|(_, entry)| (entry.uses, Reverse(entry.last))) else {
                return;
            };
            if let Some(entry) = self.keys.remove(&id) {
                self.limbs -= limbs_of(&entry.key);
            }
        }
    }
}

/// Limbs of a key in memory.
fn limbs_of<A: Accelerator>(key: &SwitchingKey<A>) -> usize {
    key.digits().iter().map(|[b, a]| b.basis().len() + a.basis().len()).sum()
}

impl<A: Accelerator<Word = u64>> Disk<'_, A> {
    fn load(&self, start: u64) -> Result<SwitchingKey<A>, Failure> {
        let kept = || self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        let degree = self.parameters.degree();
        let mut words = kept().pop().unwrap_or_else(|| vec![0; degree * self.lanes]);
        let path = &self.index.path;
        let mut reader = Reader::new(FileSource::open_at(path, start)?);
        let mut codec = Codec::new(self.accelerator, self.parameters, &mut words)?;
        let key = codec.read_switching_key(&mut reader, Some(self.index.owner)).in_file(path)?;
        let key = key.expand(self.accelerator, self.parameters, &mut words)?;
        kept().push(words);
        Ok(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bootstrap::refreshing_keys;
    use crate::client::{Client, RELEASES};
    use crate::keyfile::{KeyLayout, Making, Title};
    use indicatif::ProgressBar;
    use veilformer::ckks::ParametersLiteral;
    use veilformer::ckks::encoding::Complex;
    use veilformer::ckks::server::Evaluator;
    use veilformer::ckks::server::bootstrap::Bootstrap;
    use veilformer_multicore::Multicore;

    /// Bootstraps `runs` times with all keys in memory, with a part of them, and with as few as
    /// can be; hands over the room in bytes, the loads and the seconds of each run.
    fn compare(
        literal: ParametersLiteral,
        threads: usize,
        runs: usize,
        mut told: impl FnMut(usize, Loads, f64),
    ) {
        let parameters = literal.check().unwrap();
        let accelerator = Multicore::new(parameters.chain(), threads, 1 << 15).unwrap();
        let mut client = Client::new(&accelerator, &parameters).unwrap();
        let (secret, _) = client.generate(RELEASES).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        let layout = KeyLayout::new(&parameters, &refreshing_keys(&parameters).unwrap());
        let title = Title { parameters: &parameters, owner: secret.tag(), tag: 1 };
        let making = Making::begin(&path, &accelerator, &secret, &title, &layout).unwrap();
        making.fill(1, &ProgressBar::hidden()).unwrap();
        making.finish(&path).unwrap();
        let index = KeyIndex::read(&path, layout.count() as u64).unwrap();
        let encoder = crate::client::encoder(parameters.degree()).unwrap();
        let constants = veilformer_engine::bootstrap_constants(&accelerator, &parameters, &encoder).unwrap();
        let public = client.public_key(&secret).unwrap();
        let values = vec![Complex::new(0.5, -0.25); parameters.slots()];
        let level = BootstrapPlan::new(&parameters).unwrap().floor();
        let x = client.encrypt_complex(&public, &values, level).unwrap();
        let room = |bytes| index.room(&parameters, bytes, 0).unwrap();
        let all = room(None);
        let largest = index.requests().map(|r| key_limbs(&parameters, r)).max().unwrap();
        let least = largest * BootstrapPlan::new(&parameters).unwrap().keys_at_once();
        let mut answer: Option<Vec<u8>> = None;
        for room in [all, (all + least) / 2, least] {
            let keys = KeyStore::over(&accelerator, &parameters, index.clone(), room, threads);
            if room == all {
                keys.load_all(|| ()).unwrap();
            }
            let evaluator = Evaluator::new(&accelerator, &parameters, &keys).unwrap();
            let bootstrap = Bootstrap::new(evaluator, &constants).unwrap();
            for _ in 0..runs {
                let (before, began) = (keys.loads(), Instant::now());
                let y = accelerator.run(|| bootstrap.refresh(&x)).unwrap();
                let (seconds, after) = (began.elapsed().as_secs_f64(), keys.loads());
                assert!(keys.memory().limbs <= room, "{} of {room} limbs", keys.memory().limbs);
                let new =
                    Loads { count: after.count - before.count, seconds: after.seconds - before.seconds };
                told(room * 8 * parameters.degree(), new, seconds);
                let y = client.message(secret.tag(), &y).unwrap();
                assert!(*answer.get_or_insert_with(|| y.clone()) == y, "another answer within {room} limbs");
            }
        }
    }

    #[cfg(feature = "insecure-toy")]
    #[test]
    fn keys_on_disk_bootstrap_to_the_same_bits() {
        let mut loads = Vec::new();
        compare(ParametersLiteral::INSECURE_TOY_BOOT, 2, 2, |_, l, _| loads.push(l.count));
        let [all, all_again, part, part_again, least, least_again] = loads[..] else { panic!("{loads:?}") };
        assert_eq!((all, all_again), (0, 0));
        // What had room the first time is not loaded again.
        assert!(0 < part_again && part_again < part, "{loads:?}");
        assert!(part_again < least_again && least_again <= least, "{loads:?}");
    }

    /// Figures, not a test: `cargo test --release -p veilformer-cli -- --ignored --nocapture cost_of`.
    #[test]
    #[ignore = "measures for minutes and takes 6 GiB"]
    fn cost_of_keys_on_disk() {
        let threads = std::thread::available_parallelism().unwrap().get();
        compare(ParametersLiteral::N16_BOOT, threads, 3, |room, loads, seconds| {
            println!(
                "{} for keys: {seconds:.2} s, of which {} keys loaded in {:.2} s",
                bytes(room as u64),
                loads.count,
                loads.seconds
            );
        });
    }

    #[test]
    fn a_key_that_cannot_be_read_is_explained() {
        let parameters = ParametersLiteral::N13_3.check().unwrap();
        let accelerator = Multicore::new(parameters.chain(), 1, 64).unwrap();
        let request = KeyRequest { id: KeyId::Relinearization, level: 1 };
        let places = BTreeMap::from([(request.id, (request, 0))]);
        let index = KeyIndex { path: "gone".into(), owner: KeyTag([0; 16]), places };
        let keys = KeyStore::over(&accelerator, &parameters, index, 64, 1);
        assert!(keys.check(request.id, 1).is_ok());
        assert!(matches!(keys.check(request.id, 2), Err(Error::MissingKey { level: 2, .. })));
        let error = keys.key(request.id, 1).err().unwrap();
        assert_eq!(error, Error::UnreadableKey { id: request.id });
        let failure = keys.explain(error.into());
        assert!(failure.exit == Exit::BadFile && failure.message.contains("gone"), "{}", failure.message);
    }
}
