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
            self.bytes(&mut bytes[..chunk.len() * width])?;
            if !unpack(&bytes, width, modulus, chunk) {
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

/// Every residue is stored as a whole word; the next one overwrites its upper
/// bytes. The buffer has room for that: a residue has at most seven bytes.
fn pack<W: Word>(words: &[W], width: usize, bytes: &mut [u8; CHUNK * 8]) {
    for (i, word) in words.iter().enumerate() {
        if let Some(place) = bytes.get_mut(i * width..).and_then(<[u8]>::first_chunk_mut) {
            *place = word.to_u64().to_le_bytes();
        }
    }
}

/// Whether all residues were below the prime; those that were not become 0.
/// Reads whole words and masks, as [`pack`] writes.
fn unpack<W: Word>(bytes: &[u8; CHUNK * 8], width: usize, modulus: &Modulus, words: &mut [W]) -> bool {
    let (q, mask) = (modulus.value(), (1 << (8 * width)) - 1);
    let mut canonical = true;
    for (window, word) in bytes.windows(8).step_by(width).zip(words) {
        let value = window.first_chunk().map_or(q, |wide| u64::from_le_bytes(*wide) & mask);
        canonical &= value < q;
        *word = W::from_u64(if value < q { value } else { 0 });
    }
    canonical
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use crate::ckks::client::KeyTag;
    use crate::ckks::{Parameters, ParametersLiteral};
    use crate::wire::Fault;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn header(payload: u64) -> Header {
        static PARAMETERS: std::sync::OnceLock<Parameters> = std::sync::OnceLock::new();
        let parameters = PARAMETERS.get_or_init(|| ParametersLiteral::N12_EDGE.check().unwrap());
        Header::new(Kind::Bundle, parameters, KeyTag([1; 16]), payload)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn limbs_are_the_low_bytes_of_their_residues(
            q in (2u32..50).prop_flat_map(|bits| (1u64 << (bits - 1))..(1 << bits)).prop_map(|q| q | 1),
            seed in any::<u64>(), count in 1usize..600,
        ) {
            let modulus = Modulus::new(q.max(3)).unwrap();
            let (q, width) = (modulus.value(), residue_len(&modulus));
            prop_assert!((q - 1) >> (8 * width) == 0 && (width == 1 || q >> (8 * (width - 1)) != 0));
            let words: Vec<u64> =
                (0..count as u64).map(|i| (seed ^ i).wrapping_mul(0x9e37_79b9_7f4a_7c15) % q).collect();
            let naive: Vec<u8> =
                words.iter().flat_map(|word| (0..width).map(move |i| (word >> (8 * i)) as u8)).collect();
            let mut file = heapless::Vec::<u8, 5000>::new();
            let mut writer = ObjectWriter::new(&mut file, &header(naive.len() as u64)).unwrap();
            writer.limb(&modulus, &words).unwrap();
            writer.finish().unwrap();
            prop_assert_eq!(&file[HEADER_LEN..file.len() - 8], naive.as_slice());
            // One update or many: the streamed checksum is that of the whole.
            let checksum = xxh3_64_with_seed(&naive, checksum_of(&header(naive.len() as u64).encode())).to_le_bytes();
            prop_assert_eq!(&file[file.len() - 8..], checksum.as_slice());

            let mut reader = Reader::new(file.as_slice());
            reader.header().unwrap();
            let mut object = reader.payload(naive.len() as u64).unwrap();
            let mut found = std::vec![0u64; count];
            object.limb(&modulus, &mut found).unwrap();
            prop_assert_eq!(object.finish(), Ok(()));
            prop_assert_eq!(found, words);
        }
    }

    #[test]
    fn a_writer_takes_neither_more_nor_less_than_it_declared() {
        let mut file = heapless::Vec::<u8, 256>::new();
        let mut writer = ObjectWriter::new(&mut file, &header(10)).unwrap();
        writer.bytes(&[0; 9]).unwrap();
        assert_eq!(writer.bytes(&[0; 2]), Err(Error::Unbalanced { have: 11, need: 10 }));
        assert_eq!(writer.finish(), Err(Error::Unbalanced { have: 9, need: 10 }));
        let modulus = Modulus::new(17).unwrap();
        let mut writer = ObjectWriter::new(&mut file, &header(10)).unwrap();
        writer.limb(&modulus, &[16u32]).unwrap();
        assert_eq!(writer.limb(&modulus, &[17u32]), Err(Error::ResidueOutOfRange { limb: 1 }));
    }

    /// Works for some bytes, then fails, or claims to have done too much.
    struct Broken {
        left: usize,
        boast: usize,
    }

    impl Source for Broken {
        fn read(&mut self, bytes: &mut [u8]) -> Result<usize, Fault> {
            let header = header(1000).encode();
            let count = bytes.len().min(self.left);
            for (byte, header) in bytes[..count].iter_mut().zip(header) {
                *byte = header;
            }
            self.left -= count;
            if count == 0 { Err(Fault { code: 5 }) } else { Ok(count + self.boast) }
        }
    }

    impl Sink for Broken {
        fn write(&mut self, bytes: &[u8]) -> Result<usize, Fault> {
            let count = bytes.len().min(self.left);
            self.left -= count;
            if count == 0 { Err(Fault { code: 28 }) } else { Ok(count + self.boast) }
        }
    }

    #[test]
    fn a_failing_stream_is_reported_as_such() {
        for left in [0, 10, HEADER_LEN, HEADER_LEN + 3] {
            let error = Reader::new(Broken { left, boast: 0 }).skip().err();
            assert_eq!(error, Some(Error::Stream(Fault { code: 5 })), "{left}");
            let mut sink = Broken { left, boast: 0 };
            let written =
                ObjectWriter::new(&mut sink, &header(4)).and_then(|mut writer| writer.bytes(&[1; 4]));
            assert_eq!(written, Err(Error::Stream(Fault { code: 28 })), "{left}");
        }
        let boast = Reader::new(Broken { left: 2000, boast: 9 }).skip().err();
        assert_eq!(boast, Some(Error::Corrupt { part: Part::Payload }));
        let mut sink = Broken { left: 2000, boast: 9 };
        ObjectWriter::new(&mut sink, &header(0)).unwrap().finish().unwrap();
    }
}
