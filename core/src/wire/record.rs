//! A record: numbers that describe the objects after it in the same file.
//!
//! Payload: tag, then the numbers; 64 bits each. What they mean is the
//! application's, which checks them like everything that comes from outside.

use super::frame::{ObjectWriter, Reader};
use super::header::{Expected, Header, Kind};
use super::{Error, Sink, Source};
use crate::ckks::Parameters;
use crate::ckks::client::KeyTag;

const WORD: u64 = 8;

/// Bytes of a record of so many numbers.
pub const fn record_len(count: usize) -> u64 {
    super::object_len(payload(count))
}

const fn payload(count: usize) -> u64 {
    WORD * (1 + count as u64)
}

/// Writes a record. `tag` says what it describes.
///
/// # Errors
/// [`Error::NoRoom`] before the first byte, if the sink knows its room; [`Error::Stream`].
pub fn write_record<S: Sink>(
    sink: &mut S,
    parameters: &Parameters,
    key: KeyTag,
    tag: u64,
    numbers: &[u64],
) -> Result<(), Error> {
    let header = Header::new(Kind::Record, parameters, key, payload(numbers.len()));
    let mut writer = ObjectWriter::new(sink, &header)?;
    writer.bytes(&tag.to_le_bytes())?;
    numbers.iter().try_for_each(|number| writer.bytes(&number.to_le_bytes()))?;
    writer.finish()
}

/// Reads a record into the front of `numbers`: its header, its tag, and how many numbers there are.
///
/// # Errors
/// As [`Reader::header`] and the checks of [`Expected`]; [`Error::TooLarge`] for more numbers than there is room for;
/// [`Error::Truncated`], [`Error::Corrupt`].
pub fn read_record<S: Source>(
    reader: &mut Reader<S>,
    expected: &Expected<'_>,
    numbers: &mut [u64],
) -> Result<(Header, u64, usize), Error> {
    let header = reader.expect(Kind::Record, expected)?;
    let max = payload(numbers.len());
    if header.payload > max {
        return Err(Error::TooLarge { have: header.payload, max });
    }
    let count = (header.payload / WORD).saturating_sub(1) as usize;
    let mut object = reader.payload(payload(count))?;
    let mut bytes = [0; WORD as usize];
    object.bytes(&mut bytes)?;
    let tag = u64::from_le_bytes(bytes);
    for number in numbers.iter_mut().take(count) {
        object.bytes(&mut bytes)?;
        *number = u64::from_le_bytes(bytes);
    }
    object.finish()?;
    Ok((header, tag, count))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ckks::ParametersLiteral;

    const KEY: KeyTag = KeyTag([7; 16]);

    fn file(parameters: &Parameters, numbers: &[u64]) -> heapless::Vec<u8, 256> {
        let mut file = heapless::Vec::new();
        write_record(&mut file, parameters, KEY, 9, numbers).unwrap();
        assert_eq!(file.len() as u64, record_len(numbers.len()));
        file
    }

    #[test]
    fn numbers_come_back() {
        let parameters = ParametersLiteral::N12_EDGE.check().unwrap();
        let expected = Expected { parameters: &parameters, key: Some(KEY) };
        for numbers in [&[][..], &[1], &[u64::MAX, 0, 5]] {
            let (file, mut found) = (file(&parameters, numbers), [0; 3]);
            let mut reader = Reader::new(file.as_slice());
            let (header, tag, count) = read_record(&mut reader, &expected, &mut found).unwrap();
            assert_eq!((header.key, tag, &found[..count]), (KEY, 9, numbers));
            assert_eq!(reader.finish(), Ok(()));
        }
    }

    #[test]
    fn whatever_is_cut_changed_or_too_long_is_refused() {
        let parameters = ParametersLiteral::N12_EDGE.check().unwrap();
        let file = file(&parameters, &[3, 4]);
        let read = |bytes: &[u8], key, room: usize| {
            let expected = Expected { parameters: &parameters, key: Some(key) };
            read_record(&mut Reader::new(bytes), &expected, &mut [0; 4][..room]).map(drop)
        };
        assert_eq!(read(&file, KEY, 2), Ok(()));
        assert_eq!(read(&file, KEY, 1), Err(Error::TooLarge { have: 24, max: 16 }));
        assert!(matches!(read(&file, KeyTag([8; 16]), 2), Err(Error::OtherKey { .. })));
        for cut in 0..file.len() {
            assert!(matches!(read(&file[..cut], KEY, 2), Err(Error::Truncated { .. })), "{cut}");
        }
        for bit in 0..8 * file.len() {
            let mut file = file.clone();
            file[bit / 8] ^= 1 << (bit % 8);
            assert!(read(&file, KEY, 2).is_err(), "{bit}");
        }
    }
}
