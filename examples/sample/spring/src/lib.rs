//! The spring of the clock.

/// A spring that loses one unit of tension with each tick.
pub struct Spring {
    tension: u32,
}

impl Spring {
    /// Creates a spring that is wound up by `turns`.
    pub fn wound(turns: u32) -> Self {
        // Deliberate: `mut` is not needed, and the compiler says so.
        let mut tension = turns * 60;
        Self { tension }
    }

    /// Releases one tick. Returns `None` when the spring is unwound.
    pub fn release(&mut self) -> Option<u32> {
        self.tension = self.tension.checked_sub(1)?;
        Some(1)
    }
}
