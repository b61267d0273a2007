#[cfg(target_arch = "x86_64")]
use super::super::path::vendor;
use super::super::{Automorphism, KernelError, Kernels, NttTable, Path, Prime};
use super::{Words, every_path, prime_below};

const BITS: [u32; 7] = [21, 30, 39, 47, 48, 49, 50];
const N: usize = 64;

fn mod_mul(q: u64, x: u64, y: u64) -> u64 {
    (u128::from(x) * u128::from(y) % u128::from(q)) as u64
}

/// Runs `check` on every path with several primes and fresh words.
fn for_all(check: impl Fn(Kernels, &Prime, &mut Words)) {
    for kernels in every_path() {
        let mut words = Words(7);
        for bits in BITS {
            for skip in 0..3 {
                check(kernels, &prime_below(bits, N, skip), &mut words);
            }
        }
    }
}

#[test]
fn sums_and_products_match_division() {
    for_all(|kernels, prime, words| {
        let q = prime.value();
        let [a, b, c] = [words.limb(q, N), words.limb(q, N), words.limb(q, N)];
        for s in [0, 1, q - 1, words.next() % q] {
            let check = |name: &str, run: &dyn Fn(&mut [u64]), expected: &dyn Fn(usize) -> u128| {
                let mut x = a.clone();
                run(&mut x);
                let expected: Vec<u64> = (0..N).map(|i| (expected(i) % u128::from(q)) as u64).collect();
                assert_eq!(x, expected, "{name} {} q {q} s {s}", kernels.path());
            };
            let wide = |x: u64| u128::from(x);
            let (x, y, z) = (|i: usize| wide(a[i]), |i: usize| wide(b[i]), |i: usize| wide(c[i]));
            check("add", &|x| kernels.add_assign(prime, x, &b), &|i| x(i) + y(i));
            check("sub", &|x| kernels.sub_assign(prime, x, &b), &|i| x(i) + wide(q) - y(i));
            check("negate", &|x| kernels.negate_assign(prime, x), &|i| wide(q) - x(i));
            check("multiply", &|x| kernels.multiply(prime, x, &b, &c), &|i| y(i) * z(i));
            check("multiply_assign", &|x| kernels.multiply_assign(prime, x, &b), &|i| x(i) * y(i));
            check("multiply_add", &|x| kernels.multiply_add(prime, x, &b, &c), &|i| x(i) + y(i) * z(i));
            check("scalar", &|x| kernels.multiply_scalar_assign(prime, x, s), &|i| x(i) * wide(s));
            check("scalar_add", &|x| kernels.multiply_scalar_add(prime, x, &b, s), &|i| {
                x(i) + y(i) * wide(s)
            });
            check("add_scalar", &|x| kernels.add_scalar_assign(prime, x, s), &|i| x(i) + wide(s));
            check("sub_multiply", &|x| kernels.sub_multiply_scalar(prime, x, &b, s), &|i| {
                (x(i) + wide(q) - y(i)) * wide(s)
            });
        }
    });
}

#[test]
fn tensor_matches_division() {
    for_all(|kernels, prime, words| {
        let q = prime.value();
        let mut limbs = || words.limb(q, N);
        let (a0, a1, b0, b1) = (limbs(), limbs(), limbs(), limbs());
        let [mut d0, mut d1, mut d2] = [limbs(), limbs(), limbs()];
        kernels.tensor(prime, [&mut d0, &mut d1, &mut d2], [&a0, &a1], [&b0, &b1]);
        for i in 0..N {
            assert_eq!(d0[i], mod_mul(q, a0[i], b0[i]), "{} q {q}", kernels.path());
            assert_eq!(
                d1[i],
                (mod_mul(q, a0[i], b1[i]) + mod_mul(q, a1[i], b0[i])) % q,
                "{} q {q}",
                kernels.path()
            );
            assert_eq!(d2[i], mod_mul(q, a1[i], b1[i]), "{} q {q}", kernels.path());
        }
    });
}

