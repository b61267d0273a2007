//! The command line.

use crate::commands::{
    calibrate, decrypt, demo, encrypt, evaluate, finetune, infer, inspect, keygen, plan, pretrain, rehearse,
};
use crate::exit::{EXIT_CODES, Exit, Failure};
use std::str::FromStr;
use veilformer::ckks::{Parameters, ParametersLiteral};

/// Private inference of transformers on data that stays encrypted the whole time
#[derive(Debug, clap::Parser)]
#[command(name = "veilformer", version, after_help = EXIT_CODES)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Global {
    /// One JSON object per line on standard output instead of tables
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Log to standard error: -v remarks, -vv every encrypted operation
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// The whole story in one process: keys, encryption, the model under encryption, decryption
    Demo(demo::Args),
    /// Make an encoder from public text, in the clear
    Pretrain(pretrain::Args),
    /// Fit a model's polynomials to sentences, in the clear
    Calibrate(calibrate::Args),
    /// Client: make a secret key, a public key, and the server's evaluation keys
    Keygen(keygen::Args),
    /// Client: tokenise, embed and encrypt sentences
    Encrypt(encrypt::Args),
    /// Server: train LoRA and the head on ciphertexts; goes on where it was stopped
    Finetune(finetune::Args),
    /// Server: run the model on ciphertexts
    Infer(infer::Args),
    /// Client: decrypt and show logits
    Decrypt(decrypt::Args),
    /// Client: decrypt all answers of a data set and score them by the task's metric
    Evaluate(evaluate::Args),
    /// Client: what fine-tuning would reach, or did, by the same steps in the clear
    Rehearse(rehearse::Args),
    /// What a run will need: levels, keys, memory, time
    Plan(plan::Args),
    /// What a file holds, from its headers; never anything secret
    Inspect(inspect::Args),
    /// Measure every layer on this machine
    Bench(crate::bench::Args),
}

/// Threads to compute with.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Threads {
    /// Threads; the processor's cores when left out
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=512))]
    threads: Option<u16>,
}

impl Threads {
    pub(crate) fn count(self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        self.threads.map_or_else(cores, usize::from)
    }

    /// They, for work in the clear.
    pub(crate) fn pool(self) -> Result<rayon::ThreadPool, Failure> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(self.count()).build();
        pool.map_err(|error| Failure::new(Exit::Resources, error.to_string()))
    }
}

/// An amount of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size(pub(crate) u64);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let units = ["", "KiB", "MiB", "GiB", "TiB"];
        let power = units.iter().position(|name| *name == unit.trim());
        let bytes = number.parse::<f64>().ok().zip(power).map(|(n, power)| n * 1024f64.powi(power as i32));
        bytes
            .filter(|bytes| *bytes < u64::MAX as f64)
            .map(|bytes| Self(bytes as u64))
            .ok_or_else(|| format!("{text:?} is no size; expected for instance 512MiB or 2.5GiB"))
    }
}

/// A named set of parameters.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ParametersArg {
    /// A named set of parameters
    #[arg(long, value_name = "NAME", default_value = "n16/matrix")]
    parameters: String,
}

impl ParametersArg {
    pub(crate) fn check(&self) -> Result<Parameters, Failure> {
        named(&self.parameters)
    }
}

/// The set of that name, checked. Says so when it promises no security.
pub(crate) fn named(name: &str) -> Result<Parameters, Failure> {
    let Some((_, literal)) = ParametersLiteral::NAMED.iter().find(|(known, _)| *known == name) else {
        let known: Vec<&str> = ParametersLiteral::NAMED.iter().map(|(name, _)| *name).collect();
        let message = format!("no parameters are called {name:?}; known: {}", known.join(", "));
        return Err(Failure::new(Exit::Usage, message));
    };
    let parameters = literal.check()?;
    warn_if_insecure(&parameters);
    Ok(parameters)
}

/// Toy parameters are marked wherever they are used.
pub(crate) fn warn_if_insecure(parameters: &Parameters) {
    if parameters.is_insecure() {
        eprintln!(
            "WARNING: these are toy parameters WITHOUT ANY SECURITY. Anybody can read what they encrypt."
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn sizes_have_units() {
        let size = |text: &str| text.parse().map(|Size(bytes)| bytes).ok();
        assert_eq!([size("17"), size("2GiB"), size("1.5 MiB")], [Some(17), Some(2 << 30), Some(3 << 19)]);
        for bad in ["", "GiB", "2GB", "-1", "1e9", "nan", "1.2.3KiB"] {
            assert_eq!(size(bad), None, "{bad}");
        }
    }

    #[test]
    fn unknown_parameters_are_a_usage_error_that_lists_the_known() {
        let failure = named("n99").unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.message.contains("n16/leveled"));
    }
}
