//! Collects mistakes, so that all of a declaration are reported together.

use std::fmt::Display;

use quote::ToTokens;

/// The mistakes found so far.
#[derive(Default)]
pub(crate) struct Errors(Option<syn::Error>);

impl Errors {
    /// Adds a mistake at the user's tokens. The message says what is wrong and what to write.
    pub(crate) fn push(&mut self, at: impl ToTokens, message: impl Display) {
        self.add(syn::Error::new_spanned(at, message));
    }

    /// Adds a mistake that has a span.
    pub(crate) fn add(&mut self, error: syn::Error) {
        match &mut self.0 {
            Some(found) => found.combine(error),
            None => self.0 = Some(error),
        }
    }

    /// Ends a step: fails with every mistake found so far.
    pub(crate) fn propagate(&mut self) -> syn::Result<()> {
        self.0.take().map_or(Ok(()), Err)
    }
}
