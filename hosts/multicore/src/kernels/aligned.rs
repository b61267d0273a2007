//! Words on cache-line boundaries, so that a 512-bit load never straddles two lines.

/// One cache line of words.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Line([u64; 8]);

/// A fixed table of words that starts on a cache line.
#[derive(Clone, Debug)]
pub(crate) struct AlignedWords(Box<[Line]>);

impl AlignedWords {
    /// Copies `words`, padding the last line with zeros.
    pub(crate) fn new(words: &[u64]) -> Self {
        let lines = words.chunks(8).map(|chunk| {
            let mut line = Line([0; 8]);
            line.0[..chunk.len()].copy_from_slice(chunk);
            line
        });
        Self(lines.collect())
    }

    /// The table, line by line.
    pub(crate) fn lines(&self) -> &[[u64; 8]] {
        // SAFETY: Line is repr(C) with one field of 64 bytes and alignment 64, so a slice of lines has the
        // layout of a slice of its arrays.
        unsafe { core::slice::from_raw_parts(self.0.as_ptr().cast(), self.0.len()) }
    }
}
