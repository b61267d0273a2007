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
    ///
    /// Low halves of products come from VPMULLQ: one operation on Zen 4 and 5, three on Intel.
    Avx512,
    /// The same, but low halves come from multiply-accumulate onto zero: one operation on Intel.
    Avx512Madd,
    /// Two lanes, floating-point quotients (AArch64).
    Neon,
}

/// The environment variable that overrides the choice: `scalar`, `avx2`, `avx512`, `avx512-madd` or `neon`.
pub const OVERRIDE: &str = "VEILFORMER_KERNELS";

impl Path {
    /// Every path, the faster later; which is faster of the last two depends on the processor.
    pub const ALL: [Self; 5] = [Self::Scalar, Self::Neon, Self::Avx2, Self::Avx512, Self::Avx512Madd];

    /// Whether this processor has the instructions.
    pub fn is_available(self) -> bool {
        match self {
            Self::Scalar => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 | Self::Avx512Madd => {
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

    /// The paths this processor can run, in the order of [`Path::ALL`].
    pub fn available() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|path| path.is_available())
    }

    /// The fastest available path.
    pub fn detect() -> Self {
        match Self::available().last() {
            #[cfg(target_arch = "x86_64")]
            Some(Self::Avx512Madd) => Self::of_vendor(&vendor()),
            path => path.unwrap_or(Self::Scalar),
        }
    }

    /// The faster of the two AVX-512 paths on a processor of this vendor.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn of_vendor(vendor: &[u8; 12]) -> Self {
        if vendor == b"AuthenticAMD" { Self::Avx512 } else { Self::Avx512Madd }
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
            Self::Avx512Madd => "avx512-madd",
            Self::Neon => "neon",
        }
    }
}

/// Who made this processor, as leaf 0 of CPUID says.
#[cfg(target_arch = "x86_64")]
pub(super) fn vendor() -> [u8; 12] {
    // Safe from Rust 1.94 on.
    #[allow(unused_unsafe)]
    // SAFETY: every x86-64 processor has the instruction, and its leaf 0.
    let leaf = unsafe { core::arch::x86_64::__cpuid(0) };
    let words = [leaf.ebx, leaf.edx, leaf.ecx].map(u32::to_le_bytes);
    core::array::from_fn(|i| words[i / 4][i % 4])
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

/// Calls this AVX-512 leaf in the form that the path asks for, or on other paths evaluates `$other`.
macro_rules! avx512_or {
    ($kernels:expr, $module:ident::$leaf:ident $(::<$flag:ident>)? ($($argument:expr),*), $other:expr) => {
        match $crate::kernels::Kernels::path($kernels) {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: kernels exist only for a path the processor has.
            $crate::kernels::Path::Avx512 => unsafe {
                $crate::kernels::avx512::$module::$leaf::<$($flag,)? false>($($argument),*)
            },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            $crate::kernels::Path::Avx512Madd => unsafe {
                $crate::kernels::avx512::$module::$leaf::<$($flag,)? true>($($argument),*)
            },
            _ => $other,
        }
    };
}
pub(super) use avx512_or;
