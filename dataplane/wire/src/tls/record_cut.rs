//! Where records end, for whoever must not be given more than one.

use super::record::HEADER_BYTES;

/// Follows records through pieces of any size, and reads nothing of them but their lengths.
#[derive(Debug, Default)]
pub struct RecordCut {
    header: [u8; HEADER_BYTES],
    header_len: usize,
    body_left: usize,
}

impl RecordCut {
    /// Bytes at the front of `input` up to the end of a record, or all of them. What is behind
    /// belongs to the next call. Never more than a header and the 65,535 bytes it may promise.
    /// Cost: five steps at most, whatever the input's length.
    pub fn advance(&mut self, input: &[u8]) -> usize {
        let mut used = 0;
        while self.header_len < HEADER_BYTES {
            let Some(&byte) = input.get(used) else { return used };
            self.header[self.header_len] = byte;
            self.header_len += 1;
            used += 1;
            let [.., high, low] = self.header;
            self.body_left = usize::from(u16::from_be_bytes([high, low]));
        }
        let part = self.body_left.min(input.len() - used);
        self.body_left -= part;
        if self.body_left == 0 {
            self.header_len = 0;
        }
        used + part
    }

    /// Whether no record is begun: before the first byte, and behind a record's last.
    pub fn is_at_end(&self) -> bool {
        self.header_len == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_cut_wherever_the_input_is() {
        let stream =
            [&[22, 3, 1, 0, 3, 1, 2, 3][..], &[20, 3, 3, 0, 0], &[23, 3, 3, 1, 0]].concat();
        for piece in 1..=stream.len() {
            let mut cut = RecordCut::default();
            let mut ends = Vec::new();
            let mut at = 0;
            for input in stream.chunks(piece) {
                let mut rest = input;
                while !rest.is_empty() {
                    let used = cut.advance(rest);
                    at += used;
                    rest = &rest[used..];
                    if cut.is_at_end() {
                        ends.push(at);
                    }
                }
            }
            assert_eq!(ends, [8, 13], "pieces of {piece}");
        }
    }
}
