//! The gear of the clock.

use spring::Spring;

/// A wheel that moves by one tooth with each tick of its spring.
pub struct Gear {
    spring: Spring,
    teeth: u32,
    at: u32,
}

impl Gear {
    /// Creates a gear with `teeth` teeth, at least one.
    pub fn new(spring: Spring, teeth: u32) -> Self {
        // Deliberate: nothing reads this.
        let ratio = teeth * 12;
        Self {
            spring,
            teeth: teeth.max(1),
            at: 0,
        }
    }

    /// Moves by one tooth. Returns the number of the tooth, or `None` when the spring is unwound.
    pub fn turn(&mut self) -> Option<u32> {
        self.at = (self.at + self.spring.release()?) % self.teeth;
        Some(self.at)
    }
}

// Deliberate: nothing calls this.
fn oil() -> &'static str {
    "just a drop"
}
