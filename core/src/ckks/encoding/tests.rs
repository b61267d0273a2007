extern crate std;
use super::*;
use crate::ckks::{Error, galois_element};
use crate::memory::{Arena, OutOfMemory};
use ::fixed::types::{I4F60, I16F16, U50F14};
use core::f64::consts::PI;
use std::{vec, vec::Vec};

fn slots(count: usize) -> Vec<Complex> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    };
    (0..count).map(|_| Complex::new(next(), next())).collect()
}

fn with_encoder(degree: usize, test: impl FnOnce(&Encoder<'_>)) {
    let mut words = vec![0.0; Encoder::words_needed(degree)];
    test(&Encoder::new(degree, &mut Arena::new(&mut words)).unwrap());
}

fn encode(encoder: &Encoder<'_>, values: &[Complex], scale: f64) -> Vec<i64> {
    let degree = 2 * encoder.slots();
    let (mut scratch, mut out) = (vec![0.0; degree], vec![0; degree]);
    encoder.encode(values, scale, &mut scratch, &mut out).unwrap();
    out
}

fn decode(encoder: &Encoder<'_>, coefficients: &[i64], scale: f64) -> Vec<Complex> {
    let mut copy: Vec<f64> = coefficients.iter().map(|&c| c as f64).collect();
    let mut out = vec![Complex::default(); encoder.slots()];
    encoder.decode(&mut copy, scale, &mut out).unwrap();
    out
}

fn distance(x: &[Complex], y: &[Complex]) -> f64 {
    x.iter().zip(y).map(|(a, b)| (a.re - b.re).hypot(a.im - b.im)).fold(0.0, f64::max)
}

#[test]
fn slots_are_evaluations_at_powers_of_five() {
    let degree = 64;
    with_encoder(degree, |encoder| {
        let coefficients: Vec<i64> = (0..degree as i64).map(|k| (k * 7919 + 13) % 1001 - 500).collect();
        let expected: Vec<Complex> = (0..degree / 2)
            .map(|j| {
                let g = galois_element(degree, j as i64);
                let term = |part: fn(f64) -> f64| {
                    let angle = |k| PI * (k * g % (2 * degree)) as f64 / degree as f64;
                    coefficients.iter().enumerate().map(|(k, &c)| c as f64 * part(angle(k))).sum::<f64>()
                        / 16.0
                };
                Complex::new(term(f64::cos), term(f64::sin))
            })
            .collect();
        assert!(distance(&decode(encoder, &coefficients, 16.0), &expected) < 1e-10);
        assert_eq!(encode(encoder, &expected, 16.0), coefficients);
    });
}

#[test]
fn encoding_round_trips_to_rounding() {
    for log_degree in [2, 10, 13, 16] {
        let degree = 1 << log_degree;
        with_encoder(degree, |encoder| {
            let values = slots(degree / 2);
            let scale = 2f64.powi(40);
            let back = decode(encoder, &encode(encoder, &values, scale), scale);
            // Rounding errors of 1/√12 each add up to a deviation of √(N/12).
            assert!(distance(&values, &back) < 5.0 * (degree as f64 / 6.0).sqrt() / scale);
        });
    }
}

#[test]
fn automorphisms_rotate_left_and_conjugate() {
    let degree = 1 << 10;
    with_encoder(degree, |encoder| {
        let values = slots(degree / 2);
        let coefficients = encode(encoder, &values, 2f64.powi(40));
        let image = |g: usize| {
            let mut image = vec![0i64; degree];
            for (k, &c) in coefficients.iter().enumerate() {
                let target = k * g % (2 * degree);
                image[target % degree] = if target < degree { c } else { -c };
            }
            decode(encoder, &image, 2f64.powi(40))
        };
        for steps in [1i64, 7, -3, 511] {
            let mut expected = values.clone();
            expected.rotate_left(steps.rem_euclid(512) as usize);
            assert!(distance(&image(galois_element(degree, steps)), &expected) < 1e-9);
        }
        let conjugate: Vec<Complex> = values.iter().map(|v| Complex::new(v.re, -v.im)).collect();
        assert!(distance(&image(2 * degree - 1), &conjugate) < 1e-9);
    });
}

#[test]
fn periodic_values_use_few_coefficients() {
    let degree = 1 << 10;
    with_encoder(degree, |encoder| {
        let values = slots(8);
        let (mut scratch, mut out) = (vec![0.0; degree], vec![0; degree]);
        encoder.encode_periodic(&values, 1e12, &mut scratch, &mut out).unwrap();
        for (k, &c) in out.iter().enumerate() {
            assert!(c == 0 || k % (degree / 16) == 0, "coefficient {k} is {c}");
        }
        let back = decode(encoder, &out, 1e12);
        assert!(back.chunks(8).all(|chunk| distance(chunk, &values) < 1e-10));
        assert!(encoder.encode_periodic(&values[..3], 1.0, &mut scratch, &mut out).is_err());
        assert!(encoder.encode_periodic(&[], 1.0, &mut scratch, &mut out).is_err());
    });
}

#[test]
fn what_cannot_be_encoded_is_named() {
    let degree = 64;
    with_encoder(degree, |encoder| {
        let (mut scratch, mut out) = (vec![0.0; degree], vec![0; degree]);
        for (bad, index) in [(f64::NAN, 3), (f64::INFINITY, 0), (f64::NEG_INFINITY, 31)] {
            let mut values = vec![0.5; 32];
            values[index] = bad;
            let error = encoder.encode_real(&values, 1.0, &mut scratch, &mut out);
            assert_eq!(error, Err(Error::NotEncodable { index }));
        }
        let error = encoder.encode_real(&[1.0; 32], 2f64.powi(62), &mut scratch, &mut out);
        assert_eq!(error, Err(Error::NotEncodable { index: 0 }));
        encoder.encode_real(&[1.0; 32], 2f64.powi(61), &mut scratch, &mut out).unwrap();
        assert_eq!(out[0], 1 << 61);
        let error = encoder.encode_real(&[1.0; 33], 1.0, &mut scratch, &mut out);
        assert_eq!(error, Err(Error::Length { have: 33, need: 32 }));
        let error = encoder.encode_real(&[1.0], 1.0, &mut scratch[1..], &mut out);
        assert_eq!(error, Err(Error::Length { have: 63, need: 64 }));
    });
    let mut words = [0.0; 63];
    let error = Encoder::new(64, &mut Arena::new(&mut words)).err();
    assert_eq!(error, Some(OutOfMemory { have: 63, need: 64 }));
}

#[test]
fn fixed_point_agrees_with_floating_point() {
    for log_degree in [6, 10, 12, 13] {
        let degree = 1 << log_degree;
        let mut words = vec![0i64; FixedEncoder::words_needed(degree)];
        let fixed = FixedEncoder::new(degree, &mut Arena::new(&mut words)).unwrap();
        with_encoder(degree, |float| {
            // At scale 2^45 floating point is off by some 2^−5, fixed point by
            // 2^−10: after rounding they differ by one at most, and rarely.
            let values: Vec<Complex> =
                slots(degree / 2).iter().map(|v| Complex::new(3.9 * v.re, 3.9 * v.im)).collect();
            let expected = encode(float, &values, 2f64.powi(45));
            let mut obtained = vec![0i64; degree];
            let slot = |j: usize| (I4F60::from_num(values[j].re), I4F60::from_num(values[j].im));
            fixed.encode_with(slot, U50F14::from_bits(1 << 59), &mut obtained).unwrap();
            let differences = expected.iter().zip(&obtained).map(|(a, b)| a.abs_diff(*b));
            assert!(differences.clone().max() <= Some(1));
            assert!(differences.sum::<u64>() < degree as u64 / 20);
            // Back again, against floating point and the slots themselves.
            let reference = decode(float, &obtained, 2f64.powi(45));
            fixed.decode_in_place(&mut obtained, U50F14::from_bits(1 << 59)).unwrap();
            let back: Vec<Complex> = (0..degree / 2)
                .map(|j| {
                    let part = |k: usize| I4F60::from_bits(obtained[k]).to_num::<f64>();
                    Complex::new(part(j), part(j + degree / 2))
                })
                .collect();
            assert!(distance(&reference, &back) < 2f64.powi(-48));
            assert!(distance(&values, &back) < 5.0 * (degree as f64 / 6.0).sqrt() / 2f64.powi(45));
        });
    }
}

#[test]
fn fixed_point_refuses_what_is_out_of_range() {
    let degree = 64;
    let mut words = vec![0i64; degree];
    let encoder = FixedEncoder::new(degree, &mut Arena::new(&mut words)).unwrap();
    let mut out = vec![0i64; degree];
    let scale = U50F14::from_num(1u64 << 27);
    for bad in [I16F16::from_num(4.5), I16F16::from_num(-4.5), I16F16::MAX, I16F16::MIN] {
        let error = encoder.encode_real(&[I16F16::ONE, bad], scale, &mut out);
        assert_eq!(error, Err(Error::NotEncodable { index: 1 }));
    }
    encoder.encode_real(&[I16F16::from_num(4); 32], scale, &mut out).unwrap();
    assert_eq!(out[0], 4 << 27);
    assert!(out[1..].iter().all(|c| c.abs() <= 1));
    let mut values = [I4F60::ZERO; 32];
    encoder.decode_real(&mut out, scale, &mut values).unwrap();
    assert!(values.iter().all(|v| (*v - I4F60::from_num(4)).abs() < I4F60::from_num(1e-6)));
    out.fill(0);
    out[5] = 8 << 27;
    assert_eq!(encoder.decode_in_place(&mut out, scale), Err(Error::NotEncodable { index: 5 }));
    assert!(encoder.encode_real(&[0i8; 33], scale, &mut out).is_err());
}
