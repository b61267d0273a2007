//! x·W on slots: cyclic diagonals over the features, baby-step giant-step.

use super::{Layout, SlotArithmetic};
use crate::ckks::Error;
use crate::ckks::server::BabyGiant;

/// Most features in one lane.
const MAX_WIDTH: usize = 1 << 10;
const MAX_STEPS: usize = 32;

/// Applies y\[o\] = Σ_i x\[i\]·weight(i, o, lane) at every lane for which
/// `lanes` holds, and zero at the others. Indices are places, not features.
pub(super) fn apply<S: SlotArithmetic>(
    slots: &mut S,
    layout: &Layout,
    x: &S::Vector,
    lanes: impl Fn(usize) -> bool + Sync,
    weight: impl Fn(usize, usize, usize) -> f64 + Sync,
) -> Result<S::Vector, Error> {
    let (width, stride) = (layout.width(), layout.feature_stride());
    if width > MAX_WIDTH {
        return Err(Error::Full { capacity: MAX_WIDTH });
    }
    // The next power of two above √width: for 32 features 8 baby and 4 giant steps.
    let babies = 1usize << width.ilog2().div_ceil(2);
    let giants = width / babies;
    let steps = |count: usize, unit: usize| -> heapless::Vec<i64, MAX_STEPS> {
        (0..count).map(|i| (i * unit * stride) as i64).collect()
    };
    let (baby, giant) = (steps(babies, 1), steps(giants, babies));
    let fill = |g: usize, b: usize, values: &mut [f64]| {
        let mut zero = true;
        for (feature, block) in values.chunks_exact_mut(stride).enumerate() {
            // Before the giant turn by g·babies this place will be `output`.
            let output = (feature + width - g * babies) % width;
            let input = (output + g * babies + b) % width;
            for (lane, run) in block.chunks_exact_mut(layout.batch()).enumerate() {
                let value = if lanes(lane) { weight(input, output, lane) } else { 0.0 };
                zero &= value == 0.0;
                run.fill(value);
            }
        }
        !zero
    };
    slots.transform(x, BabyGiant { baby: &baby, giant: &giant }, &fill)
}
