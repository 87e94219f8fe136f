//! Trials of hero-sse under load: a feed server, and clients of every kind. All processes with the same arguments
//! serve the same feed.

mod client;
mod load;
mod memory;
mod node;
mod renew;
mod scenes;
mod serve;
mod soak;
mod topic;

use std::process::ExitCode;

const HELP: &str = "\
Trials of hero-sse under load.

Usage: trial COMMAND [OPTIONS]; each command has its own --help.

  serve     a feed server: every process with the same arguments serves the same feed
  scenes    streams that a file describes, for clients that other people wrote
  renew     the feed for tokens that expire, and for tickets
  soak      two servers, thousands of healthy and misbehaving clients, restarts; ends with a verdict
  topic     ten thousand subscribers of one topic, half of which do not read
  memory    what a stalled client costs, as a table
  follow    a client that reads the feed, and reconnects with its cursor after silence
";

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

type Outcome<T = ExitCode> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

async fn run() -> Outcome {
    let mut arguments = lexopt::Parser::from_env();
    let command = match arguments.next()? {
        Some(lexopt::Arg::Value(command)) => command.to_string_lossy().into_owned(),
        _ => "help".to_owned(),
    };
    match command.as_str() {
        "serve" => serve::run(arguments).await,
        "scenes" => scenes::run(arguments).await,
        "renew" => renew::run(arguments).await,
        "soak" => soak::run(arguments).await,
        "topic" => topic::run(arguments).await,
        "memory" => memory::run(arguments).await,
        "follow" => client::follow(arguments).await,
        _ => {
            print!("{HELP}");
            Ok(ExitCode::SUCCESS)
        }
    }
}
