//! Functional model of an NTT board behind its register map, with seeded faults.
