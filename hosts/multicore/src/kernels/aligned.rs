//! Words on cache-line boundaries, so that a 512-bit load never straddles two lines.

/// One cache line of words.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Line([u64; 8]);

/// Words that start on a cache line.
#[derive(Clone, Debug)]
pub(crate) struct AlignedWords(Box<[Line]>);

impl AlignedWords {
    /// Copies `words`, padding the last line with zeros.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn new(words: &[u64]) -> Self {
        let lines = words.chunks(8).map(|chunk| {
            let mut line = Line([0; 8]);
            line.0[..chunk.len()].copy_from_slice(chunk);
            line
        });
        Self(lines.collect())
    }

    /// `lines` lines of zeros.
    pub(crate) fn zeroed(lines: usize) -> Self {
        Self(vec![Line([0; 8]); lines].into())
    }

    /// The words, line by line.
    pub(crate) fn lines(&self) -> &[[u64; 8]] {
        // SAFETY: Line is repr(C) with one field of 64 bytes and alignment 64, so a slice of lines has the
        // layout of a slice of its arrays.
        unsafe { core::slice::from_raw_parts(self.0.as_ptr().cast(), self.0.len()) }
    }

    /// The words, line by line.
    pub(crate) fn lines_mut(&mut self) -> &mut [[u64; 8]] {
        // SAFETY: as for `lines`, and the borrow is exclusive.
        unsafe { core::slice::from_raw_parts_mut(self.0.as_mut_ptr().cast(), self.0.len()) }
    }
}