#[test]
fn tensor_of_largest_residues() {
    for_all(|kernels, prime, _| {
        let top = vec![prime.value() - 1; N];
        let mut d = [vec![0; N], vec![0; N], vec![0; N]];
        let [d0, d1, d2] = &mut d;
        kernels.tensor(prime, [d0, d1, d2], [&top, &top], [&top, &top]);
        assert_eq!(d, [vec![1; N], vec![2; N], vec![1; N]], "{}", kernels.path());
    });
}

#[test]
fn inner_products_match_division() {
    for_all(|kernels, prime, words| {
        let q = prime.value();
        for count in [0, 1, 3, 4, 5, 16] {
            for extreme in [false, true] {
                let mut limbs = || -> Vec<Vec<u64>> {
                    (0..count).map(|_| if extreme { vec![q - 1; N] } else { words.limb(q, N) }).collect()
                };
                let (digits, key0, key1) = (limbs(), limbs(), limbs());
                let start = [words.limb(q, N), words.limb(q, N)];
                let view = |limbs: &'_ [Vec<u64>]| -> Vec<&'static [u64]> {
                    limbs.iter().map(|limb| &*limb.clone().leak()).collect()
                };
                let (d, k0, k1) = (view(&digits), view(&key0), view(&key1));
                let [mut s0, mut s1] = start.clone();
                let [mut t0, mut t1] = start.clone();
                kernels.inner_product(prime, [&mut s0, &mut s1], &d, [&k0, &k1]);
                kernels.inner_product_add(prime, [&mut t0, &mut t1], &d, [&k0, &k1]);
                for (half, (key, (s, t))) in [(&key0, (s0, t0)), (&key1, (s1, t1))].into_iter().enumerate() {
                    for i in 0..N {
                        let sum =
                            digits.iter().zip(key).fold(0, |sum, (d, k)| (sum + mod_mul(q, d[i], k[i])) % q);
                        assert_eq!(s[i], sum, "{} q {q} count {count}", kernels.path());
                        assert_eq!(
                            t[i],
                            (sum + start[half][i]) % q,
                            "{} q {q} count {count}",
                            kernels.path()
                        );
                    }
                }
            }
        }
    });
}

#[test]
fn sums_of_many_terms_match_division() {
    for_all(|kernels, prime, words| {
        let q = prime.value();
        for (count, extreme) in [0, 1, 2, 8, 9, 16, 17, 33].into_iter().flat_map(|n| [(n, false), (n, true)])
        {
            let mut limb = || if extreme { vec![q - 1; N] } else { words.limb(q, N) };
            let terms: Vec<[Vec<u64>; 4]> = (0..count).map(|_| core::array::from_fn(|_| limb())).collect();
            let start: [Vec<u64>; 4] = core::array::from_fn(|_| limb());
            let [mut d0, mut d1, mut d2, mut sum] = start.clone();
            let pairs: Vec<[[&[u64]; 2]; 2]> =
                terms.iter().map(|[a0, a1, b0, b1]| [[&a0[..], a1], [b0, b1]]).collect();
            kernels.tensor_add(prime, [&mut d0, &mut d1, &mut d2], &pairs);
            let scalars: Vec<(&[u64], u64)> = terms.iter().map(|[x, s, ..]| (&x[..], s[0])).collect();
            kernels.multiply_scalars_add(prime, &mut sum, &scalars);
            for i in 0..N {
                let total = |start: u64, term: &dyn Fn(&[Vec<u64>; 4]) -> u64| {
                    terms.iter().fold(start, |sum, t| (sum + term(t)) % q)
                };
                let expected = [
                    total(start[0][i], &|[a0, _, b0, _]| mod_mul(q, a0[i], b0[i])),
                    total(start[1][i], &|[a0, a1, b0, b1]| {
                        mod_mul(q, a0[i], b1[i]) + mod_mul(q, a1[i], b0[i])
                    }),
                    total(start[2][i], &|[_, a1, _, b1]| mod_mul(q, a1[i], b1[i])),
                    total(start[3][i], &|[x, s, ..]| mod_mul(q, x[i], s[0])),
                ];
                let found = [d0[i], d1[i], d2[i], sum[i]];
                assert_eq!(found, expected, "{} q {q} count {count}", kernels.path());
            }
        }
    });
}

