//! Attacks on tokens and keys.
