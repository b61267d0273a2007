//! A product of matrices, in the small ring or in slots: what each would take, and which is chosen.

use crate::exit::{Exit, Failure};
use crate::output::{Table, seconds};
use crate::watch::{OVERHEAD, Work};
use serde::Serialize;
use std::str::FromStr;
use veilformer::ckks::{KeyRequests, Parameters};
use veilformer::matrix::lanes::Lanes;
use veilformer::matrix::slots::{Cost, Factor, Packing};
use veilformer::matrix::{Layout, RingSwitch, SmallRing};
use veilformer_multicore::Multicore;

/// Tokens, contracted features, resulting features.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    tokens: usize,
    inner: usize,
    outer: usize,
}

impl FromStr for Shape {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<usize> = text.split('x').map(str::parse).collect::<Result<_, _>>().unwrap_or_default();
        match parts[..] {
            [tokens, inner, outer]
                if tokens.min(inner).min(outer) > 0 && tokens.max(inner).max(outer) <= 8192 =>
            {
                Ok(Self { tokens, inner, outer })
            }
            _ => Err("expected TOKENSxINNERxOUTER, 1 to 8192 each, for instance 128x768x768".into()),
        }
    }
}

/// One way to multiply.
#[derive(Serialize)]
struct Way {
    name: &'static str,
    key_switches: usize,
    plaintext_products: usize,
    levels: usize,
    keys: usize,
    predicted_s: f64,
}

/// Both ways.
#[derive(Serialize)]
pub(crate) struct Comparison {
    small_ring_degree: usize,
    ways: [Way; 2],
    chosen: &'static str,
    why: String,
}

/// A multiply-accumulate of residues over one butterfly, what is done with every output included.
const MULTIPLY_ADD: f64 = 0.7;

impl Comparison {
    /// For a product with weights, or of two `encrypted` matrices, on a machine that takes `unit` seconds for a
    /// unit of work.
    pub(crate) fn new(
        parameters: &Parameters,
        shape: Shape,
        encrypted: bool,
        unit: f64,
    ) -> Result<Self, Failure> {
        let small = parameters.small_ring()?;
        if small.top_level() == 0 {
            let message = "a product needs SlotToCoeff to end at level 1 or above; add --parameters n16/matrix, for instance";
            return Err(Failure::new(Exit::Usage, message));
        }
        let ways = if encrypted {
            [Self::lanes(&small, shape, parameters, unit)?, Self::slots(parameters, shape, None, unit)?]
        } else {
            [
                Self::rows(&small, shape, parameters, unit)?,
                Self::slots(parameters, shape, Some(Factor::Left), unit)?,
            ]
        };
        let best = usize::from(ways[1].predicted_s < ways[0].predicted_s);
        let ratio = ways[1 - best].predicted_s / ways[best].predicted_s;
        let why = format!(
            "{ratio:.1} times faster: {} key switches in a ring of degree {} against {} at {}",
            ways[0].key_switches,
            small.degree(),
            ways[1].key_switches,
            parameters.degree()
        );
        Ok(Self { small_ring_degree: small.degree(), chosen: ways[best].name, why, ways })
    }

    /// Packed rows in the small ring: an integer product, and a key switch for every row of a result's ciphertexts.
    fn rows(small: &Parameters, shape: Shape, big: &Parameters, unit: f64) -> Result<Way, Failure> {
        let input = Layout::new(small.degree(), shape.inner, shape.tokens)?;
        let output = input.with_rows(shape.outer)?;
        let (factor, level) = (big.degree() / small.degree(), 1);
        let [down, up] = [&input, &output].map(|layout| layout.ciphertexts().div_ceil(factor));
        let packed = if input.rank() > 1 { input.rank() * output.ciphertexts() } else { 0 };
        let mut keys = KeyRequests::new();
        SmallRing::<Multicore, [_]>::packing_keys(input.log_rank(), level - 1, &mut keys)?;
        RingSwitch::<Multicore, [_]>::required_keys(big, level - 1, &mut keys)?;
        let terms = (shape.inner * shape.outer) as f64;
        let products = terms * (2.0 * small.degree() as f64 / input.rank() as f64 + shape.tokens as f64);
        let switch =
            Work::new(big).narrow_switch(level) * down as f64 + Work::new(big).narrow_switch(0) * up as f64;
        let work = switch
            + share(small, big) * 4.0 * packed as f64
            + products * (level + 1) as f64 * MULTIPLY_ADD / butterflies(big) / OVERHEAD;
        Ok(Way {
            name: "small ring",
            key_switches: down + up + packed,
            plaintext_products: shape.inner.div_ceil(input.rank()) * shape.outer,
            levels: 1,
            keys: keys.len(),
            predicted_s: unit * work,
        })
    }

