//! Products of matrices with rows that are packed k to a ciphertext.
//!
//! Eight coefficients of Y are the lanes of a line, k rows of c inputs the terms of a sum. The bodies are a dense
//! product: N·k·c multiply-adds for k output rows. Component j of output row o is Σ_c Σ_i U\[o, (c, i)\]·A_c\[i − j\],
//! where A_c\[m\] is block m of a_c, or Y times block m + k for m < 0: a cyclic correlation of length 2k. Its
//! transform over m leaves a product of c terms at each of 2k points, 2·N·k·c multiply-adds instead of N·k²·c.
//! Where k or c are so small that the transforms cost more than they save, the components are a dense product too.

use super::Multicore;
use crate::kernels::{AlignedWords, LaneTable, Line, Prime};
use crate::memory::Limb;
use veilformer::accel::{Error, ErrorKind, RowSums, check_rows};
use veilformer::ring::Basis;

/// Tasks for each thread, so that none waits long for another.
const TASKS: usize = 2;
/// Words of the weights that are kept in the second-level cache while all lanes pass.
const WEIGHTS: usize = 1 << 16;
/// Words of the inputs that are prepared together: all sums read them, tile after tile.
const INPUTS: usize = 1 << 19;

/// How one call is computed.
struct Shape {
    /// k.
    rows: usize,
    /// k·c.
    inputs: usize,
    /// Lines of a sum at each point.
    terms: usize,
    /// Points of the components: 2k with a transform, k without.
    points: usize,
    transform: bool,
}

impl Shape {
    fn new(rows: usize, count: usize) -> Self {
        let inputs = rows * count;
        // Multiply-accumulates for a line of one component: two for each term, and about ten for a stage and a
        // reduction of a transform.
        let transforms = 4 * count + 10 + 5 * (2 * rows).ilog2() as usize;
        if 2 * inputs <= transforms {
            return Self { rows, inputs, terms: inputs, points: rows, transform: false };
        }
        Self { rows, inputs, terms: count, points: 2 * rows, transform: true }
    }
}

/// The inputs modulo one prime, in the order in which tiles of eight lanes read them.
struct Inputs {
    /// For each eight lanes the lines of all inputs' bodies.
    bodies: AlignedWords,
    /// For each eight lanes and each point the lines of its terms.
    masks: AlignedWords,
}

/// Some lanes of a few sums, k rows each: bodies, then components.
struct Task<'a> {
    first: usize,
    lanes: usize,
    out: Vec<Vec<&'a mut [u64]>>,
}

