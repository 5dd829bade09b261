//! `ringpost-perf`: honest load for the gateway and its rivals. See `perf/README.md`.
//!
//! Owns: the command line. Exit code 0 only if the run was good; 1 if anything failed.
#![forbid(unsafe_code)]

mod args;
mod check;
mod client;
mod compare;
mod engine;
mod html;
mod manifest;
mod merge;
mod procfs;
#[allow(dead_code, reason = "the coordinator of the load shows its samples")]
mod progress;
mod report;
#[allow(dead_code, reason = "the coordinator of the load takes its samples")]
mod sample;
mod scenario;
mod show;
mod table;
mod transport;

use args::{Args, Command, LoadArgs, Protocol, Scenario};
use clap::Parser;
use client::Client;
use client::binary::Binary;
use client::mqtt::Mqtt;
use engine::Engine;
use manifest::Manifest;
use report::Report;
use scenario::{Abort, connect, idle, traffic};
use std::process::ExitCode;
use transport::Dialer;

fn main() -> ExitCode {
    match Args::parse().command {
        Command::Load(scenario) => load(&scenario),
        Command::Show(show) => match show.run() {
            Ok(is_good) => exit_code(is_good),
            Err(why) => {
                eprintln!("{why}");
                ExitCode::FAILURE
            }
        },
    }
}

/// Runs one scenario and shows what it found, however far it came.
fn load(scenario: &Scenario) -> ExitCode {
    let args = scenario.load_args();
    let mut report = Report {
        label: args.label(),
        scenario: scenario.name().to_owned(),
        shape: scenario.shape(),
        ..Report::default()
    };
    let outcome = match Manifest::read(args.server_pid) {
        Ok(manifest) => {
            report.manifest = manifest;
            match args.protocol {
                Protocol::Binary => run::<Binary>(scenario, args, &mut report),
                Protocol::Mqtt => run::<Mqtt>(scenario, args, &mut report),
            }
        }
        Err(error) => Err(error.into()),
    };
    if let Err(Abort(why)) = outcome {
        report.abort(why);
    }
    report.conclude();
    report.print();
    let saved = [
        args.json.as_deref().map(|path| report.save(path)),
        args.html.as_deref().map(|path| html::save(&report, path)),
    ];
    let is_saved = saved
        .into_iter()
        .flatten()
        .all(|saved| saved.inspect_err(|why| eprintln!("{why}")).is_ok());
    exit_code(report.ok && is_saved)
}

fn exit_code(is_good: bool) -> ExitCode {
    if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run<C: Client>(scenario: &Scenario, args: &LoadArgs, report: &mut Report) -> Result<(), Abort> {
    let endpoint = args.endpoint().map_err(Abort)?;
    let setup = args.setup();
    let mut engine = Engine::<C>::new(Dialer::new(endpoint)?)?;
    match scenario {
        Scenario::Pairs(pairs) => traffic::run(&setup, pairs.traffic(), &mut engine, report),
        Scenario::Fanout(fanout) => traffic::run(&setup, fanout.traffic(), &mut engine, report),
        Scenario::Idle(args) => {
            let shape = args.idle().map_err(Abort)?;
            idle::run(&setup, shape, &mut engine, report)
        }
        Scenario::Connect(_) => connect::run(&setup, setup.login_concurrency, &mut engine, report),
    }
}
