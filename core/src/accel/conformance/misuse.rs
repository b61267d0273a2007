//! What an accelerator must refuse, with an error of the right kind and no panic.

use super::super::{Accelerator, Error, ErrorKind, Factors, KeyRow, RowSums, Step};
use super::{Bench, Failure, Fill};
use crate::ring::{Basis, MAX_LIMBS, MAX_SOURCES};

/// A call that must fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Misuse {
    /// `write` of N − 1 words.
    WriteLength,
    /// `read` of N − 1 words.
    ReadLength,
    /// `write_signed` of N − 1 integers.
    SignedLength,
    /// `write_signed` of 2^62.
    SignedRange,
    /// Another number of limbs than the basis has primes, by kernel in the order of the trait.
    Limbs(u8),
    /// A second operand that is too short, by kernel in the order of the trait.
    Operand(u8),
    /// A basis that the chain does not have, by kernel in the order of the trait.
    Basis(u8),
    /// Too few scalars, by kernel in the order of the trait.
    Scalars(u8),
    /// `convert` from nothing, or from too many primes.
    Sources(usize),
    /// `mod_up` with too short an output, x, digit, or a digit outside the level.
    ModUp(u8),
    /// `inner_product` with digits, rows or sums that do not match.
    InnerProduct(u8),
    /// `mod_down` with too few or too many limbs.
    ModDown(u8),
    /// `key_switch` with too few digits in the key, or limbs that do not match.
    KeySwitch(u8),
    /// `repeat` of a number that is no power of two or too large, or of words beyond the limb.
    Repeat(u8),
    /// `hoisted_sums` with limbs, steps, keys or factors that do not match.
    HoistedSums(u8),
    /// `ntt_partial` to a block that is no power of two, or with limbs or a basis that do not match.
    NttPartial(u8),
    /// `row_products` with rows, weights, inputs or sums that do not match.
    RowProducts(u8),
    /// `block_products` with a block, terms or destinations that do not match.
    BlockProducts(u8),
    /// `odd_power_sums` with x, rows, sums or a basis that do not match.
    OddPowerSums(u8),
    /// One limb more than there are.
    Allocate,
}

struct Refusals(u32);

impl Refusals {
    fn of(&mut self, misuse: Misuse, found: Result<(), Error>) -> Result<(), Failure> {
        let expected = if misuse == Misuse::Allocate { ErrorKind::Memory } else { ErrorKind::Shape };
        self.0 += 1;
        match found {
            // A shape that no device supports may also be called just that.
            Err(error) if error.kind() == expected || error.kind() == ErrorKind::Unsupported => Ok(()),
            _ => Err(Failure::Misuse { misuse, found }),
        }
    }
}

/// Runs every misuse; the number of refusals.
pub(super) fn run<A: Accelerator>(
    accelerator: &A,
    row: &mut [A::Word],
    signed: &mut [i64],
) -> Result<u32, Failure> {
    let mut refusals = Refusals(0);
    host_slices(accelerator, row, signed, &mut refusals)?;
    fine(accelerator, row, &mut refusals)?;
    if accelerator.chain().ordinary() > 1 && accelerator.chain().special() > 0 {
        coarse(accelerator, row, &mut refusals)?;
        transform(accelerator, row, &mut refusals)?;
    }
    matrix(accelerator, row, &mut refusals)?;
    exhaustion(accelerator, &mut refusals)?;
    Ok(refusals.0)
}

fn inputs<A: Accelerator>(
    accelerator: &A,
    row: &mut [A::Word],
    basis: Basis,
) -> Result<super::super::Limbs<A>, Failure> {
    Bench::new(accelerator, row, &mut [], Fill::Random, 99)
        .polynomial(basis, 0)
        .map_err(|error| Failure::Error { kernel: super::Kernel::Copy, basis, error })
}

