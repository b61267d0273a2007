//! Which instruction set the kernels use.

use std::ffi::OsStr;

use super::KernelError;

/// An implementation of every kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Path {
    /// Plain integers, any processor.
    Scalar,
    /// Four lanes, floating-point quotients (x86-64 with AVX2 and FMA).
    Avx2,
    /// Eight lanes of 52-bit multiply-accumulate (x86-64 with AVX-512 F, DQ, VL and IFMA).
    Avx512,
    /// Two lanes, floating-point quotients (AArch64).
    Neon,
}

/// The environment variable that overrides the choice: `scalar`, `avx2`, `avx512` or `neon`.
pub const OVERRIDE: &str = "VEILFORMER_KERNELS";

impl Path {
    /// Every path, the fastest last.
    pub const ALL: [Self; 4] = [Self::Scalar, Self::Neon, Self::Avx2, Self::Avx512];

    /// Whether this processor has the instructions.
    pub fn is_available(self) -> bool {
        match self {
            Self::Scalar => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => {
                is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512ifma")
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            #[cfg(target_arch = "aarch64")]
            Self::Neon => std::arch::is_aarch64_feature_detected!("neon"),
            _ => false,
        }
    }

    /// The paths this processor can run, the fastest last.
    pub fn available() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|path| path.is_available())
    }

    /// The fastest available path.
    pub fn detect() -> Self {
        Self::available().last().unwrap_or(Self::Scalar)
    }

    /// The path of that name, as [`OVERRIDE`] spells it.
    pub fn from_name(name: &str) -> Result<Self, KernelError> {
        Self::ALL.into_iter().find(|path| path.name() == name).ok_or(KernelError::UnknownPath)
    }

    /// The name, as [`OVERRIDE`] spells it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Neon => "neon",
        }
    }
}

impl core::fmt::Display for Path {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}

/// A path that this processor is known to have: the witness behind every call into a leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernels {
    path: Path,
}

impl Kernels {
    /// The kernels of `path`, if this processor has them.
    pub fn new(path: Path) -> Result<Self, KernelError> {
        if path.is_available() { Ok(Self { path }) } else { Err(KernelError::UnavailablePath(path)) }
    }

    /// The fastest kernels of this processor.
    pub fn detect() -> Self {
        Self { path: Path::detect() }
    }

    /// The kernels named by [`OVERRIDE`], or the fastest if it is not set.
    pub fn from_environment() -> Result<Self, KernelError> {
        Self::from_override(std::env::var_os(OVERRIDE).as_deref())
    }

    pub(super) fn from_override(name: Option<&OsStr>) -> Result<Self, KernelError> {
        match name {
            None => Ok(Self::detect()),
            Some(name) => Self::new(Path::from_name(name.to_str().ok_or(KernelError::UnknownPath)?)?),
        }
    }

    /// The path chosen.
    pub const fn path(self) -> Path {
        self.path
    }
}
