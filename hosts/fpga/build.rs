//! Turns `hw/regmap.toml` into Rust constants: addresses, field masks, opcodes.

use std::fmt::Write as _;
use std::path::Path;
use std::{env, error::Error, fs};

use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Map {
    device: Device,
    register: Vec<Register>,
    window: Vec<Window>,
    command: Command,
    opcode: Vec<Opcode>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Device {
    name: String,
    magic: u32,
    version_major: u16,
    version_minor: u16,
    word_bytes: u8,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Register {
    name: String,
    offset: u32,
    access: Access,
    description: String,
    #[serde(default)]
    fields: Vec<Bits>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Window {
    name: String,
    offset: u32,
    stride: u32,
    count: u32,
    access: Access,
    description: String,
    #[serde(default)]
    fields: Vec<Word>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Command {
    fields: Vec<Bits>,
}

/// A run of bits in a 32-bit register.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Bits {
    name: String,
    lsb: u32,
    width: u32,
    description: String,
}

/// A 32-bit word inside one entry of a window.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Word {
    name: String,
    offset: u32,
    description: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Opcode {
    name: String,
    value: u8,
    description: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Access {
    Ro,
    Wo,
    Rw,
}

impl Access {
    fn words(&self) -> &'static str {
        match self {
            Self::Ro => "read only",
            Self::Wo => "write only",
            Self::Rw => "read and write",
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let source = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("../../hw/regmap.toml");
    println!("cargo:rerun-if-changed={}", source.display());
    println!("cargo:rerun-if-changed=build.rs");
    let map: Map = toml::from_str(&fs::read_to_string(&source)?)?;
    check(&map)?;
    fs::write(Path::new(&env::var("OUT_DIR")?).join("regmap.rs"), generate(&map)?)?;
    Ok(())
}

/// Refuses a map whose parts overlap: the mistake a later edit is most likely to make.
fn check(map: &Map) -> Result<(), String> {
    let mut spans: Vec<(u64, u64, &str)> = Vec::new();
    for r in &map.register {
        check_bits(&r.name, &r.fields)?;
        spans.push((r.offset.into(), u64::from(r.offset) + 4, &r.name));
    }
    for w in &map.window {
        let end = u64::from(w.offset) + u64::from(w.stride) * u64::from(w.count);
        if end > 1 << 32 || w.fields.iter().any(|f| f.offset + 4 > w.stride || !f.offset.is_multiple_of(4)) {
            return Err(format!("window {} leaves its room", w.name));
        }
        spans.push((w.offset.into(), end, &w.name));
    }
    check_bits("command", &map.command.fields)?;
    spans.sort_unstable();
    for pair in spans.windows(2) {
        if pair[0].1 > pair[1].0 {
            return Err(format!("{} and {} overlap", pair[0].2, pair[1].2));
        }
    }
    match spans.iter().find(|s| !s.0.is_multiple_of(4)) {
        Some(s) => Err(format!("{} is not aligned", s.2)),
        None => Ok(()),
    }
}

fn check_bits(owner: &str, fields: &[Bits]) -> Result<(), String> {
    let mut used = 0_u64;
    for f in fields {
        let mask = ((1_u64 << f.width) - 1) << f.lsb;
        if f.width == 0 || f.lsb + f.width > 32 || used & mask != 0 {
            return Err(format!("field {owner}.{} does not fit", f.name));
        }
        used |= mask;
    }
    Ok(())
}

fn generate(map: &Map) -> Result<String, std::fmt::Error> {
    let mut out = String::new();
    let d = &map.device;
    writeln!(out, "/// The device `{}` itself.\npub mod device {{", d.name)?;
    writeln!(out, "    /// What the magic register reads.\n    pub const MAGIC: u32 = {:#010x};", d.magic)?;
    writeln!(out, "    /// Incompatible changes.\n    pub const VERSION_MAJOR: u32 = {};", d.version_major)?;
    writeln!(out, "    /// Additions.\n    pub const VERSION_MINOR: u32 = {};", d.version_minor)?;
    writeln!(out, "    /// Bytes in a data word.\n    pub const WORD_BYTES: u32 = {};\n}}", d.word_bytes)?;
    for r in &map.register {
        writeln!(out, "/// {} ({}).\npub mod {} {{", r.description, r.access.words(), r.name)?;
        writeln!(out, "    /// Byte address.\n    pub const ADDRESS: u32 = {:#x};", r.offset)?;
        bits(&mut out, &r.fields)?;
        writeln!(out, "}}")?;
    }
    for w in &map.window {
        writeln!(out, "/// {} ({}).\npub mod {} {{", w.description, w.access.words(), w.name)?;
        writeln!(out, "    /// Byte address of entry 0.\n    pub const ADDRESS: u32 = {:#x};", w.offset)?;
        writeln!(
            out,
            "    /// Bytes from one entry to the next.\n    pub const STRIDE: u32 = {:#x};",
            w.stride
        )?;
        writeln!(out, "    /// Room for entries in the map.\n    pub const COUNT: u32 = {};", w.count)?;
        for f in &w.fields {
            let name = f.name.to_uppercase();
            writeln!(out, "    /// {} Byte offset in an entry.", f.description)?;
            writeln!(out, "    pub const {name}: u32 = {:#x};", f.offset)?;
        }
        writeln!(out, "}}")?;
    }
    writeln!(out, "/// A command: one 32-bit word.\npub mod command {{")?;
    bits(&mut out, &map.command.fields)?;
    writeln!(out, "}}\n/// Values of [`command::OPCODE`].\npub mod opcode {{")?;
    for o in &map.opcode {
        writeln!(out, "    /// {}", o.description)?;
        writeln!(out, "    pub const {}: u32 = {};", o.name.to_uppercase(), o.value)?;
    }
    writeln!(out, "}}")?;
    Ok(out)
}

fn bits(out: &mut String, fields: &[Bits]) -> std::fmt::Result {
    for f in fields {
        let name = f.name.to_uppercase();
        writeln!(out, "    /// {}", f.description)?;
        writeln!(out, "    pub const {name}: super::Field = super::Field::new({}, {});", f.lsb, f.width)?;
    }
    Ok(())
}