impl Multicore {
    /// [`veilformer::accel::Accelerator::row_products`], a prime at a time.
    pub(super) fn rows(
        &self,
        basis: Basis,
        rows: usize,
        weights: &[i16],
        x: &[[&[Limb]; 2]],
        sums: &mut [RowSums<'_, Limb>],
    ) -> Result<(), Error> {
        check_rows(&self.chain, basis, rows, weights, x, sums)?;
        if x.is_empty() {
            let limbs = sums.iter_mut().flat_map(|sum| sum.body.iter_mut().chain(sum.masks.iter_mut()));
            limbs.for_each(|limb| limb.fill(0));
            return Ok(());
        }
        let shape = Shape::new(rows, x.len());
        let (primes, lanes) = (basis.len(), self.pool.degree() / rows);
        let per_lane = shape.inputs + shape.points * shape.terms;
        let piece = (1 << (INPUTS / per_lane).max(8).ilog2()).min(lanes);
        let mut inputs = Inputs {
            bodies: AlignedWords::zeroed(piece / 8 * shape.inputs),
            masks: AlignedWords::zeroed(piece / 8 * shape.points * shape.terms),
        };
        let words = (rows + 1) * sums.len() * self.pool.degree();
        for p in 0..primes {
            let prime = self.prime(basis, p);
            let table = LaneTable::new(self.kernels, *prime, (2 * rows).ilog2())
                .map_err(|_| Error::Device { kind: ErrorKind::Unsupported })?;
            let pairs: Vec<[&[u64]; 2]> = x.iter().map(|[b, a]| [&b[p][..], &a[p]]).collect();
            let limbs: Vec<Vec<&mut Limb>> = sums
                .iter_mut()
                .map(|sum| {
                    let masks = sum.masks.iter_mut().skip(p).step_by(primes);
                    core::iter::once(&mut sum.body[p]).chain(masks).collect()
                })
                .collect();
            let mut tasks = self.row_tasks(&shape, limbs, piece);
            let together = (tasks.len() / (lanes / piece)).max(1);
            for (i, tasks) in tasks.chunks_mut(together).enumerate() {
                self.row_inputs(&shape, prime, &table, &pairs, i * piece, &mut inputs)?;
                self.spread(tasks, words, |_, task| {
                    self.row_task(&shape, prime, &table, &inputs, weights, task);
                    Ok::<(), Error>(())
                })?;
            }
        }
        Ok(())
    }

    /// Lines of lanes from `first` on, shifted for Y, transformed where there is a transform, and times what the
    /// products divide by.
    fn row_inputs(
        &self,
        shape: &Shape,
        prime: &Prime,
        table: &LaneTable,
        x: &[[&[u64]; 2]],
        first: usize,
        out: &mut Inputs,
    ) -> Result<(), Error> {
        let &Shape { rows, inputs, terms, points, transform } = shape;
        let factor = self.kernels.outer_factor(prime);
        let scale = if transform { prime.inverse(points as u64) } else { 1 };
        let scaled = prime.multiply(factor, scale);
        let masks = out.masks.lines_mut().chunks_exact_mut(points * terms);
        let mut tasks: Vec<_> = out.bodies.lines_mut().chunks_exact_mut(inputs).zip(masks).collect();
        let words = 8 * rows * tasks.len() * x.len();
        self.spread(&mut tasks, words, |group, (bodies, masks)| {
            let start = rows * (first + 8 * group);
            for (line, r) in bodies.iter_mut().zip(0..) {
                *line = gather(x[r / rows][0], start + r % rows, rows);
            }
            // A_c[−s], for s modulo 2k; what s = k holds meets no weight.
            let shifted = |c: usize, s: usize| -> Line {
                let a = x[c][1];
                if s == 0 || s >= rows {
                    return gather(a, start + (2 * rows - s) % rows, rows);
                }
                if start > 0 {
                    return gather(a, start - s, rows);
                }
                let mut line = gather(a, rows - s, rows);
                line.rotate_right(1);
                line[0] = prime.negate(a[a.len() - s]);
                line
            };
            if transform {
                let mut sequence = vec![[0; 8]; points];
                for c in 0..terms {
                    sequence.iter_mut().enumerate().for_each(|(s, line)| *line = shifted(c, s));
                    table.forward(&mut sequence);
                    for (lines, line) in masks.chunks_exact_mut(terms).zip(&sequence) {
                        lines[c] = *line;
                    }
                }
            } else {
                for (i, line) in masks.iter_mut().enumerate() {
                    let (j, r) = (i / terms, i % terms);
                    *line = shifted(r / rows, (2 * rows + j - r % rows) % (2 * rows));
                }
            }
            self.kernels.multiply_scalar_assign(prime, bodies.as_flattened_mut(), factor);
            self.kernels.multiply_scalar_assign(prime, masks.as_flattened_mut(), scaled);
            Ok(())
        })
    }

    /// Sums that fill tiles of eight rows, over as many lanes as keep the threads busy, at most `piece`: all sums of
    /// the first lanes come first.
    fn row_tasks<'a>(&self, shape: &Shape, sums: Vec<Vec<&'a mut Limb>>, piece: usize) -> Vec<Task<'a>> {
        let together = (8 / shape.rows).max(1);
        let count = sums.len().div_ceil(together);
        let parts = match self.threads() {
            1 => 1,
            threads => (TASKS * threads).div_ceil(count.max(1)).next_power_of_two().min(piece / 8),
        };
        let run = piece / parts;
        let runs = self.pool.degree() / shape.rows / run;
        let task = |i: usize| Task {
            first: i % count * together,
            lanes: i / count % parts * run,
            out: Vec::with_capacity(together),
        };
        let mut tasks: Vec<Task<'a>> = (0..count * runs).map(task).collect();
        for (o, limbs) in sums.into_iter().enumerate() {
            let mut tasks: Vec<&mut Task<'a>> = tasks.iter_mut().skip(o / together).step_by(count).collect();
            tasks.iter_mut().for_each(|task| task.out.push(Vec::with_capacity(limbs.len())));
            for limb in limbs {
                for (task, part) in tasks.iter_mut().zip(limb.chunks_exact_mut(run * shape.rows)) {
                    if let Some(out) = task.out.last_mut() {
                        out.push(part);
                    }
                }
            }
        }
        tasks
    }

    /// All rows of a task's sums, a few tiles of eight at a time.
    fn row_task(
        &self,
        shape: &Shape,
        prime: &Prime,
        table: &LaneTable,
        inputs: &Inputs,
        weights: &[i16],
        task: &mut Task<'_>,
    ) {
        let &Shape { rows, inputs: terms, points, .. } = shape;
        let per_point = points * shape.terms;
        let weights: Vec<&[i16]> =
            weights[task.first * rows * terms..].chunks_exact(terms).take(task.out.len() * rows).collect();
        let run = task.out[0][0].len() / rows;
        let (mut body, mut components) = (AlignedWords::zeroed(8), AlignedWords::zeroed(8 * points));
        let together = (WEIGHTS / 8 / (terms + per_point)).max(1);
        for (g, group) in weights.chunks(8 * together).enumerate() {
            let tiles: Vec<[AlignedWords; 2]> =
                group.chunks(8).map(|rows| tile_weights(shape, prime, table, rows)).collect();
            for lane in (0..run).step_by(8) {
                let at = (task.lanes + lane) / 8;
                let (b, a) = (&inputs.bodies.lines()[at * terms..], &inputs.masks.lines()[at * per_point..]);
                for (t, [dense, transformed]) in tiles.iter().enumerate() {
                    self.kernels.outer_products(prime, terms, dense.lines(), &b[..terms], body.lines_mut());
                    let left = if shape.transform { transformed } else { dense };
                    let components = components.lines_mut();
                    self.kernels.outer_products(
                        prime,
                        shape.terms,
                        left.lines(),
                        &a[..per_point],
                        components,
                    );
                    let row = 8 * (g * together + t);
                    let tile = (body.lines(), components);
                    self.scatter(shape, table, [row, lane], tile, &mut task.out);
                }
            }
        }
    }

    /// Eight rows from `row` on, of the task's sums one after the other, transformed back where there is a transform
    /// and put to their words in eight lanes.
    fn scatter(
        &self,
        &Shape { rows, points, transform, .. }: &Shape,
        table: &LaneTable,
        [row, lane]: [usize; 2],
        (body, components): (&[Line], &mut [Line]),
        out: &mut [Vec<&mut [u64]>],
    ) {
        if rows >= 8 {
            let at = row % rows + lane * rows;
            let (first, masks) = out[row / rows].split_at_mut(1);
            self.kernels.interleave(body, first, at, rows);
            if transform {
                table.inverse_interleave(components, masks, at, rows);
            } else {
                self.kernels.interleave(components, masks, at, rows);
            }
            return;
        }
        if transform {
            components.chunks_exact_mut(points).for_each(|row| table.inverse_half(row));
        }
        for (i, word) in (0..8).map(|i| (i, i % rows + lane * rows)) {
            // The last tile may have rows that no sum has.
            let Some(sum) = out.get_mut(i / rows) else { break };
            let lines = core::iter::once(&body[i]).chain(&components[i * points..]);
            for (limb, line) in sum.iter_mut().zip(lines) {
                line.iter().enumerate().for_each(|(l, &value)| limb[word + l * rows] = value);
            }
        }
    }
}

