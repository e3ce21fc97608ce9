//! What a relay, or an end behind it, can send to an end.

use relay_endpoint::frame::{Frame, FrameError};

/// A frame of the end-to-end wire: only objects are frames, and what was read is what is written.
pub fn endpoint_frame(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let is_json = serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok();
    let is_object = is_json && text.trim_ascii_start().starts_with('{');
    match Frame::parse(text) {
        Ok(frame) => {
            assert!(is_object, "a frame is an object");
            let written = frame.to_text();
            match frame {
                Frame::Other => assert_eq!(Frame::parse(&written), Err(FrameError::NotAFrame)),
                frame => assert_eq!(Frame::parse(&written), Ok(frame)),
            }
        }
        Err(FrameError::BadMember) => assert!(is_object, "members are of an object"),
        Err(FrameError::NotAFrame) => {}
    }
}
