//! The server's half: public keys, ciphertexts in, ciphertexts out. Nothing
//! here can hold a secret.

use crate::backend::ServerAccelerator;
use crate::bootstrap::Constants;
use crate::exit::Failure;
pub(crate) use crate::keystore::KeyStore;
use crate::model::LoadedModel;
use crate::watch::Watched;
use veilformer::accel::Accelerator;
use veilformer::ckks::client::KeyTag;
use veilformer::ckks::server::Evaluator;
use veilformer::ckks::server::bootstrap::Bootstrap;
use veilformer::ckks::{Ciphertext, Parameters};
use veilformer::transformer::forward;
use veilformer::transformer::slots::{EncryptedSlots, Scratch, SlotExecutor, SlotTensor};
use veilformer::wire::{self, Codec, Reader, Sink, Source};

/// Memory of a server under one set of parameters.
pub(crate) struct Server<'a, A: Accelerator<Word = u64>> {
    accelerator: &'a A,
    parameters: &'a Parameters,
    pub(crate) keys: KeyStore<'a, A>,
    words: Vec<u64>,
    codec: Vec<u64>,
}

impl<'a, A: ServerAccelerator> Server<'a, A> {
    pub(crate) fn new(accelerator: &'a A, parameters: &'a Parameters) -> Self {
        let degree = parameters.degree();
        let words = vec![0; degree * accelerator.host().threads()];
        Self { accelerator, parameters, keys: KeyStore::new(), words, codec: vec![0; degree] }
    }

    /// Reads one evaluation key and keeps it.
    pub(crate) fn read_key<S: Source>(
        &mut self,
        reader: &mut Reader<S>,
        owner: Option<KeyTag>,
    ) -> Result<(), Failure> {
        let mut codec = Codec::new(self.accelerator, self.parameters, &mut self.codec)?;
        let key = codec.read_switching_key(reader, owner)?;
        self.keys.insert(key.expand(self.accelerator, self.parameters, &mut self.words)?);
        Ok(())
    }

    pub(crate) fn read_ciphertext<S: Source>(
        &mut self,
        reader: &mut Reader<S>,
        owner: Option<KeyTag>,
    ) -> Result<Ciphertext<A>, Failure> {
        Ok(Codec::new(self.accelerator, self.parameters, &mut self.codec)?.read_ciphertext(reader, owner)?)
    }

    pub(crate) fn write_ciphertext(
        &mut self,
        sink: &mut impl Sink,
        owner: KeyTag,
        ciphertext: &Ciphertext<A>,
    ) -> Result<(), wire::Error> {
        Codec::new(self.accelerator, self.parameters, &mut self.codec)?
            .write_ciphertext(sink, owner, ciphertext)
    }

    /// Runs the model on a batch; `tick` hears of work as it is done.
    pub(crate) fn infer(
        &self,
        model: &LoadedModel,
        tokens: Ciphertext<A>,
        mask: Ciphertext<A>,
        tick: impl FnMut(f64),
    ) -> Result<Ciphertext<A>, Failure> {
        let degree = self.parameters.degree();
        let encoder = crate::client::encoder(degree)?;
        let (reals, integers) = Scratch::words_needed(degree);
        let (mut reals, mut integers) = (vec![0.0; reals], vec![0; integers]);
        let scratch = Scratch::new(degree, &mut reals, &mut integers)?;
        let evaluator = Evaluator::new(self.accelerator, self.parameters, &self.keys)?;
        let constants = match self.parameters.bootstrap() {
            Some(_) => Some(Constants::new(self.accelerator, self.parameters, &encoder)?),
            None => None,
        };
        let mut slots = EncryptedSlots::new(evaluator, &encoder, scratch);
        if let Some(constants) = &constants {
            slots = slots.with_bootstrap(Bootstrap::new(evaluator, constants.limbs())?);
        }
        let mut executor = SlotExecutor::new(Watched::new(slots, self.parameters, tick), model)?;
        let (tokens, mask) = (SlotTensor::tokens(tokens), SlotTensor::tokens(mask));
        let logits = forward(model.config(), &mut executor, tokens, &mask)
            .map_err(|error| self.keys.explain(error.into()))?;
        drop(mask);
        Ok(logits.vector().duplicate(self.accelerator)?)
    }
}
