//! Chains of products without a bootstrap in between.

use super::*;

type Pair<'r, 'a, A> = PairEvaluator<'r, 'a, A, [SwitchingKey<A>]>;

/// Small enough for 128 tokens: sixteen features in a ciphertext.
const FEATURES: usize = 16;
const TOKENS: usize = 128;

fn with_ring(
    test: impl for<'p, 'm> FnOnce(
        &Ring<'_, Toy<'p, 'm>>,
        &SmallRing<'_, Toy<'p, 'm>, [SwitchingKey<Toy<'p, 'm>>]>,
    ),
) {
    let parameters = small_parameters();
    with_accelerator(&parameters, |accelerator| {
        let log_rank = Layout::new(parameters.degree(), FEATURES, TOKENS).unwrap().log_rank();
        let mut keys = requests(log_rank, 1);
        Pair::<Toy<'_, '_>>::required_keys(&parameters, log_rank, 2, &mut keys).unwrap();
        let ring = Ring::new(accelerator, &parameters, &keys);
        test(&ring, &SmallRing::new(ring.evaluator()));
    });
}

fn places<T>(count: usize) -> Vec<Option<T>> {
    (0..count).map(|_| None).collect()
}

/// The rows of a matrix, one ciphertext for each.
fn split<A: crate::accel::Trusted<Word = u64>>(
    pair: &Pair<'_, '_, A>,
    x: &EncryptedMatrix<Vec<Ciphertext<A>>>,
) -> Vec<EncryptedRow<A>> {
    let layout = x.entries().layout;
    let mut rows = Vec::new();
    for ciphertext in x.ciphertexts() {
        let mut out = places(layout.rank().min(layout.rows() - rows.len()));
        pair.split(ciphertext, x.entries(), &mut out).unwrap();
        rows.extend(out.into_iter().flatten());
    }
    rows
}

/// Columns at T times the scale.
fn columns<A: crate::accel::Trusted<Word = u64>>(
    pair: &Pair<'_, '_, A>,
    x: &EncryptedMatrix<Vec<Ciphertext<A>>>,
    side: Side,
) -> Vec<EncryptedVector<[Ciphertext<A>; 1]>> {
    let mut columns = places(TOKENS);
    pair.columns(&split(pair, x), side, &mut columns).unwrap();
    columns.into_iter().flatten().collect()
}

fn zeros<A: crate::accel::Trusted<Word = u64>>(ring: &Ring<'_, A>, count: usize) -> Vec<Ciphertext<A>> {
    (0..count).map(|_| Ciphertext::zero(ring.accelerator, 0).unwrap()).collect()
}

/// The error of an entry, root mean square, in units of what is predicted of it.
fn surprise<A: crate::accel::Trusted<Word = u64>>(
    ring: &Ring<'_, A>,
    x: &EncryptedMatrix<Vec<Ciphertext<A>>>,
    expected: impl Fn(usize, usize) -> f64,
) -> f64 {
    let (layout, scale) = (x.entries().layout, x.entries().scale);
    let plain: Vec<Vec<f64>> = x.ciphertexts().iter().map(|c| ring.decrypt(c)).collect();
    let squares = (0..layout.rows() * layout.columns()).map(|i| {
        let (row, column) = (i / layout.columns(), i % layout.columns());
        let (ciphertext, at) = layout.position(row, column);
        (plain[ciphertext][at] - expected(row, column) * scale).powi(2)
    });
    (squares.sum::<f64>() / (layout.rows() * layout.columns()) as f64).sqrt() / x.entries().noise
}

fn within(range: core::ops::Range<f64>, x: f64) {
    assert!(range.contains(&x), "{x:?} is not in {range:?}");
}