#[test]
fn signed_words_reduce() {
    for_all(|kernels, prime, words| {
        let q = prime.value() as i64;
        let limit = (1i64 << 62) - 1;
        let mut source: Vec<i64> = (0..N).map(|_| words.next() as i64 >> 2).collect();
        source[..12].copy_from_slice(&[
            0,
            1,
            -1,
            q,
            -q,
            q - 1,
            1 - q,
            q + 1,
            limit,
            -limit,
            1 << 52,
            -(1 << 52),
        ]);
        let mut out = vec![0; N];
        kernels.reduce_signed(prime, &mut out, &source);
        for (out, source) in out.iter().zip(&source) {
            assert_eq!(*out as i64, source.rem_euclid(q), "{} q {q} of {source}", kernels.path());
        }
    });
}

#[test]
fn automorphisms_permute_coefficients() {
    let mut words = Words(11);
    for log in [4, 5, 7, 10] {
        let degree = 1 << log;
        let prime = prime_below(50, degree, 0);
        let q = prime.value();
        for kernels in every_path() {
            let table = NttTable::new(kernels, prime, degree).unwrap();
            for g in [1, 3, 5, 25, degree - 1, degree + 1, 2 * degree - 1, 5usize.pow(3)] {
                let x = words.limb(q, degree);
                let mut expected = vec![0; degree];
                for (i, &c) in x.iter().enumerate() {
                    let k = i * g % (2 * degree);
                    expected[k % degree] = if k < degree { c } else { prime.negate(c) };
                }
                let start = words.limb(q, degree);
                let (mut x, mut y, mut sum) = (x, vec![0; degree], start.clone());
                table.forward(&mut x);
                table.forward(&mut expected);
                let map = Automorphism::new(degree, g).unwrap();
                kernels.automorphism(&map, &prime, &mut y, &x);
                kernels.automorphism_add(&map, &prime, &mut sum, &x);
                assert_eq!(y, expected, "{} log {log} g {g}", kernels.path());
                let expected: Vec<u64> =
                    expected.iter().zip(&start).map(|(&e, &s)| prime.add(e, s)).collect();
                assert_eq!(sum, expected, "{} log {log} g {g}", kernels.path());
            }
        }
    }
    assert_eq!(Automorphism::new(64, 4).unwrap_err(), KernelError::EvenExponent(4));
    assert_eq!(Automorphism::new(48, 5).unwrap_err(), KernelError::Length(48));
}

#[test]
fn paths_have_names() {
    for path in Path::ALL {
        assert_eq!(Path::from_name(path.name()), Ok(path));
        if !path.is_available() {
            assert_eq!(Kernels::new(path), Err(KernelError::UnavailablePath(path)));
        }
    }
    assert_eq!(Path::from_name("mmx"), Err(KernelError::UnknownPath));
    let last = Path::available().last().unwrap();
    #[cfg(target_arch = "x86_64")]
    let last = if last == Path::Avx512Madd { Path::of_vendor(&vendor()) } else { last };
    assert_eq!(Kernels::detect().path(), last);
    assert_eq!(Path::Avx512.is_available(), Path::Avx512Madd.is_available());
    assert_eq!(Kernels::from_override(None), Ok(Kernels::detect()));
    assert_eq!(Kernels::from_override(Some("scalar".as_ref())), Kernels::new(Path::Scalar));
    assert_eq!(Kernels::from_override(Some("".as_ref())), Err(KernelError::UnknownPath));
    let foreign = if cfg!(target_arch = "aarch64") { Path::Avx512 } else { Path::Neon };
    let error = Kernels::from_override(Some(foreign.name().as_ref()));
    assert_eq!(error, Err(KernelError::UnavailablePath(foreign)));
}

#[test]
#[cfg(target_arch = "x86_64")]
fn the_avx512_path_is_the_vendors() {
    assert_eq!(Path::of_vendor(b"AuthenticAMD"), Path::Avx512);
    assert_eq!(Path::of_vendor(b"GenuineIntel"), Path::Avx512Madd);
    let name = vendor();
    assert!(name.iter().all(u8::is_ascii_graphic), "{name:?}");
    if let Ok(info) = std::fs::read_to_string("/proc/cpuinfo") {
        assert!(info.contains(core::str::from_utf8(&name).unwrap()), "{name:?}");
    }
}
