//! End-to-end, conformance, known answers, bad input.