fn host_slices<A: Accelerator>(
    a: &A,
    row: &mut [A::Word],
    signed: &mut [i64],
    refusals: &mut Refusals,
) -> Result<(), Failure> {
    let (n, basis) = (a.chain().degree(), Basis::level(0));
    let (mut x, y) = (inputs(a, row, basis)?, inputs(a, row, basis)?);
    for (i, (offset, repeat)) in
        [(0, 0), (0, 3), (0, n / 4), (1, 1), (n - 7, n / 8), (usize::MAX, 2)].into_iter().enumerate()
    {
        refusals.of(Misuse::Repeat(i as u8), a.repeat(&mut x[0], &y[0], offset, repeat))?;
    }
    refusals.of(Misuse::WriteLength, a.write(&mut x[0], &row[1..]))?;
    refusals.of(Misuse::ReadLength, a.read(&x[0], &mut row[1..]))?;
    signed.fill(0);
    refusals.of(Misuse::SignedLength, a.write_signed(basis, &mut x, &signed[1..]))?;
    for extreme in [1 << 62, -(1 << 62), i64::MIN, i64::MAX] {
        signed[n / 2] = extreme;
        refusals.of(Misuse::SignedRange, a.write_signed(basis, &mut x, signed))?;
    }
    Ok(())
}

/// Every fine kernel with the wrong number of limbs, operands, scalars, and with primes that are not there.
fn fine<A: Accelerator>(a: &A, row: &mut [A::Word], refusals: &mut Refusals) -> Result<(), Failure> {
    let chain = a.chain();
    let level = Basis::level(chain.ordinary() - 1);
    let mut x = inputs(a, row, level)?;
    let y = inputs(a, row, level)?;
    let z = inputs(a, row, level)?;
    let mut d = [inputs(a, row, level)?, inputs(a, row, level)?];
    let [d1, d2] = &mut d;
    let s = [1; MAX_LIMBS];
    let count = level.len();
    let beyond = Basis::new(1, count, 0);
    let special = Basis::new(0, 0, chain.special() + 1);
    let mut kernels = |basis: Basis, misuse: fn(u8) -> Misuse| {
        let s = &s[..count];
        let mut refuse = |i: u8, found| refusals.of(misuse(i), found);
        refuse(0, a.ntt_forward(basis, &mut x))?;
        refuse(1, a.ntt_inverse(basis, &mut x))?;
        refuse(2, a.add_assign(basis, &mut x, &y))?;
        refuse(3, a.sub_assign(basis, &mut x, &y))?;
        refuse(4, a.negate_assign(basis, &mut x))?;
        refuse(5, a.multiply_assign(basis, &mut x, &y))?;
        refuse(6, a.multiply_add(basis, &mut x, &y, &z))?;
        refuse(7, a.multiply_scalar_assign(basis, &mut x, s))?;
        refuse(8, a.multiply_scalar_add(basis, &mut x, &y, s))?;
        refuse(9, a.multiply_scalars_add(basis, &mut x, &[(&y[..], s), (&z[..], s)]))?;
        refuse(10, a.add_scalar_assign(basis, &mut x, s))?;
        refuse(11, a.automorphism(basis, &mut x, &y, 5))?;
        refuse(12, a.tensor_add(basis, [&mut x, &mut *d1, &mut *d2], &[[[&y, &z], [&z, &y]]]))
    };
    kernels(Basis::level(if count > 1 { count - 2 } else { count }), Misuse::Limbs)?;
    kernels(beyond, Misuse::Basis)?;
    let operands = count - 1;
    let mut refuse = |i: u8, found| refusals.of(Misuse::Operand(i), found);
    refuse(0, a.copy(&mut x, &y[..operands]))?;
    refuse(2, a.add_assign(level, &mut x, &y[..operands]))?;
    refuse(3, a.sub_assign(level, &mut x, &y[..operands]))?;
    refuse(5, a.multiply_assign(level, &mut x, &y[..operands]))?;
    refuse(6, a.multiply_add(level, &mut x, &y[..operands], &z))?;
    refuse(6, a.multiply_add(level, &mut x, &y, &z[..operands]))?;
    refuse(8, a.multiply_scalar_add(level, &mut x, &y[..operands], &s[..count]))?;
    let terms = [(&y[..], &s[..count]), (&y[..operands], &s[..count])];
    refuse(9, a.multiply_scalars_add(level, &mut x, &terms))?;
    refuse(11, a.automorphism(level, &mut x, &y[..operands], 5))?;
    let short = &y[..operands];
    for term in
        [[[short, &z], [&y, &z]], [[&y, short], [&y, &z]], [[&y, &z], [short, &z]], [[&y, &z], [&y, short]]]
    {
        refuse(12, a.tensor_add(level, [&mut x, &mut *d1, &mut *d2], &[[[&y, &z], [&z, &y]], term]))?;
    }
    let terms: [[[&[A::Limb]; 2]; 2]; 1] = [[[&y, &z], [&z, &y]]];
    refuse(12, a.tensor_add(level, [&mut x, &mut d1[..operands], &mut *d2], &terms))?;
    let mut refuse = |i: u8, found| refusals.of(Misuse::Scalars(i), found);
    refuse(7, a.multiply_scalar_assign(level, &mut x, &s[..operands]))?;
    refuse(8, a.multiply_scalar_add(level, &mut x, &y, &s[..operands]))?;
    let terms = [(&y[..], &s[..count]), (&z[..], &s[..operands])];
    refuse(9, a.multiply_scalars_add(level, &mut x, &terms))?;
    refuse(10, a.add_scalar_assign(level, &mut x, &s[..operands]))?;
    refusals.of(Misuse::Sources(0), a.convert(Basis::new(0, 0, 0), &[], level, &mut x))?;
    if count > MAX_SOURCES {
        let from = Basis::level(MAX_SOURCES);
        let found = a.convert(from, &y[..MAX_SOURCES + 1], Basis::level(0), &mut x[..1]);
        refusals.of(Misuse::Sources(MAX_SOURCES + 1), found)?;
    }
    refusals.of(Misuse::Basis(11), a.convert(level, &y[..operands], Basis::level(0), &mut x[..1]))?;
    if special.len() <= count {
        let found = a.ntt_forward(special, &mut x[..special.len()]);
        refusals.of(Misuse::Basis(12), found)?;
    }
    Ok(())
}

