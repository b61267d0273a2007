//! Header, payload, trailer: the frame of every object, and residues inside it.
//!
//! The trailer is the XXH3 of the payload, seeded with the header's checksum,
//! so a payload under another object's header is damage too. It finds
//! accidents; whoever can write a file can also write its checksums.

use super::error::Part;
use super::header::{Expected, HEADER_LEN, Header, Kind, Secrets};
use super::{Error, Sink, Source, TRAILER_LEN};
use crate::ring::{Modulus, Word};
use xxhash_rust::xxh3::{Xxh3, xxh3_64_with_seed};

/// Residues packed at a time: 2 KiB of stack.
const CHUNK: usize = 256;

/// Bytes of one residue: as few as hold q − 1.
pub const fn residue_len(modulus: &Modulus) -> usize {
    modulus.bits().div_ceil(8) as usize
}

/// Writes one object: header first, then exactly the payload it declares.
///
/// A device that produces limbs one at a time can use this directly and never
/// hold a whole object.
pub struct ObjectWriter<'s, S: Sink> {
    sink: &'s mut S,
    checksum: Xxh3,
    written: u64,
    payload: u64,
    limbs: usize,
}

impl<'s, S: Sink> ObjectWriter<'s, S> {
    /// Writes the header.
    ///
    /// # Errors
    /// [`Error::NoRoom`] before the first byte, if the sink knows its room.
    pub fn new(sink: &'s mut S, header: &Header) -> Result<Self, Error> {
        let need = header.object_len();
        room_for(sink, need)?;
        let bytes = header.encode();
        drain(sink, &bytes, need)?;
        let checksum = Xxh3::with_seed(checksum_of(&bytes));
        Ok(Self { sink, checksum, written: 0, payload: header.payload, limbs: 0 })
    }

    /// Writes payload as it is.
    ///
    /// # Errors
    /// [`Error::Unbalanced`] beyond what the header declares.
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let have = self.written.saturating_add(bytes.len() as u64);
        if have > self.payload {
            return Err(Error::Unbalanced { have, need: self.payload });
        }
        self.checksum.update(bytes);
        drain(self.sink, bytes, self.payload)?;
        self.written = have;
        Ok(())
    }

    /// Writes one limb.
    ///
    /// # Errors
    /// [`Error::ResidueOutOfRange`] when a word is not below the prime.
    pub fn limb<W: Word>(&mut self, modulus: &Modulus, words: &[W]) -> Result<(), Error> {
        let (mut bytes, width) = ([0u8; CHUNK * 8], residue_len(modulus));
        for chunk in words.chunks(CHUNK) {
            if chunk.iter().any(|word| word.to_u64() >= modulus.value()) {
                return Err(Error::ResidueOutOfRange { limb: self.limbs });
            }
            pack(chunk, width, &mut bytes);
            self.bytes(&bytes[..chunk.len() * width])?;
        }
        self.limbs += 1;
        Ok(())
    }

    /// Writes the trailer.
    ///
    /// # Errors
    /// [`Error::Unbalanced`] when less was written than the header declares.
    pub fn finish(self) -> Result<(), Error> {
        if self.written != self.payload {
            return Err(Error::Unbalanced { have: self.written, need: self.payload });
        }
        let trailer = self.checksum.digest().to_le_bytes();
        drain(self.sink, &trailer, trailer.len() as u64)
    }
}

/// Reads objects one after the other; server and client read everything
/// public with it. A secret key ends in [`Error::SecretNotAllowed`]: only
/// [`super::read_secret_key`] reads those.
///
/// After an error the position inside the source is unspecified.
pub struct Reader<S: Source> {
    source: S,
    next: Option<([u8; HEADER_LEN], Header)>,
}

impl<S: Source> Reader<S> {
    /// Reads from the front of `source`.
    pub fn new(source: S) -> Self {
        Self { source, next: None }
    }

    /// The next object's header. Reads nothing else; asking again gives the same.
    ///
    /// # Errors
    /// In this order: [`Error::NotOurs`], [`Error::Version`], [`Error::Corrupt`],
    /// [`Error::SecretNotAllowed`], [`Error::Kind`], [`Error::Field`]; [`Error::Truncated`]
    /// as soon as a check lacks its bytes.
    pub fn header(&mut self) -> Result<Header, Error> {
        self.header_with(Secrets::Refuse)
    }

    pub(super) fn header_with(&mut self, secrets: Secrets) -> Result<Header, Error> {
        if let Some((_, header)) = self.next {
            let refused = header.kind.is_secret() && secrets == Secrets::Refuse;
            return if refused { Err(Error::SecretNotAllowed) } else { Ok(header) };
        }
        let mut bytes = [0; HEADER_LEN];
        let count = fill(&mut self.source, &mut bytes)?;
        let header = Header::decode(&bytes[..count], secrets)?;
        self.next = Some((bytes, header));
        Ok(header)
    }

