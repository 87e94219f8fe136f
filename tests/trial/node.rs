//! Feed servers as child processes.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

use crate::Outcome;

/// A process of `trial serve`. Dropping it kills the process.
pub(crate) struct Node {
    pub(crate) address: SocketAddr,
    arguments: Vec<String>,
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Node {
    pub(crate) async fn start(arguments: &[String]) -> Outcome<Self> {
        Self::listen(arguments.to_vec(), "127.0.0.1:0").await
    }

    async fn listen(arguments: Vec<String>, at: &str) -> Outcome<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["serve", "--listen", at]).args(&arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn()?;
        let stdout = child.stdout.take().ok_or("no output")?;
        let mut lines = BufReader::new(stdout).lines();
        let line = timeout(Duration::from_secs(10), lines.next_line()).await??;
        let started: Value = serde_json::from_str(&line.ok_or("a server did not start")?)?;
        let address =
            started["listening"].as_str().ok_or("a server printed no address")?.parse()?;
        Ok(Self { address, arguments, child, lines })
    }

    /// Stops the server by SIGTERM. Returns the figures that it prints at its end, and how long it took.
    pub(crate) async fn stop(&mut self) -> Outcome<(Value, Duration)> {
        let pid = self.child.id().ok_or("a server has ended")?;
        let start = Instant::now();
        let kill = Command::new("sh").args(["-c", &format!("kill -TERM {pid}")]).status().await?;
        if !kill.success() {
            return Err("a server has ended".into());
        }
        timeout(Duration::from_secs(60), self.child.wait()).await??;
        let took = start.elapsed();
        let line = self.lines.next_line().await?.ok_or("a server printed no figures at its end")?;
        let mut printed: Value = serde_json::from_str(&line)?;
        Ok((printed["stopped"].take(), took))
    }

    pub(crate) async fn kill(&mut self) -> Outcome<()> {
        Ok(self.child.kill().await?)
    }

    /// Starts a stopped server again, at the same address.
    pub(crate) async fn restart(&mut self) -> Outcome<()> {
        *self = Self::listen(self.arguments.clone(), &self.address.to_string()).await?;
        Ok(())
    }

    pub(crate) async fn stats(&self) -> Outcome<Stats> {
        let request = async {
            let mut socket = TcpStream::connect(self.address).await?;
            let head = "GET /stats HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
            socket.write_all(head.as_bytes()).await?;
            let mut answer = String::new();
            socket.read_to_string(&mut answer).await?;
            let (_, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
            Ok::<Value, std::io::Error>(serde_json::from_str(body)?)
        };
        Ok(Stats(timeout(Duration::from_secs(20), request).await.map_err(|_| "no stats")??))
    }

    /// Returns the number of its sockets in these states, as the kernel counts, and the bytes in their send queues.
    pub(crate) fn sockets(&self, states: &[&str]) -> (usize, u64) {
        let port = format!(":{:04X}", self.address.port());
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap_or_default();
        let (mut count, mut queued) = (0, 0);
        for line in table.lines().skip(1) {
            let fields: Vec<_> = line.split_whitespace().collect();
            let [_, local, _, state, queues, ..] = fields.as_slice() else { continue };
            if local.ends_with(&port) && states.contains(state) {
                count += 1;
                let sent = queues.split(':').next().unwrap_or_default();
                queued += u64::from_str_radix(sent, 16).unwrap_or_default();
            }
        }
        (count, queued)
    }
}

pub(crate) const ESTABLISHED: &str = "01";
pub(crate) const FIN_WAIT: [&str; 4] = ["04", "05", "09", "0B"];

/// The figures of a server.
#[derive(Clone, Debug)]
pub(crate) struct Stats(pub(crate) Value);

impl Stats {
    pub(crate) fn get(&self, name: &str) -> u64 {
        self.0[name].as_u64().unwrap_or_default()
    }

    /// Returns the number of streams that have ended.
    pub(crate) fn closed(&self) -> u64 {
        let counts = self.0["closed"].as_object().into_iter().flatten();
        counts.filter_map(|(_, count)| count.as_u64()).sum()
    }
}