#[test]
fn rows_of_two_products_share_a_ciphertext() {
    with_ring(|ring, small| {
        let (degree, scale) = (ring.parameters.degree(), 2f64.powi(40));
        let head = Layout::new(degree, FEATURES, TOKENS).unwrap();
        let pair = Pair::new(small, 1, &mut vec![0; degree]).unwrap();
        let keys = ring.matrix(head, 1, scale / TOKENS as f64, |f, t| value(1, f, t));
        let queries = [2, 3].map(|seed| ring.matrix(head, 1, scale, |f, t| value(seed, f, t)));
        let left = columns(&pair, &keys, Side::Gather);
        let exact = |seed: u64, t: usize, u: usize| -> f64 {
            (0..FEATURES).map(|f| value(1, f, t) * value(seed, f, u)).sum()
        };
        for (first, second) in [(10, 6), (3, 2), (1, 0)] {
            let mut rows = zeros(ring, first + second);
            let (upper, lower) = rows.split_at_mut(first);
            let mut entries = pair.row_products(&left[..first], &queries[0], 16.0, upper).unwrap();
            if second > 0 {
                let other = pair.row_products(&left[40..40 + second], &queries[1], 16.0, lower).unwrap();
                assert_eq!((other.scale, other.noise), (entries.scale, entries.noise));
                entries = Entries { layout: head.with_rows(first + second).unwrap(), ..entries };
            }
            let packed = pair.pick(&entries, &mut rows).unwrap();
            let exact = |i: usize, u: usize| match i.checked_sub(first) {
                Some(i) if i < second => exact(3, 40 + i, u),
                Some(_) => 0.0,
                None => exact(2, i, u),
            };
            let entries = *packed.entries();
            let packed = EncryptedMatrix::new(entries, packed.into_ciphertexts().into()).unwrap();
            within(0.25..4.0, surprise(ring, &packed, exact));
            // Rows that are missing are zero.
            let packed = EncryptedMatrix::new(Entries { layout: head, ..entries }, packed.into_ciphertexts());
            assert!(ring.error(&packed.unwrap(), exact) < 2f64.powi(-9));
        }
        let refused = pair.row_products(&left[..2], &queries[0], 16.0, &mut zeros(ring, 3)).err();
        assert_eq!(refused, Some(Error::Room { have: 3, need: 2 }));
        let refused = pair.pick(keys.entries(), &mut zeros(ring, FEATURES + 1)).err();
        assert_eq!(refused, Some(Error::Room { have: FEATURES + 1, need: FEATURES }));
    });
}

#[test]
fn scores_follow_projections() {
    with_ring(|ring, small| {
        let (layout, scale) = (Layout::new(ring.parameters.degree(), 40, TOKENS).unwrap(), 2f64.powi(40));
        let head = layout.with_rows(FEATURES).unwrap();
        let x = ring.matrix(layout, 2, scale, |i, t| value(1, i, t));
        let weight = |seed: u64, o: usize, i: usize| value(seed, o, i) / 8.0;
        let project = |seed: u64, scale: f64| {
            let mut words = vec![0; PlainMatrix::words_needed(&head, &layout)];
            let w = PlainMatrix::quantize(&head, &layout, &mut words, |o, i| weight(seed, o, i)).unwrap();
            ring.product_at(&w.with_bound(4.0), &x, scale).unwrap()
        };
        // The scale of columns is T times that of rows.
        let (queries, keys) = (project(2, scale), project(3, scale / TOKENS as f64));
        let exact = |seed: u64, f: usize, t: usize| -> f64 {
            (0..40).map(|i| weight(seed, f, i) * value(1, i, t)).sum()
        };
        let pair = Pair::new(small, 2, &mut vec![0; ring.parameters.degree()]).unwrap();
        let rows = split(&pair, &keys);
        for (f, row) in rows.iter().enumerate().step_by(5) {
            let plain = ring.decrypt(row.ciphertext());
            for (at, obtained) in plain.iter().enumerate() {
                let expected = if at % FEATURES == 0 { exact(3, f, at / FEATURES) } else { 0.0 };
                let error = (obtained / row.entries().scale - expected).abs();
                assert!(error < 2f64.powi(-9), "row {f}, coefficient {at}: {error}");
            }
        }
        let mut columns = places(TOKENS);
        pair.columns(&rows, Side::Gather, &mut columns).unwrap();
        let columns: Vec<_> = columns.into_iter().flatten().collect();
        let plain = ring.decrypt(&columns[77].ciphertexts()[0]);
        for (at, obtained) in plain.iter().enumerate() {
            let expected = match at {
                0 => exact(3, 0, 77),
                _ if at > plain.len() - FEATURES => -exact(3, plain.len() - at, 77),
                _ => 0.0,
            };
            let error = (obtained / columns[77].entries().scale - expected).abs();
            assert!(error < 2f64.powi(-9), "coefficient {at}: {error}");
        }
        let mut work: Vec<_> =
            (0..FEATURES).map(|_| Ciphertext::zero(ring.accelerator, 0).unwrap()).collect();
        let mut out = places(TOKENS / FEATURES);
        let entries = pair.multiply_transposed(&columns, &queries, 16.0, &mut work, &mut out).unwrap();
        let scores = EncryptedMatrix::new(entries, out.into_iter().flatten().collect()).unwrap();
        assert_eq!(scores.entries().layout.shape(), (TOKENS, TOKENS));
        let error = ring.error(&scores, |t, u| (0..FEATURES).map(|f| exact(3, f, t) * exact(2, f, u)).sum());
        assert!(error < 2f64.powi(-8), "{error}");
    });
}

