//! Keys that switch nothing, and a record of which were asked for.

use super::counting::Counting;
use std::collections::BTreeMap;
use std::sync::Mutex;
use veilformer::accel::{self, MAX_DIGITS, Polynomial};
use veilformer::ckks::{Error, KeyId, KeyRequests, KeyShape, KeySource, Parameters, SwitchingKey};

/// Keys of a dry run: there are those that were requested and no others.
pub struct CountedKeys {
    keys: BTreeMap<KeyId, SwitchingKey<Counting>>,
    used: Mutex<Used>,
}

/// The highest level that every key was used at, and how many key switches there were at every level.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Used {
    /// By key.
    pub keys: BTreeMap<KeyId, usize>,
    /// By level.
    pub switches: BTreeMap<usize, usize>,
}

impl CountedKeys {
    /// The keys of a list of requests, in limbs of `accelerator`.
    ///
    /// # Errors
    /// Out of limbs.
    pub fn new(
        accelerator: &Counting,
        parameters: &Parameters,
        requests: &KeyRequests,
    ) -> Result<Self, Error> {
        let mut keys = BTreeMap::new();
        for request in requests.iter() {
            let KeyShape { digits, basis, .. } = parameters.key_shape(request.id, request.level);
            let half = || Polynomial::allocate(accelerator, basis);
            // Not more: longer lists are no key of these parameters, and refused.
            let pairs = (0..digits.min(MAX_DIGITS)).map(|_| Ok([half()?, half()?]));
            let pairs = pairs.collect::<Result<_, accel::Error>>()?;
            keys.insert(request.id, SwitchingKey::from_digits(parameters, request.id, request.level, pairs)?);
        }
        Ok(Self { keys, used: Mutex::default() })
    }

    /// What was asked for so far.
    pub fn used(&self) -> Used {
        self.used.lock().map_or_else(|_| Used::default(), |used| used.clone())
    }
}

impl KeySource<Counting> for CountedKeys {
    type Held<'k> = &'k SwitchingKey<Counting>;

    fn key(&self, id: KeyId, level: usize) -> Result<&SwitchingKey<Counting>, Error> {
        self.check(id, level)?;
        if let Ok(mut used) = self.used.lock() {
            let highest = used.keys.entry(id).or_default();
            *highest = level.max(*highest);
            *used.switches.entry(level).or_default() += 1;
        }
        self.keys.get(&id).ok_or(Error::MissingKey { id, level })
    }

    fn check(&self, id: KeyId, level: usize) -> Result<(), Error> {
        match self.keys.get(&id) {
            Some(key) if key.level() >= level => Ok(()),
            _ => Err(Error::MissingKey { id, level }),
        }
    }
}
