//! The server's half on both rings: evaluation keys from their files, and the executor over them. Nothing here can hold
//! a secret.

use crate::args::Size;
use crate::commands::{
    EVALUATION, EVALUATION_KEYS, EVALUATION_SMALL, SECRET_KEY, SMALL_KEYS, expect_bundle, open,
};
use crate::exit::{Exit, Failure, InFile};
use crate::forecast::dry_run;
use crate::keyfile::check_finished;
use crate::keystore::{KeyIndex, KeyStore};
use crate::output::{Output, bytes};
use crate::rings::Rings;
use crate::work::Work;
use std::path::{Path, PathBuf};
use veilformer::accel::Accelerator;
use veilformer::ckks::KeyRequests;
use veilformer::ckks::client::KeyTag;
use veilformer::wire::Expected;
use veilformer_engine::plan::{Job, WEIGHTS};
use veilformer_engine::{Encrypted, Ring, required_keys, with_algebra};
use veilformer_multicore::Multicore;

/// What a batch of a job takes, by a dry run.
pub(crate) struct Demand {
    /// Operations.
    pub(crate) operations: u64,
    /// Limbs of the big ring and of the small one, beside keys.
    limbs: [usize; 2],
}

impl Demand {
    /// # Errors
    /// Why the job cannot work: better known now than in the middle of it.
    pub(crate) fn of(
        work: &Work,
        rings: &Rings,
        sentences: usize,
        job: &Job,
        threads: usize,
    ) -> Result<Self, Failure> {
        let (_, count) = dry_run(&rings.big, &work.view(), sentences, job, threads)?;
        let of_a_batch = count.phases.iter().filter(|phase| phase.name != WEIGHTS);
        let operations = of_a_batch.flat_map(|phase| phase.shares.values()).map(|share| share.count as u64);
        Ok(Self {
            operations: operations.sum(),
            limbs: [0, 1].map(|i: usize| count.peak[i] - count.key_limbs[i]),
        })
    }
}