    /// Whether the source has ended where an object would begin.
    ///
    /// # Errors
    /// As [`Self::header`]: a source that does not know its length is read to find out.
    pub fn is_at_end(&mut self) -> Result<bool, Error> {
        if self.next.is_some() {
            return Ok(false);
        }
        if let Some(bytes) = self.source.remaining() {
            return Ok(bytes == 0);
        }
        match self.header() {
            Ok(_) => Ok(false),
            Err(Error::Truncated { have: 0, .. }) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Reads over the next object, whatever public kind it is, and checks it for damage.
    ///
    /// # Errors
    /// As [`Self::header`], then [`Error::Truncated`] and [`Error::Corrupt`].
    pub fn skip(&mut self) -> Result<Header, Error> {
        let header = self.header()?;
        let mut object = self.payload(header.payload)?;
        let mut bytes = [0; CHUNK * 8];
        let mut left = header.payload;
        while left > 0 {
            let count = left.min(bytes.len() as u64) as usize;
            object.bytes(&mut bytes[..count])?;
            left -= count as u64;
        }
        object.finish()?;
        Ok(header)
    }

    /// Bytes that follow what was read so far, if the source knows.
    pub(super) fn remaining(&self) -> Option<u64> {
        let unread = if self.next.is_some() { HEADER_LEN as u64 } else { 0 };
        Some(self.source.remaining()?.saturating_add(unread))
    }

    /// The source must end here.
    ///
    /// # Errors
    /// [`Error::Trailing`].
    pub fn finish(mut self) -> Result<(), Error> {
        let bytes = match (self.remaining(), &self.next) {
            (Some(bytes), _) => bytes,
            (None, Some(_)) => HEADER_LEN as u64,
            (None, None) => fill(&mut self.source, &mut [0])? as u64,
        };
        if bytes == 0 { Ok(()) } else { Err(Error::Trailing { bytes }) }
    }

    /// The next header, checked against what the caller expects up to the level.
    pub(super) fn expect(&mut self, kind: Kind, expected: &Expected<'_>) -> Result<Header, Error> {
        let header = self.header_with(if kind.is_secret() { Secrets::Accept } else { Secrets::Refuse })?;
        header.expect(kind, expected)?;
        Ok(header)
    }

    /// Enters the payload, which must have `need` bytes, if the source can hold it.
    pub(super) fn payload(&mut self, need: u64) -> Result<ObjectReader<'_, S>, Error> {
        let (bytes, header) = self.enter(need)?;
        let (have, total) = (HEADER_LEN as u64, header.object_len());
        let checksum = Xxh3::with_seed(checksum_of(&bytes));
        Ok(ObjectReader { source: &mut self.source, checksum, have, total, limbs: 0, outside: None })
    }

    /// Reads a secret payload of `need` bytes and its trailer into `rest`.
    /// The checksum is taken in one piece and keeps nothing.
    pub(super) fn secret_payload(&mut self, need: u64, rest: &mut [u8]) -> Result<(), Error> {
        let (bytes, header) = self.enter(need)?;
        let count = fill(&mut self.source, rest)?;
        let cut = Error::Truncated { have: (HEADER_LEN + count) as u64, need: header.object_len() };
        let (payload, trailer) = rest[..count].split_at_checked(need as usize).ok_or(cut)?;
        let trailer = u64::from_le_bytes(*trailer.first_chunk().ok_or(cut)?);
        if xxh3_64_with_seed(payload, checksum_of(&bytes)) == trailer {
            Ok(())
        } else {
            Err(Error::Corrupt { part: Part::Payload })
        }
    }

    fn enter(&mut self, need: u64) -> Result<([u8; HEADER_LEN], Header), Error> {
        // Every caller has looked at the header first.
        let Some((bytes, header)) = self.next.take() else { return Err(Error::NotOurs) };
        header.expect_payload(need)?;
        let (head, total) = (HEADER_LEN as u64, header.object_len());
        match self.source.remaining() {
            Some(left) if left < total - head => {
                return Err(Error::Truncated { have: head + left, need: total });
            }
            _ => {}
        }
        Ok((bytes, header))
    }
}

/// Reads the payload of one object.
pub(super) struct ObjectReader<'s, S: Source> {
    source: &'s mut S,
    checksum: Xxh3,
    have: u64,
    total: u64,
    limbs: usize,
    outside: Option<usize>,
}

