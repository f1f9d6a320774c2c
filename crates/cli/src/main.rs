//! The program `tenantry`.

mod args;
mod backups;
mod commands;
mod config_file;
mod confirm;
mod demo;
mod exit;
mod output;
mod service;
mod signals;
mod steps;

use std::process::ExitCode;

use clap::Parser;

use crate::exit::Exit;

#[tokio::main]
async fn main() -> ExitCode {
    let args = args::Args::parse();
    output::log_to_stderr(&args);
    match commands::run(args).await {
        Ok(exit) => exit.into(),
        Err(error) => {
            output::report(&error);
            Exit::of(&error).into()
        }
    }
}
