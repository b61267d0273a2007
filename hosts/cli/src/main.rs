//! The program `veilformer`: everything a client and a server do, from the
//! command line. `args` says what there is, `exit` how it can end.

mod answer;
mod args;
mod backend;
mod batch;
mod bench;
mod bootstrap;
mod client;
mod commands;
mod exit;
mod files;
mod forecast;
mod job;
mod keyfile;
mod keystore;
mod model;
mod output;
mod product;
mod progress;
mod rings;
mod run;
mod sentences;
mod serve;
mod server;
mod stop;
mod twin;
mod typical;
mod watch;
mod weights;
mod work;

use args::Args;
use clap::Parser;
use output::Output;
use std::io::IsTerminal;
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let Args { global, command } = Args::parse();
    let level = ["warn", "info", "debug"][usize::from(global.verbose.min(2))];
    let filter = EnvFilter::try_from_env("VEILFORMER_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr).init();
    let output = Output { json: global.json };
    let result = commands::dispatch(&command, output);
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {}", failure.message);
            ExitCode::from(failure.exit as u8)
        }
    }
}