impl<S: Source> ObjectReader<'_, S> {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), Error> {
        let count = fill(self.source, bytes)?;
        self.have += count as u64;
        if count == bytes.len() {
            Ok(())
        } else {
            Err(Error::Truncated { have: self.have, need: self.total })
        }
    }

    /// Payload as it is.
    pub(super) fn bytes(&mut self, bytes: &mut [u8]) -> Result<(), Error> {
        self.fill(bytes)?;
        self.checksum.update(bytes);
        Ok(())
    }

    /// One limb. Words that are not below the prime become 0 and make
    /// [`Self::finish`] fail, after it has told damage from malice.
    pub(super) fn limb<W: Word>(&mut self, modulus: &Modulus, words: &mut [W]) -> Result<(), Error> {
        let (mut bytes, width) = ([0u8; CHUNK * 8], residue_len(modulus));
        for chunk in words.chunks_mut(CHUNK) {
            let packed = &mut bytes[..chunk.len() * width];
            self.bytes(packed)?;
            if !unpack(packed, width, modulus, chunk) {
                self.outside = self.outside.or(Some(self.limbs));
            }
        }
        self.limbs += 1;
        Ok(())
    }

    /// Checks the trailer, then that every residue was canonical.
    pub(super) fn finish(mut self) -> Result<(), Error> {
        let mut trailer = [0; TRAILER_LEN as usize];
        self.fill(&mut trailer)?;
        if self.checksum.digest() != u64::from_le_bytes(trailer) {
            return Err(Error::Corrupt { part: Part::Payload });
        }
        match self.outside {
            Some(limb) => Err(Error::ResidueOutOfRange { limb }),
            None => Ok(()),
        }
    }
}

/// Reads until `bytes` is full or the source ends; returns how many.
fn fill<S: Source>(source: &mut S, bytes: &mut [u8]) -> Result<usize, Error> {
    let mut at = 0;
    while let Some(rest) = bytes.get_mut(at..)
        && !rest.is_empty()
    {
        // A source that claims more than it was asked for gets no more credit than that.
        match source.read(rest)?.min(rest.len()) {
            0 => break,
            count => at += count,
        }
    }
    Ok(at)
}

/// Refuses what a sink knows it cannot hold.
pub(super) fn room_for<S: Sink>(sink: &S, need: u64) -> Result<(), Error> {
    match sink.room() {
        Some(have) if have < need => Err(Error::NoRoom { have, need }),
        _ => Ok(()),
    }
}

/// Writes all of `bytes`, part of an object of `need`.
pub(super) fn drain<S: Sink>(sink: &mut S, bytes: &[u8], need: u64) -> Result<(), Error> {
    let mut at = 0;
    while let Some(rest) = bytes.get(at..)
        && !rest.is_empty()
    {
        match sink.write(rest)?.min(rest.len()) {
            0 => return Err(Error::NoRoom { have: 0, need }),
            count => at += count,
        }
    }
    Ok(())
}

/// The checksum at the end of a header.
pub(super) fn checksum_of(header: &[u8; HEADER_LEN]) -> u64 {
    header.last_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

fn pack<W: Word>(words: &[W], width: usize, bytes: &mut [u8]) {
    fn fixed<W: Word, const WIDTH: usize>(words: &[W], bytes: &mut [u8]) {
        for (packed, word) in bytes.as_chunks_mut::<WIDTH>().0.iter_mut().zip(words) {
            packed.copy_from_slice(&word.to_u64().to_le_bytes()[..WIDTH]);
        }
    }
    match width {
        0 | 1 => fixed::<W, 1>(words, bytes),
        2 => fixed::<W, 2>(words, bytes),
        3 => fixed::<W, 3>(words, bytes),
        4 => fixed::<W, 4>(words, bytes),
        5 => fixed::<W, 5>(words, bytes),
        6 => fixed::<W, 6>(words, bytes),
        _ => fixed::<W, 7>(words, bytes),
    }
}

/// Whether all residues were below the prime; those that were not become 0.
fn unpack<W: Word>(bytes: &[u8], width: usize, modulus: &Modulus, words: &mut [W]) -> bool {
    fn fixed<W: Word, const WIDTH: usize>(bytes: &[u8], q: u64, words: &mut [W]) -> bool {
        let mut canonical = true;
        for (packed, word) in bytes.as_chunks::<WIDTH>().0.iter().zip(words) {
            let mut wide = [0; 8];
            wide[..WIDTH].copy_from_slice(packed);
            let value = u64::from_le_bytes(wide);
            canonical &= value < q;
            *word = W::from_u64(if value < q { value } else { 0 });
        }
        canonical
    }
    let q = modulus.value();
    match width {
        0 | 1 => fixed::<W, 1>(bytes, q, words),
        2 => fixed::<W, 2>(bytes, q, words),
        3 => fixed::<W, 3>(bytes, q, words),
        4 => fixed::<W, 4>(bytes, q, words),
        5 => fixed::<W, 5>(bytes, q, words),
        6 => fixed::<W, 6>(bytes, q, words),
        _ => fixed::<W, 7>(bytes, q, words),
    }
}
