//! Numbers in as few bytes as they need: seven bits a byte, the least first.

/// `a - b`, wrapping: any two numbers have a difference, and [`add`] undoes it.
pub fn difference(a: u64, b: u64) -> i64 {
    a.wrapping_sub(b) as i64
}

/// Undoes [`difference`].
pub fn add(base: u64, difference: i64) -> u64 {
    base.wrapping_add(difference as u64)
}

/// Writes a number.
pub fn unsigned(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

/// Writes one of either sign; small ones are short.
pub fn signed(out: &mut Vec<u8>, n: i64) {
    unsigned(out, (n << 1 ^ n >> 63) as u64);
}

/// Reads what [`unsigned`] wrote; `None`: it did not write this.
pub fn read_unsigned(from: &mut &[u8]) -> Option<u64> {
    let mut n = 0u64;
    for shift in (0..70).step_by(7) {
        let (&byte, rest) = from.split_first()?;
        *from = rest;
        let bits = u64::from(byte & 0x7f);
        // The tenth byte holds one bit.
        if shift == 63 && bits > 1 {
            return None;
        }
        n |= bits << shift;
        if byte & 0x80 == 0 {
            return Some(n);
        }
    }
    None
}

/// Reads what [`signed`] wrote.
pub fn read_signed(from: &mut &[u8]) -> Option<i64> {
    let n = read_unsigned(from)?;
    Some((n >> 1) as i64 ^ -((n & 1) as i64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_every_length() {
        for n in [0, 1, -1, 63, 64, -64, -65, i64::MAX, i64::MIN] {
            let mut bytes = Vec::new();
            signed(&mut bytes, n);
            assert_eq!(read_signed(&mut bytes.as_slice()), Some(n));
        }
        assert_eq!(read_unsigned(&mut [0xff; 9].as_slice()), None, "cut");
        assert_eq!(read_unsigned(&mut [0xff; 11].as_slice()), None, "too long");
        assert_eq!(
            read_unsigned(&mut [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2].as_slice()),
            None
        );
    }
}
