//! The scheme's operations, each with its precision against f64.

use super::{Figure, Setting};
use crate::client::{Client, RELEASES, Slots};
use crate::exit::Failure;
use veilformer::ckks::client::{PublicKey, SecretKey};
use veilformer::ckks::encoding::plaintext_coefficients;
use veilformer::ckks::server::Evaluator;
use veilformer::ckks::{
    Ciphertext, KeyId, KeyRequest, Parameters, ParametersLiteral, Plaintext, PrecisionStats, SwitchingKey,
};
use veilformer::wire::{ciphertext_len, switching_key_len};
use veilformer_multicore::Multicore;

/// The parameters a name is measured under.
pub(super) fn set_of(name: &str) -> Option<&'static str> {
    match name.split_once('/')? {
        ("encode" | "decode", "n16") => Some("n16/24"),
        ("ntt_forward" | "ntt_inverse" | "infer", _) => None,
        (name, _) if name.starts_with("bootstrap") => None,
        (_, "n13/3") => Some("n13/3"),
        (_, "n16/12") => Some("n16/12"),
        (_, "n16/24") => Some("n16/24"),
        _ => None,
    }
}

/// Slots in [−1, 1], the same in every run.
pub(super) fn values(count: usize, seed: u64) -> Vec<f64> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// Everything the operations work on.
struct Bench<'b> {
    setting: &'b Setting,
    set: &'static str,
    accelerator: &'b Multicore,
    parameters: &'b Parameters,
    client: Client<'b>,
    secret: SecretKey<'b, Multicore>,
    public: PublicKey<Multicore>,
    keys: Vec<SwitchingKey<Multicore>>,
    x: Vec<f64>,
    y: Vec<f64>,
    encrypted: [Ciphertext<Multicore>; 2],
}

pub(super) fn measure(
    setting: &Setting,
    set: &'static str,
    literal: &ParametersLiteral,
    names: &[&str],
    report: &mut impl FnMut(Figure) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let parameters = literal.check()?;
    let accelerator = Multicore::new(parameters.chain(), setting.threads, 1 << 12)?;
    let mut figures = Vec::new();
    accelerator.run(|| -> Result<(), Failure> {
        let mut bench = Bench::new(setting, set, &accelerator, &parameters)?;
        for name in names {
            figures.push(bench.measure(name)?);
        }
        Ok(())
    })?;
    figures.into_iter().try_for_each(report)
}

impl<'b> Bench<'b> {
    fn new(
        setting: &'b Setting,
        set: &'static str,
        accelerator: &'b Multicore,
        parameters: &'b Parameters,
    ) -> Result<Self, Failure> {
        let mut client = Client::new(accelerator, parameters)?;
        let (secret, _) = client.generate(RELEASES)?;
        let public = client.public_key(&secret)?;
        let level = parameters.max_level();
        let keys = [KeyId::Relinearization, KeyId::rotation(parameters, 1)]
            .into_iter()
            .map(|id| client.switching_key(&secret, id, level))
            .collect::<Result<_, _>>()?;
        let (x, y) = (values(parameters.slots(), 1), values(parameters.slots(), 2));
        let encrypted = [client.encrypt(&public, &x, level)?, client.encrypt(&public, &y, level)?];
        Ok(Self { setting, set, accelerator, parameters, client, secret, public, keys, x, y, encrypted })
    }

    fn measure(&mut self, name: &str) -> Result<Figure, Failure> {
        match name.split('/').next().unwrap_or_default() {
            "rotate" => self.rotate(name),
            "mul_relin_rescale" => self.multiply(name),
            "rescale" => self.rescale(name),
            "encode" => self.encode(name),
            "decode" => self.decode(name),
            "encrypt" => self.encrypt(name),
            "decrypt" => self.decrypt(name),
            _ => self.keygen(name),
        }
    }

    fn level(&self) -> usize {
        self.parameters.max_level()
    }

    fn precision(
        &mut self,
        expected: &[f64],
        obtained: &Ciphertext<Multicore>,
    ) -> Result<PrecisionStats, Failure> {
        let values = self.client.decrypt(&self.secret, obtained)?;
        Ok(PrecisionStats::of_slices(expected, &values))
    }

    fn rotate(&mut self, name: &str) -> Result<Figure, Failure> {
        let evaluator = Evaluator::new(self.accelerator, self.parameters, &self.keys[..])?;
        let (mut last, x) = (None, &self.encrypted[0]);
        let figure = self.setting.measure(
            name,
            self.set,
            1,
            || Ok(()),
            |()| {
                last = Some(evaluator.rotate(x, 1)?);
                Ok(())
            },
        )?;
        let mut expected = self.x.clone();
        expected.rotate_left(1);
        match last {
            Some(last) => Ok(figure.precise(self.precision(&expected, &last)?)),
            None => Ok(figure),
        }
    }

