//! One program on every backend: the same bytes.

use veilformer::accel::engine::NttEngine;
use veilformer::accel::{Accelerator, Offload, Portable};
use veilformer::ckks::Parameters;
use veilformer::memory::{Arena, LimbPool};
use veilformer::ring::RingTables;
use veilformer::wire::{Fault, Sink};
use veilformer_board::{Board, BoardConfig, FaultPlan};
use veilformer_fpga::BoardDriver;
use veilformer_multicore::Multicore;
use veilformer_multicore::kernels::{Kernels, Path};

/// Limbs that a program may hold.
pub(crate) const LIMBS: usize = 8192;

/// What a server does with what it was sent.
pub(crate) trait Program {
    /// The bytes of its answer.
    fn answer<A: Accelerator<Word = u64>>(&self, accelerator: &A) -> Vec<u8>;
}

/// Bytes in memory.
#[derive(Default)]
pub(crate) struct Message(pub(crate) Vec<u8>);

impl Sink for Message {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Fault> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }
}

/// Runs the program on the portable backend, on every instruction set with one thread and with three, and through a
/// board that makes mistakes. Returns the answer that all of them gave.
pub(crate) fn agree(parameters: &Parameters, program: &impl Program) -> Vec<u8> {
    let chain = parameters.chain();
    let mut tables = vec![0; RingTables::<u64>::words_needed(chain)];
    let tables = RingTables::new(chain, &mut Arena::new(&mut tables)).unwrap();
    let mut words = vec![0; parameters.degree() * LIMBS];
    let pool = LimbPool::<u64, LIMBS>::new(&mut Arena::new(&mut words), parameters.degree(), LIMBS).unwrap();
    let reference = program.answer(&Portable::new(&tables, &pool).unwrap());

    for path in Path::available() {
        let kernels = Kernels::new(path).unwrap();
        for threads in [1, 3] {
            let multicore = Multicore::with_kernels(chain, kernels, threads, LIMBS).unwrap();
            assert!(program.answer(&multicore) == reference, "{path:?}, {threads} threads");
        }
    }

    let host = Multicore::new(chain, 1, LIMBS).unwrap();
    let faults = FaultPlan { bit_flip: 2000, ..FaultPlan::default() };
    let board =
        Board::new(BoardConfig { faults, tables: chain.moduli().len() as u8, ..BoardConfig::default() });
    let engine = BoardDriver::open(board, 1 << 16).unwrap();
    let need = Offload::<BoardDriver<Board>, Multicore>::words_needed(chain, &engine.caps());
    let (mut checks, mut scratch) = (vec![0; need], vec![0; parameters.degree()]);
    let mut arena = Arena::new(&mut checks);
    let offload = Offload::new(engine, host, 1, &[7; 32], &mut arena, &mut scratch).unwrap();
    assert!(program.answer(&offload) == reference, "through a faulty board");
    let counters = offload.counters();
    assert!(counters.verified > 200 && counters.mismatches > 0, "{counters:?}");
    reference
}
