use super::super::{Automorphism, Prime, Transform, TransformStep};
use super::{Words, every_path, prime_below};

const N: usize = 1 << 10;

/// Random inputs of one limb: which steps are identities, how many digits and sums, and how words repeat.
struct Case {
    identities: Vec<bool>,
    digits: usize,
    sums: usize,
    repeat: usize,
    special: bool,
}

/// The definition, a word at a time.
fn expected(case: &Case, prime: &Prime, maps: &[Automorphism], limbs: &Limbs) -> Vec<[Vec<u64>; 2]> {
    let add = |x: u64, y: u64, z: u64| prime.add(x, prime.multiply(y, z));
    let rotated: Vec<[Vec<u64>; 2]> = (0..case.identities.len())
        .map(|b| {
            [0, 1].map(|h| {
                if case.identities[b] {
                    return limbs.x[h].iter().map(|&x| prime.multiply(x, limbs.product)).collect();
                }
                let sum = (0..N).map(|i| {
                    let start = if h == 0 && !case.special { limbs.x[0][i] } else { 0 };
                    let start = prime.multiply(start, limbs.product);
                    (0..case.digits).fold(start, |t, d| add(t, limbs.digits[d][i], limbs.keys[b][h][d][i]))
                });
                let sum: Vec<u64> = sum.collect();
                let lines = maps[b].index.iter().flat_map(|&index| {
                    let lanes = maps[b].permutations[index as usize % 8];
                    lanes.map(|lane| (index as usize & !7) + lane as usize)
                });
                lines.map(|source| sum[source]).collect()
            })
        })
        .collect();
    let sum = |g: usize, h: usize| {
        let entry = |i: usize| {
            rotated
                .iter()
                .enumerate()
                .fold(0, |t, (b, r)| add(t, limbs.factors[g * rotated.len() + b][i / case.repeat], r[h][i]))
        };
        (0..N).map(entry).collect()
    };
    (0..case.sums).map(|g| [sum(g, 0), sum(g, 1)]).collect()
}

struct Limbs {
    product: u64,
    x: [Vec<u64>; 2],
    digits: Vec<Vec<u64>>,
    keys: Vec<[Vec<Vec<u64>>; 2]>,
    factors: Vec<Vec<u64>>,
}

impl Limbs {
    fn new(case: &Case, q: u64, words: &mut Words) -> Self {
        let steps = case.identities.len();
        let mut limbs =
            |count: usize, length| -> Vec<Vec<u64>> { (0..count).map(|_| words.limb(q, length)).collect() };
        Self {
            x: limbs(2, N).try_into().unwrap(),
            digits: limbs(case.digits, N),
            keys: (0..steps).map(|_| [limbs(case.digits, N), limbs(case.digits, N)]).collect(),
            factors: limbs(case.sums * steps, N / case.repeat),
            product: limbs(1, 1)[0][0],
        }
    }

    /// q − 1 everywhere: the largest sums there are.
    fn saturate(&mut self, q: u64) {
        let keys = self.keys.iter_mut().flatten().flatten();
        let all = self.x.iter_mut().chain(&mut self.digits).chain(&mut self.factors).chain(keys);
        all.for_each(|limb| limb.fill(q - 1));
        self.product = q - 1;
    }
}

fn check(case: &Case, prime: &Prime, limbs: &Limbs) {
    let steps = case.identities.len();
    let maps: Vec<Automorphism> = (0..steps).map(|b| Automorphism::new(N, 4 * b + 5).unwrap()).collect();
    let expected = expected(case, prime, &maps, limbs);
    let step = |b: usize| match case.identities[b] {
        true => TransformStep::Identity([&limbs.x[0], &limbs.x[1]], limbs.product),
        false => TransformStep::Switch {
            map: &maps[b],
            key: limbs.keys[b].each_ref().map(|half| half.iter().map(Vec::as_slice).collect()),
        },
    };
    let transform = Transform {
        prime,
        x: (!case.special).then_some((&limbs.x[0], limbs.product)),
        digits: limbs.digits.iter().map(Vec::as_slice).collect(),
        steps: (0..steps).map(step).collect(),
        repeat: case.repeat,
        factors: limbs.factors.iter().map(Vec::as_slice).collect(),
    };
    for kernels in every_path() {
        for tile in [8, 64, 512] {
            let mut scratch = vec![[vec![7; tile], vec![7; tile]]; steps];
            let mut tiles: Vec<[&mut [u64]; 2]> =
                scratch.iter_mut().map(|pair| pair.each_mut().map(Vec::as_mut_slice)).collect();
            let mut sums = vec![[vec![9; N], vec![9; N]]; case.sums];
            // In two runs of columns.
            for start in [0, N / 2] {
                let mut parts: Vec<[&mut [u64]; 2]> = sums
                    .iter_mut()
                    .map(|pair| pair.each_mut().map(|sum| &mut sum[start..start + N / 2]))
                    .collect();
                kernels.transform(&transform, N, start, &mut tiles, &mut parts);
            }
            assert!(sums == expected, "{} {tile} {} sums", kernels.path(), case.sums);
        }
    }
}

#[test]
fn transforms_match_their_definition() {
    let mut words = Words(31);
    for (steps, digits, sums, repeat, bits) in [
        (1, 1, 1, 1, 50),
        (3, 3, 2, 2, 50),
        (8, 3, 4, 32, 50),
        (5, 4, 5, 4, 30),
        (2, 16, 3, 8, 50),
        (40, 2, 7, 128, 50),
        (17, 5, 1, 1, 22),
        (2, 0, 1, 1, 45),
    ] {
        let prime = prime_below(bits, N, 3);
        for special in [false, true] {
            let identities = (0..steps).map(|b| !special && b % 3 == 1).collect();
            let case = Case { identities, digits, sums, repeat, special };
            let mut limbs = Limbs::new(&case, prime.value(), &mut words);
            check(&case, &prime, &limbs);
            limbs.saturate(prime.value());
            check(&case, &prime, &limbs);
        }
    }
}