fn coarse<A: Accelerator>(a: &A, row: &mut [A::Word], refusals: &mut Refusals) -> Result<(), Failure> {
    let chain = a.chain();
    let level = Basis::level(chain.ordinary() - 1);
    let full = level.with_special(chain.special());
    let (count, all) = (level.len(), full.len());
    let digit = Basis::new(0, 1, 0);
    let x = inputs(a, row, full)?;
    let mut sum0 = inputs(a, row, full)?;
    let mut sum1 = inputs(a, row, full)?;

    let mut out = inputs(a, row, full)?;
    let mut refuse = |i: u8, found| refusals.of(Misuse::ModUp(i), found);
    refuse(0, a.mod_up(level, digit, &x[..count - 1], &x[..1], &mut out))?;
    refuse(1, a.mod_up(level, digit, &x[..count], &[], &mut out))?;
    refuse(2, a.mod_up(level, digit, &x[..count], &x[..1], &mut out[..count - 1]))?;
    refuse(3, a.mod_up(level, digit, &x[..count], &x[..1], &mut []))?;
    refuse(4, a.mod_up(level, Basis::new(count, 1, 0), &x[..count], &x[..1], &mut out))?;
    refuse(5, a.mod_up(level, Basis::new(count - 1, 2, 0), &x[..count], &x[..2], &mut out))?;

    let whole = || KeyRow { ordinary: &x[..count], special: &x[count..] };
    let short = || KeyRow { ordinary: &x[..count], special: &x[count..all - 1] };
    let mut refuse = |i: u8, found| refusals.of(Misuse::InnerProduct(i), found);
    let sums = [&mut sum0[..], &mut sum1[..]];
    refuse(0, a.inner_product(level, sums, &[&x], [&[], &[]]))?;
    let sums = [&mut sum0[..], &mut sum1[..]];
    refuse(1, a.inner_product(level, sums, &[&x], [&[short()], &[short()]]))?;
    let sums = [&mut sum0[..], &mut sum1[..]];
    refuse(2, a.inner_product(level, sums, &[&x[..all - 1]], [&[whole()], &[whole()]]))?;
    let sums = [&mut sum0[..], &mut sum1[..all - 1]];
    refuse(3, a.inner_product(level, sums, &[&x], [&[whole()], &[whole()]]))?;
    let sums = [&mut sum0[..count - 1], &mut sum1[..count - 1]];
    refuse(4, a.inner_product(level, sums, &[&x], [&[whole()], &[whole()]]))?;

    let mut refuse = |i: u8, found| refusals.of(Misuse::ModDown(i), found);
    let special = Basis::new(0, 0, chain.special());
    refuse(0, a.mod_down(level, special, &mut out[..all - 1]))?;
    refuse(1, a.mod_down(level, Basis::new(0, 0, 0), &mut out[..count]))?;
    refuse(2, a.mod_down(level, special, &mut []))?;

    let mut refuse = |i: u8, found| refusals.of(Misuse::KeySwitch(i), found);
    // One prime to a digit: a key of one digit is too short.
    let sums = [&mut sum0[..], &mut sum1[..]];
    refuse(0, a.key_switch(level, 1, &x[..count], [&[whole()], &[whole()]], sums))?;
    let sums = [&mut sum0[..], &mut sum1[..]];
    refuse(1, a.key_switch(level, 1, &x[..count - 1], [&[whole()], &[whole()]], sums))?;
    let sums = [&mut sum0[..], &mut sum1[..]];
    refuse(2, a.key_switch(level, 1, &x[..count], [&[], &[]], sums))?;
    let sums = [&mut sum0[..count - 1], &mut sum1[..count - 1]];
    refuse(3, a.key_switch(level, 1, &x[..count], [&[whole()], &[whole()]], sums))
}

