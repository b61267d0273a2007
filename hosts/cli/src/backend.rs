//! Which accelerator the server runs on.

use crate::exit::{Exit, Failure};
use std::str::FromStr;
use veilformer::accel::engine::NttEngine;
use veilformer::accel::{Accelerator, Offload, OffloadCounters};
use veilformer::ckks::Parameters;
use veilformer::memory::Arena;
use veilformer_board::{Board, BoardConfig, FaultPlan};
use veilformer_fpga::BoardDriver;
use veilformer_multicore::Multicore;

/// Accelerators of a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// Every core of this machine
    #[default]
    Multicore,
    /// A model of an FPGA board: it does every transform, and every answer is verified
    Board,
}

/// Faults for the board to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Faults {
    seed: u64,
    per_million: u32,
}

impl FromStr for Faults {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (seed, rate) = text.split_once('/').ok_or("expected SEED/RATE, for instance 7/0.001")?;
        let seed = seed.parse().map_err(|_| format!("seed {seed:?} is not a number"))?;
        let rate: f64 = rate.parse().map_err(|_| format!("rate {rate:?} is not a number"))?;
        if !(0.0..=0.5).contains(&rate) {
            return Err(format!("rate {rate} is not between 0 and 0.5 per transform"));
        }
        Ok(Self { seed, per_million: (rate * 1e6).round() as u32 })
    }
}

/// The choice on the command line.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub(crate) struct BackendArgs {
    /// What the server computes with
    #[arg(long, value_enum, default_value_t)]
    pub(crate) accelerator: Kind,
    /// Faults the board makes: flipped bits and lost commands at this rate per transform
    #[arg(long, value_name = "SEED/RATE")]
    pub(crate) faults: Option<Faults>,
}

/// What a server computes with: some accelerator around this machine's own.
pub(crate) trait ServerAccelerator: Accelerator<Word = u64> {
    /// This machine.
    fn host(&self) -> &Multicore;

    /// What was offloaded.
    fn offloaded(&self) -> Option<OffloadCounters> {
        None
    }
}

impl ServerAccelerator for Multicore {
    fn host(&self) -> &Multicore {
        self
    }
}

impl<E: NttEngine + Send> ServerAccelerator for Offload<'_, E, Multicore> {
    fn host(&self) -> &Multicore {
        self.inner()
    }

    fn offloaded(&self) -> Option<OffloadCounters> {
        Some(self.counters())
    }
}

/// Work for any accelerators of the big and the small ring.
pub(crate) trait RingsWork {
    type Output: Send;
    fn run<A: ServerAccelerator>(self, accelerators: [&A; 2]) -> Result<Self::Output, Failure>;
}

/// Sets an accelerator up for each ring and works on both.
pub(crate) fn with_rings<W: RingsWork + Send>(
    args: BackendArgs,
    [big, small]: [&Parameters; 2],
    threads: usize,
    limbs: [usize; 2],
    work: W,
) -> Result<W::Output, Failure> {
    let of_big = Multicore::new(big.chain(), threads, limbs[0])?;
    let of_small = of_big.beside(small.chain(), limbs[1])?;
    let hosts = [of_big, of_small];
    tracing::info!(kernels = hosts[0].kernels(), threads, ?limbs, "accelerators");
    match args.accelerator {
        Kind::Multicore if args.faults.is_some() => Err(faults_without_board()),
        Kind::Multicore => hosts[0].run(|| work.run(hosts.each_ref())),
        Kind::Board => {
            let [of_big, of_small] = hosts;
            let mut memory: [[Vec<u64>; 2]; 2] = Default::default();
            let [for_big, for_small] = &mut memory;
            let boards = [board(args, big, of_big, for_big)?, board(args, small, of_small, for_small)?];
            boards[0].host().run(|| work.run(boards.each_ref()))
        }
    }
}

fn faults_without_board() -> Failure {
    Failure::new(Exit::Usage, "--faults are the board's; add --accelerator board")
}

/// A model of a board, and this machine for what it does not do.
fn board<'m>(
    args: BackendArgs,
    parameters: &Parameters,
    host: Multicore,
    [memory, scratch]: &'m mut [Vec<u64>; 2],
) -> Result<Offload<'m, BoardDriver<Board>, Multicore>, Failure> {
    let chain = parameters.chain();
    let log_n = chain.log_degree() as u8;
    let mut config = BoardConfig {
        min_log_n: log_n,
        max_log_n: log_n,
        tables: chain.moduli().len() as u8,
        ..BoardConfig::default()
    };
    if let Some(faults) = args.faults {
        let rate = faults.per_million;
        config.faults = FaultPlan { bit_flip: rate, dropped: rate, stuck: rate / 16, ..FaultPlan::default() };
        config.seed = faults.seed;
    }
    // A poll is one register access; the longest command must fit between two of them several times over.
    let deadline = 8 * config.timing.transform(log_n) / config.timing.access;
    let driver = BoardDriver::open(Board::new(config), deadline as u32)
        .map_err(|error| Failure::new(Exit::Failure, format!("the board does not open: {error}")))?;
    let words = Offload::<BoardDriver<Board>, Multicore>::words_needed(chain, &driver.caps());
    memory.resize(words, 0);
    scratch.resize(parameters.degree(), 0);
    let mut seed = [0; 32];
    chacha20::rand_core::Rng::fill_bytes(&mut crate::client::system_rng()?, &mut seed);
    Ok(Offload::new(driver, host, 1, &seed, &mut Arena::new(memory), scratch)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_parsed_or_explained() {
        assert_eq!("7/0.001".parse(), Ok(Faults { seed: 7, per_million: 1000 }));
        for bad in ["7", "x/0.1", "7/x", "7/0.9", "7/-1", "7/nan"] {
            assert!(bad.parse::<Faults>().is_err(), "{bad}");
        }
    }
}
