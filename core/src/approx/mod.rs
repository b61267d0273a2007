//! A function, its interval, its polynomial, its depth and its error: one type.
//!
//! CKKS adds and multiplies; everything else a transformer needs (PAPER.md, appendix F) is a polynomial that is
//! right on one interval and worthless outside it. [`Approximation`] keeps the two together: the coefficients in
//! the Chebyshev basis of that interval, the number of squarings that follow (for the exponential), the
//! multiplicative depth they cost and, measured, how far they are from the function.
//!
//! The f64 evaluation here (Clenshaw) is the reference for every other execution of the same polynomial.

mod fit;

pub use fit::fit;

/// The largest polynomial degree this crate handles (depth 8).
pub const MAX_DEGREE: usize = 255;

/// The most squarings that may follow a polynomial.
pub const MAX_SQUARINGS: u32 = 16;

/// The non-linear functions of the model, its loss and its optimizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Function {
    /// eˣ: the Gaussian kernel (x ≤ 0) and the loss.
    Exp,
    /// 1/√x: layer norms and the optimizer (x > 0).
    InverseSqrt,
    /// 1/x: the loss (x > 0).
    Inverse,
    /// max(x, 0): the feed-forward gate.
    Relu,
    /// tanh x: the head.
    Tanh,
    /// −1, 0 or 1.
    Sign,
}

impl Function {
    /// The function itself.
    pub fn evaluate(self, x: f64) -> f64 {
        match self {
            Self::Exp => libm::exp(x),
            Self::InverseSqrt => 1.0 / libm::sqrt(x),
            Self::Inverse => 1.0 / x,
            Self::Relu => libm::fmax(x, 0.0),
            Self::Tanh => libm::tanh(x),
            Self::Sign if x > 0.0 => 1.0,
            Self::Sign if x < 0.0 => -1.0,
            Self::Sign => 0.0,
        }
    }

    /// Whether the function is finite on the whole interval.
    pub fn is_defined_on(self, interval: Interval) -> bool {
        match self {
            Self::InverseSqrt | Self::Inverse => interval.low() > 0.0,
            _ => true,
        }
    }
}

/// Why an interval or an approximation was refused.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum ApproxError {
    /// The ends are not finite, or not in increasing order.
    Interval {
        /// The lower end given.
        low: f64,
        /// The upper end given.
        high: f64,
    },
    /// The function has a pole inside the interval.
    Domain {
        /// The function asked for.
        function: Function,
        /// The lower end of the interval.
        low: f64,
    },
    /// No coefficients, or more than [`MAX_DEGREE`] + 1 of them.
    Coefficients {
        /// How many were given.
        given: usize,
    },
    /// A coefficient is infinite or not a number.
    NotFinite {
        /// Its position.
        index: usize,
    },
    /// Squarings follow a function that is not the exponential, or there are more than [`MAX_SQUARINGS`].
    Squarings {
        /// How many were asked for.
        given: u32,
    },
}

impl core::fmt::Display for ApproxError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Interval { low, high } => write!(f, "[{low}, {high}] is not a finite interval"),
            Self::Domain { function, low } => write!(f, "{function:?} has a pole above {low}"),
            Self::Coefficients { given } => {
                write!(f, "{given} coefficients given, 1 to {} expected", MAX_DEGREE + 1)
            }
            Self::NotFinite { index } => write!(f, "coefficient {index} is not finite"),
            Self::Squarings { given } => {
                write!(f, "{given} squarings given; only exp takes any, and at most {MAX_SQUARINGS}")
            }
        }
    }
}

impl core::error::Error for ApproxError {}

/// A closed, finite, non-empty interval.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Interval {
    low: f64,
    high: f64,
}

impl Interval {
    /// The interval [low, high], low < high.
    pub fn new(low: f64, high: f64) -> Result<Self, ApproxError> {
        if low.is_finite() && high.is_finite() && low < high {
            Ok(Self { low, high })
        } else {
            Err(ApproxError::Interval { low, high })
        }
    }

    /// The lower end.
    pub fn low(self) -> f64 {
        self.low
    }

    /// The upper end.
    pub fn high(self) -> f64 {
        self.high
    }

    /// The distance between the ends.
    pub fn width(self) -> f64 {
        self.high - self.low
    }

    /// Whether x lies inside, ends included.
    pub fn contains(self, x: f64) -> bool {
        self.low <= x && x <= self.high
    }

    /// x on the interval → t on [−1, 1].
    pub fn to_unit(self, x: f64) -> f64 {
        (2.0 * x - (self.low + self.high)) / self.width()
    }

    /// t on [−1, 1] → x on the interval.
    pub fn from_unit(self, t: f64) -> f64 {
        0.5 * (self.low + self.high) + 0.5 * self.width() * t
    }
}

/// A polynomial in place of a function: p(t)^(2^s), with t the argument moved from the interval to [−1, 1] and
/// p = Σ c_j·T_j in the Chebyshev basis. s = 0 except for the exponential, where p stands for exp(x/2^s).
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Approximation<'a> {
    function: Function,
    interval: Interval,
    squarings: u32,
    coefficients: &'a [f64],
}

/// How far an approximation is from its function, measured on a grid over its interval.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct ErrorReport {
    /// The largest |approximation − function|.
    pub worst: f64,
    /// The mean of |approximation − function|.
    pub mean: f64,
    /// The largest error relative to max(|function|, tiny); infinite where the function vanishes.
    pub worst_relative: f64,
}

impl ErrorReport {
    /// The worst error in bits, −log₂: 10 bits is an error of 2⁻¹⁰.
    pub fn worst_bits(&self) -> f64 {
        -libm::log2(self.worst)
    }

