//! Keeps public traits from being implemented elsewhere, so that they can change.

/// A trait with a method that takes this cannot be implemented outside of the crate. A private supertrait would do
/// the same, but the compiler would name it in errors, in place of the trait's own message.
#[derive(Debug)]
pub struct Token;