/// One sum of one step, one argument wrong at a time.
fn transform<A: Accelerator>(a: &A, row: &mut [A::Word], refusals: &mut Refusals) -> Result<(), Failure> {
    let chain = a.chain();
    let level = Basis::level(chain.ordinary() - 1);
    let full = level.with_special(chain.special());
    let (count, all) = (level.len(), full.len());
    let x = inputs(a, row, full)?;
    let (mut sum0, mut sum1) = (inputs(a, row, full)?, inputs(a, row, full)?);
    let whole = [KeyRow { ordinary: &x[..count], special: &x[count..] }];
    let short = [KeyRow { ordinary: &x[..count], special: &x[count..all - 1] }];
    let moved = [KeyRow { ordinary: &x[..count - 1], special: &x[count - 1..] }];
    let step = |galois, key| [Step { galois, key }];
    let one = Factors { repeat: 1, count: 1, limbs: &x[..] };
    let none: [Step<'_, A::Limb>; 0] = [];
    let (input, digits): ([&[_]; 2], [&[_]; 1]) = ([&x[..count]; 2], [&x]);
    let mut call = |i, x, digits: &[&[_]], steps: &[Step<'_, _>], factors: &Factors<'_, _>, limbs| {
        let mut sums = [[&mut sum0[..limbs], &mut sum1[..]]];
        let found = a.hoisted_sums(level, x, digits, steps, factors, &mut sums);
        refusals.of(Misuse::HoistedSums(i), found)
    };
    let good = || step(5, Some([&whole[..], &whole]));
    call(0, input, &digits, &good(), &one, all - 1)?;
    call(1, [&x[..count], &x[..count - 1]], &digits, &good(), &one, all)?;
    call(2, input, &[&x[..count]], &good(), &one, all)?;
    call(3, input, &[], &good(), &one, all)?;
    call(4, input, &digits, &none, &one, all)?;
    call(5, input, &digits, &step(5, Some([&whole[..], &short])), &one, all)?;
    call(6, input, &digits, &step(5, Some([&moved[..], &whole])), &one, all)?;
    call(7, input, &digits, &step(5, Some([&whole[..], &[]])), &one, all)?;
    for (i, galois) in (8..).zip([0, 4, 2 * chain.degree() + 1]) {
        call(i, input, &digits, &step(galois, Some([&whole[..], &whole])), &one, all)?;
    }
    call(11, input, &digits, &step(5, None), &one, all)?;
    for (i, repeat) in (12..).zip([0, 3, chain.degree() / 4]) {
        call(i, input, &digits, &good(), &Factors { repeat, ..one }, all)?;
    }
    call(15, input, &digits, &good(), &Factors { count: 2, ..one }, all)?;
    call(16, input, &digits, &good(), &Factors { limbs: &x[1..], ..one }, all)
}

/// The products of the matrix room, one argument wrong at a time.
fn matrix<A: Accelerator>(a: &A, row: &mut [A::Word], refusals: &mut Refusals) -> Result<(), Failure> {
    let (n, basis) = (a.chain().degree(), Basis::level(0));
    let beyond = Basis::new(a.chain().ordinary(), 1, 0);
    let (x, mut y, mut z) = (inputs(a, row, basis)?, inputs(a, row, basis)?, inputs(a, row, basis)?);
    for (i, block) in (0..).zip([0, 4, 12, 2 * n]) {
        refusals.of(Misuse::NttPartial(i), a.ntt_partial(basis, &mut y, block))?;
    }
    refusals.of(Misuse::NttPartial(4), a.ntt_partial(basis, &mut [], 8))?;
    refusals.of(Misuse::NttPartial(5), a.ntt_partial(beyond, &mut y, 8))?;

    let weights = [1; 4];
    let mut call = |i, basis, rows, weights: &[i16], x: [&[_]; 2], limbs: [usize; 2]| {
        let mut sums = [RowSums { body: &mut y[..limbs[0]], masks: &mut z[..limbs[1]] }];
        refusals.of(Misuse::RowProducts(i), a.row_products(basis, rows, weights, &[x], &mut sums))
    };
    for (i, rows) in (0..).zip([0, 3, n / 4, n]) {
        call(i, basis, rows, &weights[..1], [&x, &x], [1, 1])?;
    }
    call(4, basis, 1, &weights[..0], [&x, &x], [1, 1])?;
    call(5, basis, 1, &weights[..2], [&x, &x], [1, 1])?;
    call(6, basis, 1, &weights[..1], [&x, &[]], [1, 1])?;
    call(7, basis, 1, &weights[..1], [&[], &x], [1, 1])?;
    call(8, basis, 1, &weights[..1], [&x, &x], [0, 1])?;
    call(9, basis, 1, &weights[..1], [&x, &x], [1, 0])?;
    call(10, basis, 2, &weights, [&x, &x], [1, 1])?;
    call(11, beyond, 1, &weights[..1], [&x, &x], [1, 1])?;

    let mut limbs: heapless::Vec<super::super::Limbs<A>, 9> = heapless::Vec::new();
    for _ in 0..9 {
        // Exactly nine are pushed.
        let _ = limbs.push(inputs(a, row, basis)?);
    }
    let mut call = |i, basis, block, left: &[&[_]], right: &[&[_]], count: usize, last: usize| {
        let mut out: heapless::Vec<&mut [_], 9> = limbs[..count].iter_mut().map(|x| &mut x[..]).collect();
        out[count - 1] = &mut core::mem::take(&mut out[count - 1])[..last];
        let found = a.block_products(basis, block, left, right, &mut out);
        refusals.of(Misuse::BlockProducts(i), found)
    };
    for (i, block) in (0..).zip([0, 4, 12, 2 * n]) {
        call(i, basis, block, &[&x], &[&x], 8, 1)?;
    }
    call(4, basis, 8, &[&x], &[], 8, 1)?;
    call(5, basis, 8, &[&[]], &[&x], 8, 1)?;
    call(6, basis, 8, &[&x], &[&[]], 8, 1)?;
    call(7, basis, 8, &[&x], &[&x], 7, 1)?;
    call(8, basis, 8, &[&x], &[&x], 9, 1)?;
    call(9, basis, 8, &[&x], &[&x], 8, 0)?;
    call(10, beyond, 8, &[&x], &[&x], 8, 1)?;

    let mut call = |i, basis, x: &[_], row: &[_], count: usize| {
        let found = a.odd_power_sums(basis, x, &[row], &mut [&mut y[..count]]);
        refusals.of(Misuse::OddPowerSums(i), found)
    };
    call(0, basis, &[], &x, 1)?;
    call(1, basis, &x, &[], 1)?;
    call(2, basis, &x, &x, 0)?;
    call(3, beyond, &x, &x, 1)
}

/// Takes every limb through polynomials of the chain's size until there is none, and gives them back.
fn exhaustion<A: Accelerator>(a: &A, refusals: &mut Refusals) -> Result<(), Failure> {
    const HELD: usize = 1024;
    let before = a.available();
    let mut held: heapless::Vec<A::Limb, HELD> = heapless::Vec::new();
    for _ in 0..before.min(HELD) {
        match a.allocate() {
            // Not more than HELD.
            Ok(limb) => drop(held.push(limb)),
            Err(error) => {
                return Err(Failure::Misuse { misuse: Misuse::Allocate, found: Err(error) });
            }
        }
    }
    if before <= HELD {
        refusals.of(Misuse::Allocate, a.allocate().map(drop))?;
    }
    drop(held);
    match a.available() {
        after if after == before => Ok(()),
        after => Err(Failure::Leak { before, after }),
    }
}
