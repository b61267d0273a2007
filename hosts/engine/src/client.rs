//! What a client sends and gets back, as numbers: which coefficient, which slot.

use crate::{Error, Places};
use veilformer::matrix::Layout;

/// The coefficients of the big ring's ciphertexts for a tensor, rounded: entry(sentence, row, column) times `scale`.
pub fn coefficients(
    places: &Places,
    scale: f64,
    entry: impl Fn(usize, usize, usize) -> f64,
) -> Result<Vec<Vec<i64>>, Error> {
    let (degrees, layout) = (places.degrees(), places.layout());
    let mut all = vec![vec![0; degrees.big]; places.ciphertexts()];
    for sentence in 0..places.sentences() {
        for row in 0..layout.rows() {
            for column in 0..layout.columns() {
                let (piece, inner) = layout.position(row, column);
                let (ciphertext, at) = places.of_piece(sentence, piece);
                let value = (entry(sentence, row, column) * scale).round();
                if value.is_nan() || value.abs() >= (1u64 << 62) as f64 {
                    return Err(veilformer::ckks::Error::NotEncodable { index: inner }.into());
                }
                all[ciphertext][at + degrees.factor() * inner] = value as i64;
            }
        }
    }
    Ok(all)
}

/// The slots of a mask, a vector for each ciphertext of the scores: 1 where `counts(sentence, token)`.
pub fn mask(
    scores: &Places,
    heads: usize,
    counts: impl Fn(usize, usize) -> bool,
) -> impl Iterator<Item = Vec<f64>> {
    let length = scores.layout().rows() / heads.max(1);
    (0..scores.ciphertexts()).map(move |ciphertext| {
        let value = |slot| match scores.at(ciphertext, false, slot) {
            Some((sentence, row, _)) => f64::from(counts(sentence, row % length)),
            None => 0.0,
        };
        (0..scores.degrees().slots()).map(value).collect()
    })
}

/// An entry of a matrix of the small ring, from the decrypted coefficients of its pieces.
pub fn entry(layout: &Layout, scale: f64, coefficients: &[Vec<f64>], row: usize, column: usize) -> f64 {
    let (piece, at) = layout.position(row, column);
    coefficients[piece][at] / scale
}
