//! Reading streams in tests.
