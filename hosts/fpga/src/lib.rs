//! Drivers for NTT boards: a register map over SPI or memory.