    /// The mean error in bits.
    pub fn mean_bits(&self) -> f64 {
        -libm::log2(self.mean)
    }
}

impl<'a> Approximation<'a> {
    /// Wraps coefficients computed earlier (by [`fit`], or better), after checking that they can be used.
    pub fn new(
        function: Function,
        interval: Interval,
        squarings: u32,
        coefficients: &'a [f64],
    ) -> Result<Self, ApproxError> {
        check(function, interval, squarings, coefficients.len())?;
        match coefficients.iter().position(|c| !c.is_finite()) {
            Some(index) => Err(ApproxError::NotFinite { index }),
            None => Ok(Self { function, interval, squarings, coefficients }),
        }
    }

    /// The function this stands for.
    pub fn function(&self) -> Function {
        self.function
    }

    /// Where it may be used.
    pub fn interval(&self) -> Interval {
        self.interval
    }

    /// How many squarings follow the polynomial.
    pub fn squarings(&self) -> u32 {
        self.squarings
    }

    /// The coefficients of T_0, T_1, … on the interval moved to [−1, 1].
    pub fn coefficients(&self) -> &'a [f64] {
        self.coefficients
    }

    /// The degree of the polynomial (before the squarings).
    pub fn degree(&self) -> usize {
        self.coefficients.len() - 1
    }

    /// Multiplicative levels, for an argument that is already on [−1, 1]: ⌈log₂(degree + 1)⌉ + squarings.
    pub fn depth(&self) -> u32 {
        self.coefficients.len().next_power_of_two().trailing_zeros() + self.squarings
    }

    /// The value at x (Clenshaw). Outside the interval it is what the polynomial is there: usually enormous.
    pub fn evaluate(&self, x: f64) -> f64 {
        let mut y = clenshaw(self.coefficients, self.interval.to_unit(x));
        for _ in 0..self.squarings {
            y *= y;
        }
        y
    }

    /// The derivative at x: of the polynomial, not of the function.
    pub fn slope(&self, x: f64) -> f64 {
        let (mut y, mut slope) = clenshaw_with_slope(self.coefficients, self.interval.to_unit(x));
        for _ in 0..self.squarings {
            slope *= 2.0 * y;
            y *= y;
        }
        slope * 2.0 / self.interval.width()
    }

    /// Compares with the function at `points` ≥ 2 equally spaced arguments, ends included.
    pub fn measure(&self, points: usize) -> ErrorReport {
        let points = points.max(2);
        let (mut worst, mut sum, mut worst_relative) = (0.0, 0.0, 0.0);
        for i in 0..points {
            let x = self.interval.from_unit(2.0 * i as f64 / (points - 1) as f64 - 1.0);
            let exact = self.function.evaluate(x);
            let error = libm::fabs(self.evaluate(x) - exact);
            worst = libm::fmax(worst, error);
            worst_relative = libm::fmax(worst_relative, error / libm::fabs(exact));
            sum += error;
        }
        ErrorReport { worst, mean: sum / points as f64, worst_relative }
    }
}

/// What [`Approximation::new`] and [`fit`] both refuse.
fn check(
    function: Function,
    interval: Interval,
    squarings: u32,
    coefficients: usize,
) -> Result<(), ApproxError> {
    if !function.is_defined_on(interval) {
        return Err(ApproxError::Domain { function, low: interval.low() });
    }
    if coefficients == 0 || coefficients > MAX_DEGREE + 1 {
        return Err(ApproxError::Coefficients { given: coefficients });
    }
    if squarings > MAX_SQUARINGS || (squarings > 0 && function != Function::Exp) {
        return Err(ApproxError::Squarings { given: squarings });
    }
    Ok(())
}

/// Σ c_j·T_j(t), by Clenshaw's backward recurrence.
pub fn clenshaw(coefficients: &[f64], t: f64) -> f64 {
    clenshaw_with_slope(coefficients, t).0
}

/// The Chebyshev coefficients of the derivative of Σ c_j·T_j by t; entries of `out` beyond its degree are zeroed, those that
/// do not fit are dropped. What the backward pass evaluates under encryption in place of [`Approximation::slope`].
///
/// From 2·T_j = T'_{j+1}/(j+1) − T'_{j−1}/(j−1): d_{j−1} = d_{j+1} + 2j·c_j, and d_0 half of that.
pub fn derivative(coefficients: &[f64], out: &mut [f64]) {
    out.fill(0.0);
    let (mut above, mut here) = (0.0, 0.0);
    for (j, &c) in coefficients.iter().enumerate().skip(1).rev() {
        (above, here) = (here, above + 2.0 * j as f64 * c);
        if let Some(d) = out.get_mut(j - 1) {
            *d = if j == 1 { 0.5 * here } else { here };
        }
    }
}

/// The value and the derivative of Σ c_j·T_j at t: the recurrence and its derivative, side by side.
fn clenshaw_with_slope(coefficients: &[f64], t: f64) -> (f64, f64) {
    let Some((&c0, rest)) = coefficients.split_first() else { return (0.0, 0.0) };
    let (mut b1, mut b2, mut d1, mut d2) = (0.0, 0.0, 0.0, 0.0);
    for &c in rest.iter().rev() {
        (d1, d2) = (2.0 * b1 + 2.0 * t * d1 - d2, d1);
        (b1, b2) = (c + 2.0 * t * b1 - b2, b1);
    }
    (c0 + t * b1 - b2, b1 + t * d1 - d2)
}

#[cfg(test)]
mod tests;
