use proptest::prelude::*;

use super::super::{ConvertTable, Kernels, NttTable, Path, Prime};
use super::{Words, every_path, prime_below};

fn scalar() -> Kernels {
    Kernels::new(Path::Scalar).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn transforms_agree_and_invert(log in 4u32..=11, bits in 22u32..=50, skip in 0usize..4, seed: u64) {
        let prime = prime_below(bits, 1 << log, skip);
        let x = Words(seed).limb(prime.value(), 1 << log);
        let mut expected = x.clone();
        NttTable::new(scalar(), prime, 1 << log).unwrap().forward(&mut expected);
        for kernels in every_path() {
            let table = NttTable::new(kernels, prime, 1 << log).unwrap();
            let mut y = x.clone();
            table.forward(&mut y);
            prop_assert_eq!(&y, &expected, "{}", kernels.path());
            table.inverse(&mut y);
            prop_assert_eq!(&y, &x, "{}", kernels.path());
        }
    }

    #[test]
    fn products_distribute_over_sums(bits in 21u32..=50, skip in 0usize..4, seed: u64) {
        let prime = prime_below(bits, 16, skip);
        let mut words = Words(seed);
        let [a, b, c] = [(); 3].map(|()| words.limb(prime.value(), 64));
        for kernels in every_path() {
            // (a + b)·c = a·c + b·c
            let mut left = a.clone();
            kernels.add_assign(&prime, &mut left, &b);
            kernels.multiply_assign(&prime, &mut left, &c);
            let mut right = vec![0; 64];
            kernels.multiply(&prime, &mut right, &a, &c);
            kernels.multiply_add(&prime, &mut right, &b, &c);
            prop_assert_eq!(left, right, "{}", kernels.path());
        }
    }

    #[test]
    fn conversions_agree(bits in 24u32..=50, count in 1usize..=16, target in 22u32..=50, seed: u64) {
        let sources: Vec<Prime> = (0..count).map(|skip| prime_below(bits, 32, skip)).collect();
        let target = prime_below(target, 64, 30);
        prop_assume!(!sources.contains(&target));
        let table = ConvertTable::new(&sources, &[target]).unwrap();
        let mut words = Words(seed);
        let x: Vec<Vec<u64>> = sources.iter().map(|q| words.limb(q.value(), 40)).collect();
        let x: Vec<&[u64]> = x.iter().map(Vec::as_slice).collect();
        let mut expected = [0; 40];
        scalar().convert(&table, &x, &mut [&mut expected]);
        for kernels in every_path() {
            let mut out = [0; 40];
            kernels.convert(&table, &x, &mut [&mut out]);
            prop_assert_eq!(out, expected, "{}", kernels.path());
        }
    }
}