    fn multiply(&mut self, name: &str) -> Result<Figure, Failure> {
        let evaluator = Evaluator::new(self.accelerator, self.parameters, &self.keys[..])?;
        let (mut last, [x, y]) = (None, &self.encrypted);
        let figure = self.setting.measure(
            name,
            self.set,
            1,
            || Ok(()),
            |()| {
                last = Some(evaluator.multiply_rescale(x, y)?);
                Ok(())
            },
        )?;
        let expected: Vec<f64> = self.x.iter().zip(&self.y).map(|(x, y)| x * y).collect();
        match last {
            Some(last) => Ok(figure.precise(self.precision(&expected, &last)?).levels(1)),
            None => Ok(figure),
        }
    }

    fn rescale(&mut self, name: &str) -> Result<Figure, Failure> {
        let evaluator = Evaluator::new(self.accelerator, self.parameters, &self.keys[..])?;
        let (mut last, x) = (None, &self.encrypted[0]);
        let prepare = || {
            let mut product = evaluator.product(x.level())?;
            evaluator.multiply_constant_add(&mut product, x, 1.0)?;
            Ok(product)
        };
        let figure = self.setting.measure(name, self.set, 1, prepare, |product| {
            last = Some(evaluator.rescale(product)?);
            Ok(())
        })?;
        let expected = self.x.clone();
        match last {
            Some(last) => Ok(figure.precise(self.precision(&expected, &last)?).levels(1)),
            None => Ok(figure),
        }
    }

    fn encode(&mut self, name: &str) -> Result<Figure, Failure> {
        let level = self.level();
        let (client, x) = (&mut self.client, &self.x);
        self.setting.measure(name, self.set, 1, || Ok(()), |()| client.encode(x, level).map(drop))
    }

    fn decode(&mut self, name: &str) -> Result<Figure, Failure> {
        let level = self.level();
        let plaintext: Plaintext<Multicore> = self.client.encode(&self.x, level)?;
        let (accelerator, mut last) = (self.accelerator, Vec::new());
        let client = &mut self.client;
        let figure = self.setting.measure(
            name,
            self.set,
            1,
            || Ok(()),
            |()| {
                let Slots { words, work, .. } = &mut client.slots;
                plaintext_coefficients(accelerator, &plaintext, words, work)?;
                last = client.decode(level)?;
                Ok(())
            },
        )?;
        Ok(figure.precise(PrecisionStats::of_slices(&self.x, &last)))
    }

    fn encrypt(&mut self, name: &str) -> Result<Figure, Failure> {
        let (level, mut last) = (self.level(), None);
        let (client, public, x) = (&mut self.client, &self.public, &self.x);
        let figure = self.setting.measure(
            name,
            self.set,
            1,
            || Ok(()),
            |()| {
                last = Some(client.encrypt(public, x, level)?);
                Ok(())
            },
        )?;
        let (expected, bytes) = (self.x.clone(), ciphertext_len(self.parameters, level));
        match last {
            Some(last) => Ok(figure.precise(self.precision(&expected, &last)?).bytes(bytes)),
            None => Ok(figure),
        }
    }

    fn decrypt(&mut self, name: &str) -> Result<Figure, Failure> {
        // Every limb, as the name says; showing slots needs the lowest two only.
        let (mut last, secret, x) = (None, &self.secret, &self.encrypted[0]);
        let figure = self.setting.measure(
            name,
            self.set,
            1,
            || Ok(()),
            |()| {
                last = Some(secret.decrypt(x)?);
                Ok(())
            },
        )?;
        drop(last);
        let slots = self.client.decrypt(secret, x)?;
        Ok(figure.precise(PrecisionStats::of_slices(&self.x, &slots)))
    }

    fn keygen(&mut self, name: &str) -> Result<Figure, Failure> {
        let (level, id) = (self.level(), KeyId::rotation(self.parameters, 5));
        let (client, secret) = (&mut self.client, &self.secret);
        let figure = self.setting.measure(
            name,
            self.set,
            1,
            || Ok(()),
            |()| client.switching_key(secret, id, level).map(drop),
        )?;
        Ok(figure.bytes(switching_key_len(self.parameters, KeyRequest { id, level })))
    }
}
