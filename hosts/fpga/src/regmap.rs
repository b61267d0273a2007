//! The register map: constants generated from `hw/regmap.toml`.

/// A run of bits in a 32-bit register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    lsb: u32,
    width: u32,
}

impl Field {
    const fn new(lsb: u32, width: u32) -> Self {
        Self { lsb, width }
    }

    /// The field's bits, in place.
    #[must_use]
    pub const fn mask(self) -> u32 {
        (u32::MAX >> (32 - self.width)) << self.lsb
    }

    /// The field's value in a register.
    #[must_use]
    pub const fn of(self, register: u32) -> u32 {
        (register & self.mask()) >> self.lsb
    }

    /// A register with this value in the field and zeros elsewhere; excess bits of `value` are cut.
    #[must_use]
    pub const fn with(self, value: u32) -> u32 {
        (value << self.lsb) & self.mask()
    }
}

include!(concat!(env!("OUT_DIR"), "/regmap.rs"));