#[test]
fn an_output_projection_follows_the_values() {
    with_ring(|ring, small| {
        let (degree, scale) = (ring.parameters.degree(), 2f64.powi(40));
        let layout = Layout::new(degree, TOKENS, TOKENS).unwrap();
        let head = layout.with_rows(FEATURES).unwrap();
        // Row t holds what every token takes from token t.
        let weights = ring.matrix(layout, 2, scale, |t, u| value(1, t, u) / 8.0);
        let values = ring.matrix(head, 2, scale / TOKENS as f64, |f, t| value(2, f, t));
        let pair = Pair::new(small, 2, &mut vec![0; degree]).unwrap();
        let rows = split(&pair, &weights);
        let mut columns = places(TOKENS);
        pair.columns(&split(&pair, &values), Side::Scatter, &mut columns).unwrap();
        let columns: Vec<_> = columns.into_iter().flatten().collect();
        let terms: Vec<_> = columns.iter().zip(&rows).collect();
        let mut out = places(1);
        let entries = small.scatter(&terms, 8.0, &mut out).unwrap();
        let mixed = EncryptedMatrix::new(entries, out.into_iter().flatten().collect()).unwrap();
        let exact =
            |f: usize, u: usize| -> f64 { (0..TOKENS).map(|t| value(2, f, t) * value(1, t, u) / 8.0).sum() };
        assert!(ring.error(&mixed, exact) < 2f64.powi(-16));
        let output = layout.with_rows(24).unwrap();
        let mut words = vec![0; PlainMatrix::words_needed(&output, &head)];
        let w = PlainMatrix::quantize(&output, &head, &mut words, |o, f| value(3, o, f) / 4.0).unwrap();
        let y = ring.product(&w, &mixed).unwrap();
        let error = ring.error(&y, |o, u| (0..FEATURES).map(|f| value(3, o, f) / 4.0 * exact(f, u)).sum());
        assert!(error < 2f64.powi(-9), "{error}");
    });
}

/// −½·‖k − q‖² for `keys` tokens and `queries` others, of which there may be fewer.
fn exponents_of(features: usize, keys: usize, queries: usize, seed: u64) {
    with_ring(|ring, small| {
        let (degree, scale) = (ring.parameters.degree(), 2f64.powi(33));
        let head = Layout::new(degree, features, TOKENS).unwrap();
        let few = head.with_columns(queries).unwrap();
        let pair = Pair::new(small, 2, &mut vec![0; degree]).unwrap();
        let (k, q) = (|f: usize, t: usize| value(seed, f, t), |f: usize, u: usize| value(seed + 1, f, u));
        let mut left = columns(&pair, &ring.matrix(head, 2, scale, k), Side::Gather);
        left.truncate(keys);
        let right = ring.matrix(few, 2, scale, q);
        let mut right_columns = columns(&pair, &right, Side::Gather);
        right_columns.truncate(queries);
        let mut rows = zeros(ring, keys);
        let bound = 2.0 * features as f64;
        let entries = pair.exponents(&left, &right, &right_columns, bound, &mut rows).unwrap();
        assert_eq!(entries.layout.shape(), (keys, queries));
        for (first, rows) in (0..).step_by(FEATURES).zip(rows.chunks_mut(FEATURES)) {
            let packed = pair.pick(&entries, rows).unwrap();
            let packed = EncryptedMatrix::new(*packed.entries(), packed.into_ciphertexts().into()).unwrap();
            let exact = |t: usize, u: usize| -> f64 {
                (0..features).map(|f| (k(f, first + t) - q(f, u)).powi(2)).sum::<f64>() / -2.0
            };
            within(0.25..4.0, surprise(ring, &packed, exact));
            within(0.0..2f64.powi(-12), ring.error(&packed, exact));
            let plain = ring.decrypt(&packed.ciphertexts()[0]);
            let beyond = plain[queries.next_power_of_two() * FEATURES..].iter();
            assert!(beyond.into_iter().all(|x| (x / entries.scale).abs() < 2f64.powi(-12)));
        }
        let other = Entries { scale: scale * 1.01, ..*right.entries() };
        let other = EncryptedMatrix::new(other, right.into_ciphertexts()).unwrap();
        let refused = pair.exponents(&left, &other, &right_columns, bound, &mut zeros(ring, keys)).err();
        assert!(matches!(refused, Some(Error::Scale { .. })), "{refused:?}");
    });
}

