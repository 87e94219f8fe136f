//! The bytes of an event stream. No other module writes a field, a comment or a blank line.
//!
//! It implements the wire format of
//! [WHATWG HTML 9.2](https://html.spec.whatwg.org/multipage/server-sent-events.html), and knows nothing
//! about connections, policies or HTTP responses.

mod cursor;
mod field;
mod parse;
mod scan;
mod write;

pub use self::cursor::LastEventId;
pub(crate) use self::field::is_trap;
pub use self::field::{EventId, EventName, InvalidField};
pub(crate) use self::field::{RETRY, checked_retry};
pub(crate) use self::parse::{Block, BlockParser, TooLong};
#[cfg(feature = "testing")]
pub(crate) use self::scan::comments_in;
pub(crate) use self::scan::{
    Contents, contents_of, data_of, end_of_write, has_data, make_plain, name_of, retry_of,
};
pub(crate) use self::write::{
    FrameRules, GAP, HEARTBEAT, PreEncoded, Written, write_body, write_control,
    write_control_with_retry, write_event, write_id, write_retry,
};
pub use self::write::{FrameWriter, InvalidEvent};
