//! What drives the clock.

/// A wound-up spring, which loses one unit of tension a tick.
pub struct Spring {
    tension: u32,
}

impl Spring {
    /// A spring wound up by `turns`.
    pub fn wound(turns: u32) -> Self {
        // Deliberate: `mut` is not needed, and the compiler says so.
        let mut tension = turns * 60;
        Self { tension }
    }

    /// Gives one tick of force, or nothing when run down.
    pub fn release(&mut self) -> Option<u32> {
        self.tension = self.tension.checked_sub(1)?;
        Some(1)
    }
}
