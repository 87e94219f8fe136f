//! A toy model, which repeats the question word by word.

use std::time::Duration;
use std::vec;

use tokio::time::sleep;

/// An answer in the making. Dropping it cancels it.
pub(crate) struct Completion {
    words: vec::IntoIter<String>,
    fault: Option<Fault>,
    pause: Duration,
    whole: bool,
}

/// What is wrong with a model.
#[derive(Clone, Copy)]
enum Fault {
    Overloaded,
    Unreachable,
}

/// An error of the model.
#[derive(Debug)]
pub(crate) enum ModelError {
    /// It reported that it cannot go on.
    Overloaded,
    /// The connection to it broke.
    Unreachable(std::io::Error),
}

impl Completion {
    /// Starts an answer. Returns `None` if there is no such model: there are `toy`, `toy-slow`, and
    /// `toy-overloaded` and `toy-unreachable`, which fail after three words.
    pub(crate) fn start(model: &str, prompt: &str) -> Option<Self> {
        let fault = match model {
            "toy" | "toy-slow" => None,
            "toy-overloaded" => Some(Fault::Overloaded),
            "toy-unreachable" => Some(Fault::Unreachable),
            _ => return None,
        };
        let mut words: Vec<_> =
            format!("You wrote: {prompt}").split_inclusive(' ').map(str::to_owned).collect();
        if fault.is_some() {
            words.truncate(3);
        }
        let pause = Duration::from_millis(if model == "toy-slow" { 2_000 } else { 100 });
        Some(Self { words: words.into_iter(), fault, pause, whole: false })
    }

    /// Returns the next word, and `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<String>, ModelError> {
        sleep(self.pause).await;
        let word = self.words.next();
        self.whole = word.is_none();
        match (&word, self.fault) {
            (None, Some(Fault::Overloaded)) => Err(ModelError::Overloaded),
            (None, Some(Fault::Unreachable)) => {
                Err(ModelError::Unreachable(std::io::ErrorKind::ConnectionReset.into()))
            }
            _ => Ok(word),
        }
    }
}

impl Drop for Completion {
    fn drop(&mut self) {
        if !self.whole {
            tracing::info!("an answer was cancelled: its client left");
        }
    }
}
