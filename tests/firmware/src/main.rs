//! A sensor on a Cortex-M4F: proves its memory, then encodes, encrypts, decrypts and compares with the answer
//! computed on a host. Exits by semihosting, so the emulator's status says whether all of it was right.
#![no_std]
#![no_main]

mod scenario;

use core::panic::PanicInfo;
use cortex_m::peripheral::{SYST, syst::SystClkSource};
use cortex_m_rt::entry;
use cortex_m_semihosting::{debug, hprintln};
use scenario::{CIPHERTEXT, INTEGERS, READINGS_BACK, WORDS};

fn fail(line: core::fmt::Arguments<'_>) -> ! {
    hprintln!("FAILED: {}", line);
    debug::exit(debug::EXIT_FAILURE);
    loop {}
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    fail(format_args!("{info}"))
}

/// Counts instructions: with `-icount shift=0` one takes 1 ns, and the reference clock of the board is 1 MHz, so
/// that a tick is a thousand of them. A step must stay below 2^24 ticks.
struct Clock {
    timer: SYST,
    last: u32,
}

impl Clock {
    fn start(mut timer: SYST) -> Self {
        timer.set_clock_source(SystClkSource::External);
        timer.set_reload(0x00FF_FFFF);
        timer.clear_current();
        timer.enable_counter();
        Self { timer, last: SYST::get_current() }
    }

    fn step(&mut self, name: &str) {
        let ticks = self.last.wrapping_sub(SYST::get_current()) & 0x00FF_FFFF;
        hprintln!("{:<20} {:>8} thousand instructions", name, ticks);
        self.timer.clear_current();
        self.last = SYST::get_current();
    }
}

/// Fills memory with a pattern that differs in every word, then looks whether it is there: missing or mirrored
/// memory reads as something else. Leaves zeros.
fn probe(words: &mut [u32], integers: &mut [i64]) -> bool {
    let pattern = |i: usize| (i as u32 ^ 0x5A5A_0000).wrapping_mul(0x9E37_79B1);
    for (i, word) in words.iter_mut().enumerate() {
        *word = pattern(i);
    }
    for (i, word) in integers.iter_mut().enumerate() {
        *word = i64::from(pattern(i)) << 31 ^ i as i64;
    }
    // Or the compiler proves what the memory should prove.
    let (words, integers) = (core::hint::black_box(words), core::hint::black_box(integers));
    let here = words.iter().enumerate().all(|(i, &word)| word == pattern(i))
        && integers.iter().enumerate().all(|(i, &word)| word == i64::from(pattern(i)) << 31 ^ i as i64);
    words.fill(0);
    integers.fill(0);
    here
}

#[unsafe(link_section = ".psram")]
static mut WORDS_HERE: [u32; WORDS] = [0; WORDS];
#[unsafe(link_section = ".psram")]
static mut INTEGERS_HERE: [i64; INTEGERS] = [0; INTEGERS];

#[entry]
fn main() -> ! {
    // SAFETY: the entry point runs once, and nothing else names the two statics.
    let (words, integers) = unsafe { (&mut *&raw mut WORDS_HERE, &mut *&raw mut INTEGERS_HERE) };
    hprintln!("{} KiB of static memory at {:p}", (4 * WORDS + 8 * INTEGERS) / 1024, words.as_ptr());
    if !probe(words, integers) {
        fail(format_args!("the memory is not there"));
    }
    let Some(peripherals) = cortex_m::Peripherals::take() else { fail(format_args!("no peripherals")) };
    let mut clock = Clock::start(peripherals.SYST);
    let outcome = match scenario::run(words, integers, &mut |name| clock.step(name)) {
        Ok(outcome) => outcome,
        Err(error) => fail(format_args!("{error}")),
    };
    hprintln!("{} bytes to be sent, {} limbs at the peak", outcome.sent, outcome.peak);
    hprintln!("largest reading {} / 2^60, largest error {} / 2^60", outcome.largest, outcome.worst);
    if (outcome.ciphertext, outcome.readings) != (CIPHERTEXT, READINGS_BACK) {
        fail(format_args!("hashes {:#018x} and {:#018x} are wrong", outcome.ciphertext, outcome.readings));
    }
    // 1.5 at least; 2^-12 at most: 27 bits of scale less 12 of N, less the noise.
    if outcome.largest < 3 << 59 || outcome.worst > 1 << 48 {
        fail(format_args!("the readings did not come back"));
    }
    hprintln!("PASSED");
    debug::exit(debug::EXIT_SUCCESS);
    loop {}
}