#[test]
fn exponents_of_all_tokens() {
    exponents_of(FEATURES, TOKENS, TOKENS, 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3))]
    #[test]
    fn exponents_of_random_shapes(
        features in 1usize..=FEATURES, keys in 1usize..40, queries in 1usize..=TOKENS, seed in 1u64..1000,
    ) {
        exponents_of(features, keys, queries, seed);
    }
}

#[test]
fn transposes_of_one_ciphertext_and_of_several() {
    with_ring(|ring, small| {
        let (degree, scale) = (ring.parameters.degree(), 2f64.powi(33));
        let pair = Pair::new(small, 1, &mut vec![0; degree]).unwrap();
        for (rows, count) in [(FEATURES, FEATURES), (5, TOKENS), (40, 100), (TOKENS, 3)] {
            let layout = Layout::new(degree, rows, TOKENS).unwrap();
            let x = ring.matrix(layout, 1, scale, |i, t| value(1, i, t));
            let blocks: Vec<Vec<_>> = split(&pair, &x)
                .chunks(FEATURES)
                .map(|rows| {
                    let mut columns = places(TOKENS);
                    pair.columns(rows, Side::Gather, &mut columns).unwrap();
                    columns.into_iter().flatten().take(count).collect()
                })
                .collect();
            let blocks: Vec<_> = blocks.iter().map(|b| &b[..]).collect();
            let (mut work, mut out) = (zeros(ring, FEATURES), places(count.div_ceil(FEATURES)));
            let entries = pair.transpose(&blocks, &mut work, &mut out).unwrap();
            assert_eq!(entries.layout.shape(), (count, rows));
            let y = EncryptedMatrix::new(entries, out.into_iter().flatten().collect()).unwrap();
            within(0.0..2f64.powi(-12), ring.error(&y, |t, i| value(1, i, t)));
            within(0.25..4.0, surprise(ring, &y, |t, i| value(1, i, t)));
        }
    });
}

#[test]
fn weights_from_the_right_contract_tokens() {
    with_ring(|ring, small| {
        let (degree, scale) = (ring.parameters.degree(), 2f64.powi(33));
        let pair = Pair::new(small, 2, &mut vec![0; degree]).unwrap();
        let head = Layout::new(degree, 13, TOKENS).unwrap();
        let columns = columns(&pair, &ring.matrix(head, 2, scale, |f, t| value(1, f, t)), Side::Scatter);
        let weight = |t: usize, u: usize| value(2, t, u) / 8.0;
        let mut signed = vec![0; degree];
        for (tokens, outputs) in [(TOKENS, TOKENS), (100, 3), (1, 70)] {
            let y = pair
                .multiply_right(&columns[..tokens], outputs, weight, 2f64.powi(40), 8.0, &mut signed)
                .unwrap();
            assert_eq!(y.entries().layout.shape(), (13, outputs));
            let y = EncryptedMatrix::new(*y.entries(), y.into_ciphertexts().into()).unwrap();
            let exact = |f: usize, u: usize| (0..tokens).map(|t| value(1, f, t) * weight(t, u)).sum();
            within(0.0..2f64.powi(-12), ring.error(&y, exact));
            within(0.25..4.0, surprise(ring, &y, exact));
        }
        let mut refused =
            |w: f64| pair.multiply_right(&columns, 3, |_, _| w, scale, 8.0, &mut signed).err().unwrap();
        assert_eq!(refused(f64::NAN), Error::Weights);
        assert_eq!(refused(1e30), Error::Weights);
        let refused = pair.multiply_right(&columns, TOKENS + 1, weight, scale, 8.0, &mut signed).err();
        assert_eq!(refused, Some(Error::Columns { have: TOKENS + 1, max: TOKENS }));
    });
}

