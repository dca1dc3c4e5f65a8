//! scripts/bench.

use std::path::PathBuf;

use clap::Args;
use harness::Result;

/// Options of scripts/bench.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Write the figures here too, flat
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

pub fn bench(_options: &Options) -> Result<bool> {
    Ok(true)
}
