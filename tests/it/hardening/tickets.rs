//! Attacks on tickets.