#[test]
fn halves_of_a_ciphertext_are_matrices_side_by_side() {
    let layout = Layout::new(2048, 32, 100).unwrap();
    let (wide, rank) = (layout.interleaved().unwrap(), layout.rank());
    assert_eq!((wide.shape(), wide.rank(), wide.ciphertexts()), ((16, 200), rank / 2, 2));
    for (row, column) in [(0, 0), (3, 99), (9, 1), (15, 50)] {
        let (c, i) = (row / (rank / 2), row % (rank / 2));
        assert_eq!(wide.position(row, 2 * column), layout.position(c * rank + i, column));
        assert_eq!(wide.position(row, 2 * column + 1), layout.position(c * rank + i + rank / 2, column));
    }
    let odd = layout.with_rows(20).unwrap().interleaved().err();
    assert_eq!(odd, Some(Error::Shape { have: (20, 100), need: (32, 100) }));
}

#[test]
fn a_split_can_leave_rows_out() {
    with_ring(|ring, small| {
        let degree = ring.parameters.degree();
        let layout = Layout::new(degree, FEATURES, TOKENS).unwrap();
        let pair = Pair::new(small, 1, &mut vec![0; degree]).unwrap();
        let x = ring.matrix(layout, 1, 2f64.powi(40), |i, t| value(1, i, t));
        let most = |stride| (stride, FEATURES / stride);
        for (stride, count) in [most(2), most(8), most(FEATURES), (1, 1), (1, 5), (2, 3)] {
            let mut rows = places(count);
            pair.split_every(stride, &x.ciphertexts()[0], x.entries(), &mut rows).unwrap();
            for (i, row) in rows.into_iter().flatten().enumerate() {
                for (at, obtained) in ring.decrypt(row.ciphertext()).iter().enumerate() {
                    let exact = if at % FEATURES == 0 { value(1, i * stride, at / FEATURES) } else { 0.0 };
                    assert!(
                        (obtained / row.entries().scale - exact).abs() < 2f64.powi(-20),
                        "{stride}, {i}, {at}"
                    );
                }
            }
        }
        for (stride, places) in [(3, 5), (2, 1 + FEATURES / 2), (0, 1), (2 * FEATURES, 0)] {
            let refused =
                pair.split_every(stride, &x.ciphertexts()[0], x.entries(), &mut super::pair::places(places));
            assert!(matches!(refused, Err(Error::Room { .. })), "{stride}: {refused:?}");
        }
    });
}

/// A column as both kinds of vector: what it scatters from a row, and what it gathers from a matrix.
#[test]
fn a_column_is_a_vector() {
    with_ring(|ring, small| {
        let (degree, scale, rows) = (ring.parameters.degree(), 2f64.powi(40), 37);
        let layout = Layout::new(degree, rows, TOKENS).unwrap();
        let scalar = |i: usize, _: usize| value(1, i, 0);
        let column = || {
            let x = ring.matrix(layout.with_columns(1).unwrap(), 2, scale, scalar);
            EncryptedVector::from_column(x).unwrap()
        };
        let v = column();
        assert_eq!(v.side(), Side::Scatter);
        let mut out = places(layout.ciphertexts());
        let entries = small.turn(&v, &mut out).unwrap();
        let turned: Vec<_> = out.into_iter().flatten().collect();
        let turned = EncryptedVector::new(v.side().other(), entries, turned).unwrap();
        let x = ring.matrix(layout, 2, scale, |i, t| value(2, i, t));
        let row = small.gather(&turned, &x, 16.0).unwrap();
        let gathered = |t: usize| -> f64 { (0..rows).map(|i| scalar(i, 0) * value(2, i, t)).sum() };
        let plain = ring.decrypt(row.ciphertext());
        for t in 0..TOKENS {
            let error = (plain[FEATURES * t] / row.entries().scale - gathered(t)).abs();
            assert!(error < 2f64.powi(-16), "token {t}: {error}");
        }
        // One level below, and back to the rows.
        let ev = small.evaluator();
        let low: Vec<_> = v.ciphertexts().iter().map(|c| ev.drop_to(c, 1).unwrap()).collect();
        let low = EncryptedVector::new(Side::Scatter, *v.entries(), low).unwrap();
        let mut out = places(layout.ciphertexts());
        let entries = small.scatter(&[(&low, &row)], 32.0, &mut out).unwrap();
        let y = EncryptedMatrix::new(entries, out.into_iter().flatten().collect()).unwrap();
        assert_eq!(y.entries().layout.shape(), (rows, TOKENS));
        within(0.0..2f64.powi(-15), ring.error(&y, |i, t| scalar(i, 0) * gathered(t)));
        let wide = EncryptedVector::from_column(x).err();
        assert_eq!(wide, Some(Error::Shape { have: (rows, TOKENS), need: (rows, 1) }));
    });
}