/// Eight words from `from` on, `stride` apart.
fn gather(words: &[u64], from: usize, stride: usize) -> Line {
    let words = &words[from..][..7 * stride + 1];
    core::array::from_fn(|l| words[l * stride])
}

/// Up to eight rows of weights side by side, and their transforms with the order of a point's terms.
fn tile_weights(shape: &Shape, prime: &Prime, table: &LaneTable, rows: &[&[i16]]) -> [AlignedWords; 2] {
    let residue = |weight: i16| (i64::from(weight) + (i64::from(weight >> 15) & prime.value() as i64)) as u64;
    let mut dense = AlignedWords::zeroed(shape.inputs);
    for (i, row) in rows.iter().enumerate() {
        for (line, &weight) in dense.lines_mut().iter_mut().zip(*row) {
            line[i] = residue(weight);
        }
    }
    if !shape.transform {
        return [dense, AlignedWords::zeroed(0)];
    }
    let mut transformed = AlignedWords::zeroed(shape.points * shape.terms);
    let mut sequence = vec![[0; 8]; shape.points];
    for (c, lines) in dense.lines().chunks_exact(shape.rows).enumerate() {
        sequence[..shape.rows].copy_from_slice(lines);
        sequence[shape.rows..].fill([0; 8]);
        table.forward(&mut sequence);
        for (point, line) in transformed.lines_mut().chunks_exact_mut(shape.terms).zip(&sequence) {
            point[c] = *line;
        }
    }
    [dense, transformed]
}
