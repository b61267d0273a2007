//! The same at 128-bit security, on the smaller named sets.

use super::world::{Setup, plus, slots, times, with_world};
use veilformer::ckks::encoding::Complex;
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
