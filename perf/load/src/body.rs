//! The long ends of large messages, which all flows of a process share.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::envelope::random_base64;

/// Ends of messages, masked and not. Which one a message has follows from its number, so that
/// neighbours differ.
pub(crate) struct Bodies {
    plain: [Box<[u8]>; VARIANTS],
    masked: [Box<[u8]>; VARIANTS],
}

impl Bodies {
    /// Ends of so many bytes, closing quote and brace included. Made once per process.
    ///
    /// They must begin at a multiple of four bytes in their message.
    pub(crate) fn of(bytes: usize, mask: [u8; 4]) -> Arc<Self> {
        static MADE: Mutex<Option<HashMap<usize, Arc<Bodies>>>> = Mutex::new(None);
        let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
        let made = made.get_or_insert_default().entry(bytes);
        Arc::clone(made.or_insert_with(|| Arc::new(Self::new(bytes, mask))))
    }

    fn new(bytes: usize, mask: [u8; 4]) -> Self {
        let plain = std::array::from_fn(|variant| {
            let mut text = random_base64(&format!("body {variant}"), bytes - CLOSING.len());
            text.push_str(CLOSING);
            text.into_bytes().into_boxed_slice()
        });
        let masked = std::array::from_fn(|variant| {
            let text: &[u8] = &plain[variant];
            text.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key).collect()
        });
        Self { plain, masked }
    }

    /// The end of a message without its mask.
    pub(crate) fn plain(&self, number: u64) -> &[u8] {
        &self.plain[(number % VARIANTS as u64) as usize]
    }

    /// The end of a message under its mask.
    pub(crate) fn masked(&self, number: u64) -> &[u8] {
        &self.masked[(number % VARIANTS as u64) as usize]
    }
}

/// How many ends there are of each size: few, so that they stay in the cache.
const VARIANTS: usize = 3;
/// The padding of the last group of four, and what closes the message.
const CLOSING: &str = "=\"}";
