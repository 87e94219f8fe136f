//! One attack a test, named after the attack.

mod credentials;
mod jwt;
mod protocol;
mod staying;
mod tickets;
