//! Tables of the accelerator that depend on how it is called.

use crate::kernels::KernelError;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use veilformer::accel::{Error, ErrorKind};

/// Tables made on first use and kept.
pub(super) struct Cache<K, V>(Mutex<HashMap<K, Arc<V>>>);

impl<K, V> Default for Cache<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash, V> Cache<K, V> {
    /// The table of `key`, made if it is not there.
    pub(super) fn get(&self, key: K, make: impl FnOnce() -> Result<V, KernelError>) -> Result<Arc<V>, Error> {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(value) = map.get(&key) {
            return Ok(Arc::clone(value));
        }
        let value = Arc::new(make().map_err(|_| Error::Device { kind: ErrorKind::Unsupported })?);
        map.insert(key, Arc::clone(&value));
        Ok(value)
    }
}