/// The keys of both rings that a work needs: of inference, or of training too.
pub(crate) fn requests(work: &Work, rings: &Rings, trained: bool) -> Result<[KeyRequests; 2], Failure> {
    work.check_length(rings)?;
    Ok(required_keys::<Multicore, KeyStore<'_, Multicore>>(&rings.big, &work.config, trained)?)
}

/// The files of evaluation keys of both rings, opened.
pub(crate) struct ServerKeys {
    pub(crate) rings: Rings,
    /// The secret key they follow from.
    pub(crate) owner: KeyTag,
    paths: [PathBuf; 2],
    indexes: [KeyIndex; 2],
}

impl ServerKeys {
    /// Opens the keys of a folder, or those of the big ring by name and those of the small one beside them.
    ///
    /// # Errors
    /// Security for a folder with a secret key; keys that are not finished, not of one generation, damaged.
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        let paths = key_files(path)?;
        paths.iter().try_for_each(|path| check_finished(path))?;
        let mut rings = None;
        let mut owner = None;
        let mut index = |path: &PathBuf, tag: u64| -> Result<KeyIndex, Failure> {
            let (mut reader, parameters) = open(path)?;
            let expected = Expected { parameters: &parameters, key: owner };
            let what = "evaluation keys of this ring";
            let (header, bundle) =
                expect_bundle(&mut reader, &expected, what, |b| b.tag == tag && b.count > 0).in_file(path)?;
            owner = Some(header.key);
            rings.get_or_insert(parameters);
            KeyIndex::read(path, bundle.count)
        };
        let indexes = [index(&paths[0], EVALUATION_KEYS)?, index(&paths[1], SMALL_KEYS)?];
        let none = || Failure::new(Exit::Key, "no evaluation keys");
        let (big, owner) = (rings.ok_or_else(none)?, owner.ok_or_else(none)?);
        Ok(Self { rings: Rings::new(big)?, owner, paths, indexes })
    }

    /// The secret key that ciphertexts of the small ring belong to.
    pub(crate) fn small_owner(&self) -> KeyTag {
        self.indexes[1].owner()
    }

    /// That every key a work needs is there.
    pub(crate) fn check(&self, work: &Work, trained: bool) -> Result<(), Failure> {
        let requests = requests(work, &self.rings, trained)?;
        for (i, requests) in requests.iter().enumerate() {
            let check = |index: &KeyIndex| requests.iter().try_for_each(|k| index.check(k.id, k.level));
            check(&self.indexes[i]).in_file(&self.paths[i])?;
        }
        Ok(())
    }

    /// Keys.
    pub(crate) fn count(&self) -> usize {
        self.indexes.iter().map(|index| index.requests().count()).sum()
    }

    /// Limbs that keys of the big ring may take in memory: `asked` for both rings, of which all of the small ring's are
    /// in memory, or as much as the machine has beside what a job takes.
    ///
    /// # Errors
    /// Out of resources when less was asked for than that, and keys in use at once, take.
    pub(crate) fn room(&self, asked: Option<Size>, demand: &Demand) -> Result<usize, Failure> {
        let [big, small] = self.rings.both();
        let of_small = (8 * small.degree() * self.indexes[1].limbs(small)) as u64;
        let rest = asked.map(|Size(bytes)| Size(bytes.saturating_sub(of_small)));
        let factor = self.rings.degrees().factor();
        let others = demand.limbs[0] + (demand.limbs[1] + self.indexes[1].limbs(small)) / factor;
        self.indexes[0].room(big, rest, others).map_err(|failure| {
            let small = bytes(of_small);
            Failure {
                message: format!("{}, and {small} for those of the small ring", failure.message),
                ..failure
            }
        })
    }

    /// Limbs that the pools of both rings may hand out when keys of the big ring have so much room: a quarter more than a
    /// dry run's, for threads that come in another order. A pool takes memory when it is asked for a limb, so this
    /// reserves nothing.
    pub(crate) fn limbs(&self, room: usize, demand: &Demand) -> [usize; 2] {
        let keys = [room, self.indexes[1].limbs(&self.rings.small)];
        [0, 1].map(|i: usize| keys[i] + demand.limbs[i] + demand.limbs[i] / 4)
    }

    /// Keys over the accelerators, those that have room loaded.
    pub(crate) fn load<'a, A: Accelerator<Word = u64>>(
        &'a self,
        accelerators: [&'a A; 2],
        room: usize,
        threads: usize,
        output: Output,
    ) -> Result<[KeyStore<'a, A>; 2], Failure> {
        let rooms = [room, usize::MAX];
        let store = |i: usize| {
            let (parameters, index) = (self.rings.both()[i], self.indexes[i].clone());
            KeyStore::over(accelerators[i], parameters, index, rooms[i], threads)
        };
        let stores = [store(0), store(1)];
        let whole = [self.indexes[0].fits(&self.rings.big, room), true];
        let of = |i: usize| if whole[i] { stores[i].len() as u64 } else { 0 };
        let bar = output.progress("load keys", of(0) + of(1));
        for (store, _) in stores.iter().zip(whole).filter(|(_, whole)| *whole) {
            store.load_all(|| bar.inc(1))?;
        }
        bar.finish_and_clear();
        Ok(stores)
    }
}

/// Runs `work` with the algebra of both rings over keys that [`ServerKeys::load`] gave.
pub(crate) fn with_keys<A: Accelerator<Word = u64>, R>(
    rings: &Rings,
    accelerators: [&A; 2],
    keys: &[KeyStore<'_, A>; 2],
    work: impl for<'s> FnOnce(Encrypted<'s, A, KeyStore<'_, A>>) -> Result<R, Failure>,
) -> Result<R, Failure> {
    let parameters = rings.both();
    let ring = |i: usize| Ring { accelerator: accelerators[i], parameters: parameters[i], keys: &keys[i] };
    // A key that cannot be read ends the work; the store knows why.
    with_algebra(&ring(0), &ring(1), work).map_err(|failure| keys[0].explain(keys[1].explain(failure)))
}

/// Both files of keys. A folder that holds a secret key has no business on a server.
fn key_files(path: &Path) -> Result<[PathBuf; 2], Failure> {
    if !path.is_dir() {
        return Ok([path.to_owned(), path.with_file_name(EVALUATION_SMALL)]);
    }
    if path.join(SECRET_KEY).exists() {
        let message = format!(
            "{} holds a secret key, which never leaves the client; give the server {EVALUATION} and \
             {EVALUATION_SMALL} alone",
            path.display()
        );
        return Err(Failure::new(Exit::Security, message));
    }
    Ok([path.join(EVALUATION), path.join(EVALUATION_SMALL)])
}
