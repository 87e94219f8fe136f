//! The usage gauge: what this machine's processors and memory are doing, once a second.
//!
//! A gauge is state, not history: only the newest reading matters, so a subscriber that is slow or
//! late skips what it missed. That is what a `watch` channel does.

use std::time::{Duration, SystemTime};

use futures_util::stream;
use hero_sse::prelude::*;
use sysinfo::{MINIMUM_CPU_UPDATE_INTERVAL, System};
use tokio::{sync::watch, task::spawn_blocking, time};

/// One reading of the gauge.
#[derive(Clone, Debug, Default, Serialize, SseEvent)]
pub struct Usage {
    /// Counts the readings since the program began.
    #[sse(id)]
    pub seq: u64,
    /// When it was taken: RFC 3339, UTC.
    pub at: String,
    /// The load of each processor in percent.
    pub cpu: Vec<f32>,
    /// The load of all processors together in percent.
    pub cpu_total: f32,
    /// Bytes of memory in use.
    pub memory_used: u64,
    /// Bytes of memory there are.
    pub memory_total: u64,
}

/// Live usage gauge of this machine.
#[sse_endpoint("/usage/stream", event = "usage", permission = "usage.read")]
pub async fn usage_stream(State(meter): State<Meter>) -> impl Stream<Item = Usage> {
    meter.subscribe()
}

/// Reads the machine in the background, once for all who look. Clones share one meter; it stops
/// when the last clone and the last stream are gone.
#[derive(Clone, Debug)]
pub struct Meter {
    newest: watch::Receiver<Usage>,
}

impl Meter {
    /// Starts to read at this interval, or at the shortest one that gives meaningful numbers.
    pub fn start(interval: Duration) -> Self {
        let (readings, newest) = watch::channel(Usage::default());
        tokio::spawn(measure(readings, interval.max(MINIMUM_CPU_UPDATE_INTERVAL)));
        Self { newest }
    }

    /// The newest reading at once, then each that follows.
    pub fn subscribe(&self) -> impl Stream<Item = Usage> + use<> {
        // A clone of a receiver has seen what the original has seen, and the meter's own never
        // looks: so the first wait returns at once if there is any reading yet.
        stream::unfold(self.newest.clone(), |mut newest| async move {
            newest.changed().await.ok()?;
            let usage = newest.borrow_and_update().clone();
            Some((usage, newest))
        })
    }
}

async fn measure(readings: watch::Sender<Usage>, interval: Duration) {
    let mut system = match System::new() {
        Ok(system) => system,
        Err(error) => return tracing::warn!(%error, "this machine cannot be measured"),
    };
    // The load is a difference between two looks; this is the first.
    system.refresh_cpu_usage();
    let mut ticks = time::interval_at(time::Instant::now() + MINIMUM_CPU_UPDATE_INTERVAL, interval);
    ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);

    for seq in 1.. {
        tokio::select! {
            _ = ticks.tick() => {}
            () = readings.closed() => return,
        }
        // A look reads files of the kernel, which takes as long as it takes.
        let look = spawn_blocking(move || {
            let usage = read(&mut system, seq);
            (system, usage)
        });
        match look.await {
            Ok((back, usage)) => {
                system = back;
                readings.send_replace(usage);
            }
            Err(error) => return tracing::warn!(%error, "the meter stopped"),
        }
    }
}

fn read(system: &mut System, seq: u64) -> Usage {
    system.refresh_cpu_usage();
    system.refresh_memory();
    Usage {
        seq,
        at: humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
        cpu: system.cpus().iter().map(|cpu| cpu.usage()).collect(),
        cpu_total: system.global_cpu_usage(),
        memory_used: system.used_memory(),
        memory_total: system.total_memory(),
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::StreamExt;

    use super::*;

    async fn next(stream: &mut (impl Stream<Item = Usage> + Unpin)) -> Usage {
        let next = time::timeout(Duration::from_secs(10), stream.next()).await;
        next.expect("a reading in time").expect("the meter runs")
    }

    #[tokio::test]
    async fn readings_are_of_this_machine_and_in_order() {
        let meter = Meter::start(Duration::from_millis(200));
        let mut stream = pin!(meter.subscribe());
        let first = next(&mut stream).await;
        let second = next(&mut stream).await;

        assert_eq!((first.seq, second.seq), (1, 2));
        assert!(!first.cpu.is_empty());
        assert!(first.cpu.iter().all(|load| (0.0..=100.0).contains(load)), "{:?}", first.cpu);
        assert!(first.memory_used > 0 && first.memory_used <= first.memory_total);
        assert!(first.at < second.at && first.at.ends_with('Z') && first.at.len() == 24);
    }

    #[tokio::test]
    async fn a_late_subscriber_gets_the_newest_reading_at_once() {
        let meter = Meter::start(Duration::from_secs(3600));
        let early = next(&mut pin!(meter.subscribe())).await;
        let late = next(&mut pin!(meter.clone().subscribe())).await;
        assert_eq!(early.seq, late.seq);
    }

    #[tokio::test]
    async fn the_task_ends_with_the_last_handle() {
        let (readings, newest) = watch::channel(Usage::default());
        let task = tokio::spawn(measure(readings, Duration::from_secs(3600)));
        let meter = Meter { newest };
        let stream = meter.subscribe();
        drop(meter);
        time::sleep(Duration::from_millis(50)).await;
        assert!(!task.is_finished(), "a stream is a handle too");
        drop(stream);
        time::timeout(Duration::from_secs(10), task).await.expect("in time").expect("no panic");
    }
}
