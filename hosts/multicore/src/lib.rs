//! Veilformer on a std host: AVX-512 IFMA, AVX2, NEON and scalar kernels, rayon, huge pages, files.

pub mod kernels;
