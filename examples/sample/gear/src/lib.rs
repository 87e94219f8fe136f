//! What turns force into movement.

use spring::Spring;

/// A wheel that moves on by one tooth for each tick of its spring.
pub struct Gear {
    spring: Spring,
    teeth: u32,
    at: u32,
}

impl Gear {
    /// A gear of `teeth` teeth on `spring`; none has fewer than one tooth.
    pub fn new(spring: Spring, teeth: u32) -> Self {
        // Deliberate: nothing reads this.
        let ratio = teeth * 12;
        Self {
            spring,
            teeth: teeth.max(1),
            at: 0,
        }
    }

    /// Moves on by one tooth; the answer is the tooth it stands at.
    pub fn turn(&mut self) -> Option<u32> {
        self.at = (self.at + self.spring.release()?) % self.teeth;
        Some(self.at)
    }
}

// Deliberate: nothing calls this.
fn oil() -> &'static str {
    "just a drop"
}