    /// Rows of lanes in the small ring: as many products at once as there are lanes.
    fn lanes(small: &Parameters, shape: Shape, big: &Parameters, unit: f64) -> Result<Way, Failure> {
        let lanes = Lanes::new(small.degree(), block_size(shape.tokens.max(shape.outer)))?;
        let blocks = shape.tokens.div_ceil(lanes.width()) * shape.outer.div_ceil(lanes.width());
        let mut keys = KeyRequests::new();
        lanes.required_keys(1, &mut keys)?;
        let key_switches = 3 * lanes.width() * blocks;
        let products = (4 * small.degree() * lanes.width() * shape.inner * blocks) as f64;
        let work = share(small, big) * key_switches as f64 * Work::new(small).key_switch(1)
            + products * 2.0 * MULTIPLY_ADD / butterflies(big) / OVERHEAD;
        Ok(Way {
            name: "small ring",
            key_switches,
            plaintext_products: 0,
            levels: 1,
            keys: keys.len() + 1,
            predicted_s: unit * work,
        })
    }

    /// Blocks in slots, at the lowest level where that is possible; as many as there are lanes at once.
    fn slots(
        parameters: &Parameters,
        shape: Shape,
        weights: Option<Factor>,
        unit: f64,
    ) -> Result<Way, Failure> {
        let dimension = block_size(shape.tokens);
        let packing = Packing::new(parameters, dimension, dimension)?;
        let Cost { key_switches, plaintext_products, levels, keys } =
            weights.map_or_else(|| packing.product_cost(), |factor| packing.plain_cost(factor));
        let [tokens, inner, outer] = [shape.tokens, shape.inner, shape.outer].map(|n| n.div_ceil(dimension));
        // Weights: all turns of an operand serve every block of the result. Else every pair of blocks is a product.
        let (turned, multiplied) =
            if weights.is_some() { (inner, inner * outer) } else { (inner * outer, inner * outer) };
        let [turned, multiplied] = [turned, multiplied].map(|n| n * tokens);
        let [turned, multiplied] = [turned, multiplied].map(|n| n.div_ceil(packing.lanes().max(1)));
        let (switches, products) = (turned * key_switches, multiplied * plaintext_products);
        let work = Work::new(parameters);
        let predicted =
            switches as f64 * work.key_switch(levels) + products as f64 * work.limb_products(levels);
        Ok(Way {
            name: "slots",
            key_switches: switches,
            plaintext_products: products,
            levels,
            keys,
            predicted_s: unit * predicted,
        })
    }

    pub(crate) fn describe(&self) -> String {
        let mut table =
            Table::new(&["way", ">key switches", ">plaintext products", ">levels", ">keys", ">about, here"]);
        for way in &self.ways {
            table.row(vec![
                way.name.into(),
                way.key_switches.to_string(),
                way.plaintext_products.to_string(),
                way.levels.to_string(),
                way.keys.to_string(),
                seconds(way.predicted_s),
            ]);
        }
        format!("{}\nchosen: {}, {}", table.render(), self.chosen, self.why)
    }
}

/// Rows and columns of a block, where a matrix is larger than the lanes of the small ring are wide.
fn block_size(columns: usize) -> usize {
    columns.next_power_of_two().clamp(8, 128)
}

/// Butterflies of one transform.
fn butterflies(parameters: &Parameters) -> f64 {
    (parameters.degree() / 2 * parameters.chain().log_degree() as usize) as f64
}

/// A transform in the small ring over one in the big ring.
fn share(small: &Parameters, big: &Parameters) -> f64 {
    butterflies(small) / butterflies(big)
}
