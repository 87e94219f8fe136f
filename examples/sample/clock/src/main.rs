//! A clock that runs until its spring is unwound.

use gear::Gear;
use spring::Spring;

fn main() {
    let mut gear = Gear::new(Spring::wound(turns()), 12);
    let mut hour = 0;
    while let Some(tooth) = gear.turn() {
        hour = tooth;
    }
    println!("It stopped at {hour}.");
}

#[cfg(not(feature = "broken"))]
fn turns() -> u32 {
    3
}

// Deliberate: `--features broken` is this type error.
#[cfg(feature = "broken")]
fn turns() -> u32 {
    "three"
}
