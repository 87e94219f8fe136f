//! Attacks on the stream itself: fields, ids, limits, replay.
