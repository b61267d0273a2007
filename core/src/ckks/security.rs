//! What 128-bit security allows.

/// (log2 N, largest log2 QP) for 128-bit classical security, uniform ternary
/// secret, σ = 3.19: Security Guidelines for Implementing Homomorphic
/// Encryption, ePrint 2024/463, Table 5.2.
pub const SECURITY_TABLE: [(u32, u32); 8] =
    [(10, 26), (11, 53), (12, 106), (13, 214), (14, 430), (15, 868), (16, 1747), (17, 3523)];

/// Largest log2 QP at 128 bits for degree 2^`log_degree`, if tabulated.
pub fn max_log_qp(log_degree: u32) -> Option<u32> {
    SECURITY_TABLE.iter().find(|(n, _)| *n == log_degree).map(|(_, bits)| *bits)
}

/// (log2 N, weight, largest log2 QP) for a ternary secret of that many
/// non-zero coefficients or more, σ = 3.19. The lattice estimator's cheapest
/// attack is the hybrid of guessing zeros and a meet in the middle: 154 bits at
/// N = 2^15, 169 at N = 2^16, with room for attacks that it does not know.
pub const SPARSE_SECURITY_TABLE: [(u32, u32, u32); 2] = [(15, 32, 96), (16, 32, 121)];

/// Largest log2 QP at 128 bits for a secret of exactly `weight` non-zero coefficients, if tabulated.
pub fn max_log_q_sparse(log_degree: u32, weight: u32) -> Option<u32> {
    SPARSE_SECURITY_TABLE.iter().find(|(n, h, _)| *n == log_degree && *h <= weight).map(|(_, _, bits)| *bits)
}
