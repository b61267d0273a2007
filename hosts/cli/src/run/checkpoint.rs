//! The state of a run in a file.
//!
//! ```text
//! parameters; θ, m̂ and v̂, each as files of weights hold them; record: fingerprint, step, steps
//! ```

use super::RunFolder;
use crate::commands::{open_under, read_described};
use crate::exit::{Exit, Failure, InFile};
use crate::rings::{Carrier, Rings};
use crate::weights;
use crate::work::Work;
use std::path::Path;
use veilformer::accel::Accelerator;
use veilformer::ckks::Ciphertext;
use veilformer::transformer::Moments;
use veilformer::wire::{Expected, write_parameters, write_record};
use veilformer_engine::Halves;

/// What the record at its end says it is.
const STATE: u64 = u64::from_be_bytes(*b"trained ");

/// θ, m̂ and v̂.
type State<A> = Moments<weights::Encrypted<A>>;

impl RunFolder {
    /// Keeps the state after a step; returns its bytes.
    ///
    /// # Errors
    /// As [`RunFolder::keep`].
    pub(crate) fn save<A: Accelerator<Word = u64>>(
        &self,
        [step, steps]: [u32; 2],
        work: &Work,
        carrier: &mut Carrier<'_, A>,
        state: &Moments<&[Halves<Ciphertext<A>>]>,
    ) -> Result<u64, Failure> {
        self.keep(step, |file| {
            write_parameters(file, carrier.parameters)?;
            for vectors in [state.weights, state.first, state.second] {
                weights::write(file, carrier, work.fingerprint, vectors)?;
            }
            let numbers = [work.fingerprint, u64::from(step), u64::from(steps)];
            Ok(write_record(file, carrier.parameters, carrier.owner, STATE, &numbers)?)
        })
    }
}

impl RunFolder {
    /// The newest state of a run of so many steps, and the step it is after; nothing where none was kept.
    ///
    /// # Errors
    /// A file of another step, another work or another key; whatever a writer of ours would not have written.
    pub(crate) fn resume<A: Accelerator<Word = u64>>(
        &self,
        steps: u32,
        work: &Work,
        rings: &Rings,
        carrier: &mut Carrier<'_, A>,
    ) -> Result<Option<(u32, State<A>)>, Failure> {
        let Some((step, path)) = self.newest()? else { return Ok(None) };
        Ok(Some((step, load(&path, [step, steps], work, rings, carrier)?)))
    }
}

/// Reads the state after `step` of `steps`.
fn load<A: Accelerator<Word = u64>>(
    path: &Path,
    [step, steps]: [u32; 2],
    work: &Work,
    rings: &Rings,
    carrier: &mut Carrier<'_, A>,
) -> Result<State<A>, Failure> {
    let mut reader = open_under(path, &rings.big)?;
    let mut next = || weights::read(&mut reader, work, rings, carrier).in_file(path);
    let state = Moments { weights: next()?, first: next()?, second: next()? };
    let expected = Expected { parameters: carrier.parameters, key: Some(carrier.owner) };
    let described = read_described(&mut reader, &expected).in_file(path)?;
    let numbers = described.expect(STATE, "the state of a run", work).in_file(path)?;
    reader.finish().in_file(path)?;
    if numbers[..] != [step as usize, steps as usize] {
        let message = format!("holds the state after step {numbers:?}, its name says {step} of {steps}");
        return Err(Failure::new(Exit::BadFile, message).during(path.display()));
    }
    Ok(state)
}
