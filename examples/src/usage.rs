//! The usage gauge: the load of this machine's processors and memory, once a second.
//!
//! A gauge is state, not history. `Topic::latest` keeps the newest reading only: a new client gets it at once, and a
//! slow client skips the readings in between.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::extract::State;
use hero_sse::prelude::*;
use serde::Serialize;
use sysinfo::{MINIMUM_CPU_UPDATE_INTERVAL, System};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time;

/// One reading of the gauge. The event is named after the type: `usage`.
#[derive(Clone, Debug, Serialize, SseEvent)]
pub struct Usage {
    /// Number of this reading since the program started.
    pub seq: u64,
    /// Time of the reading: RFC 3339, UTC.
    pub at: String,
    /// Load of each processor, in percent.
    pub cpu: Vec<f32>,
    /// Load of all processors together, in percent.
    pub cpu_total: f32,
    /// Memory in use, in bytes.
    pub memory_used: u64,
    /// Total memory, in bytes.
    pub memory_total: u64,
}

/// Live usage gauge of this machine: the newest reading at once, then each further one.
#[sse_endpoint("/usage/stream", permission = "usage.read")]
pub async fn usage_stream(State(meter): State<Meter>) -> Subscription<Usage> {
    meter.readings.subscribe()
}

/// Reads the gauge in the background, once for all clients. Clones share one meter.
///
/// Dropping the last clone stops the meter and ends its streams.
#[derive(Clone, Debug)]
pub struct Meter {
    readings: Topic<Usage>,
    /// Aborts the task when dropped.
    _task: Arc<JoinSet<()>>,
}

impl Meter {
    /// Starts a meter that reads at this interval. Shorter intervals than sysinfo's minimum are raised to it.
    pub fn start(interval: Duration) -> Self {
        let readings = Topic::latest("usage");
        let mut task = JoinSet::new();
        task.spawn(measure(readings.clone(), interval.max(MINIMUM_CPU_UPDATE_INTERVAL)));
        Self { readings, _task: Arc::new(task) }
    }
}

async fn measure(readings: Topic<Usage>, interval: Duration) {
    let mut system = match System::new() {
        Ok(system) => system,
        Err(error) => return tracing::warn!(%error, "cannot measure this machine"),
    };
    // The load is a difference between two samples. This is the first one.
    system.refresh_cpu_usage();
    let mut ticks = time::interval_at(time::Instant::now() + MINIMUM_CPU_UPDATE_INTERVAL, interval);
    ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);

    for seq in 1.. {
        ticks.tick().await;
        // Sampling reads files of the kernel, which may block.
        let sample = spawn_blocking(move || {
            let usage = read(&mut system, seq);
            (system, usage)
        });
        let usage;
        (system, usage) = match sample.await {
            Ok(sample) => sample,
            Err(error) => return tracing::warn!(%error, "the meter stopped"),
        };
        if let Err(error) = readings.publish(usage).await {
            return tracing::warn!(%error, "the meter stopped");
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
    use futures_util::StreamExt;
    use hero_sse::topic::Published;

    use super::*;

    async fn next(stream: &mut Subscription<Usage>) -> Option<Published<Usage>> {
        time::timeout(Duration::from_secs(10), stream.next()).await.expect("in time")
    }

    #[tokio::test]
    async fn readings_are_plausible_and_in_order() {
        let meter = Meter::start(Duration::from_millis(200));
        let mut stream = meter.readings.subscribe();
        let first = next(&mut stream).await.expect("a reading");
        let second = next(&mut stream).await.expect("a reading");

        assert_eq!((first.seq, second.seq), (1, 2));
        assert!(!first.cpu.is_empty());
        assert!(first.cpu.iter().all(|load| (0.0..=100.0).contains(load)), "{:?}", first.cpu);
        assert!(first.memory_used > 0 && first.memory_used <= first.memory_total);
        assert!(first.at < second.at && first.at.ends_with('Z') && first.at.len() == 24);
    }

    #[tokio::test]
    async fn a_new_subscriber_gets_the_newest_reading_at_once() {
        let meter = Meter::start(Duration::from_secs(3600));
        let early = next(&mut meter.readings.subscribe()).await.expect("a reading");
        let late = next(&mut meter.clone().readings.subscribe()).await.expect("a reading");
        assert_eq!(early.seq, late.seq);
    }

    #[tokio::test]
    async fn dropping_the_last_clone_stops_the_meter_and_ends_its_streams() {
        let meter = Meter::start(Duration::from_secs(3600));
        let mut stream = meter.readings.subscribe();
        drop(meter.clone());
        assert!(next(&mut stream).await.is_some());
        drop(meter);
        assert!(next(&mut stream).await.is_none());
    }
}
