//! The same at 128-bit security, on the smaller named sets.

use super::world::{Setup, plus, slots, times, with_world};
use veilformer::ckks::PrecisionStats;
use veilformer::ckks::encoding::Complex;
use veilformer::ckks::server::FactorScratch;
use veilformer::ckks::server::bootstrap::{Bootstrap, BootstrapPlan};
use veilformer::ckks::{KeyId, KeyRequests, Parameters, ParametersLiteral};

fn keys(parameters: &Parameters, keys: &mut KeyRequests) {
    let top = parameters.max_level();
    keys.add(KeyId::Relinearization, top).unwrap();
    keys.add(KeyId::rotation(parameters, 5), top).unwrap();
}

fn product_and_rotation(literal: ParametersLiteral) {
    assert!(!literal.check().unwrap().is_insecure());
    with_world(Setup { limbs: 1024, ..Setup::of(literal) }, keys, |w| {
        let (s, n, top) = (w.server(), w.parameters.slots(), w.parameters.max_level());
        let (u, v) = (slots(n, 1), slots(n, 2));
        let (x, y) = (w.encrypt(&u, top), w.encrypt(&v, top));
        w.check("fresh", &x, 4.0, |j| u[j]);
        let mut z = s.multiply_rescale(&x, &y).unwrap();
        w.check("product", &z, 5.0, |j| times(u[j], v[j]));
        z = s.rotate(&z, 5).unwrap();
        w.check("rotated product", &z, 5.0, |j| times(u[(j + 5) % n], v[(j + 5) % n]));
        let rest = s.drop_to(&x, z.level()).unwrap();
        s.add_assign(&mut z, &rest).unwrap();
        z = s.drop_to(&z, 0).unwrap();
        w.check("sum at the last level", &z, 6.0, |j| plus(u[j], times(u[(j + 5) % n], v[(j + 5) % n])));
    });
}

#[test]
fn secure_n13() {
    product_and_rotation(ParametersLiteral::N13_3);
}

#[test]
fn secure_n15() {
    product_and_rotation(ParametersLiteral::N15_12);
}

#[test]
fn secure_n15_a_deep_polynomial() {
    with_world(Setup { limbs: 1024, ..Setup::of(ParametersLiteral::N15_12) }, keys, |w| {
        let (s, n) = (w.server(), w.parameters.slots());
        let u: Vec<Complex> = slots(n, 3).iter().map(|z| Complex::new(z.re, 0.0)).collect();
        let c: Vec<f64> = (0..=63).map(|i| 0.5 / (1.0 + (i * i) as f64)).collect();
        let y = s.chebyshev(&w.encrypt(&u, w.parameters.max_level()), &c).unwrap();
        assert_eq!(y.level(), w.parameters.max_level() - 6);
        w.check("degree 63", &y, 16.0, |j| {
            let angle = u[j].re.acos();
            Complex::new(c.iter().enumerate().map(|(i, c)| c * (i as f64 * angle).cos()).sum(), 0.0)
        });
    });
}

#[test]
fn secure_n15_a_bootstrap() {
    let all = |parameters: &Parameters, keys: &mut KeyRequests| {
        BootstrapPlan::new(parameters).unwrap().required_keys(parameters, keys).unwrap();
    };
    with_world(Setup { limbs: 1 << 15, ..Setup::of(ParametersLiteral::N15_BOOT) }, all, |w| {
        assert!(!w.parameters.is_insecure());
        let (degree, plan) = (w.parameters.degree(), BootstrapPlan::new(w.parameters).unwrap());
        let limbs = |_| veilformer::accel::Accelerator::allocate(w.accelerator).unwrap();
        let mut constants: Vec<_> = (0..plan.limbs()).map(limbs).collect();
        let (mut values, mut coefficients) = (vec![0.0; degree], vec![0; degree]);
        let (mut residues, mut gathered) = (vec![0; degree], vec![0; degree]);
        let scratch = FactorScratch {
            values: &mut values,
            coefficients: &mut coefficients,
            words: [&mut residues, &mut gathered],
        };
        plan.prepare(w.accelerator, w.parameters, w.encoder(), scratch, &mut constants).unwrap();
        let bootstrap = Bootstrap::new(w.server(), &constants).unwrap();
        let u = slots(w.parameters.slots(), 4);
        let y = bootstrap.refresh(&w.encrypt(&u, plan.floor())).unwrap();
        assert_eq!(y.level(), w.parameters.max_level());
        let found = w.decrypt(&y);
        let stats = PrecisionStats::of(u.iter().zip(&found).flat_map(|(u, y)| [(u.re, y.re), (u.im, y.im)]));
        assert!(stats.mean_bits > 17.5 && stats.min_bits > 14.0, "{stats}");
    });
}
