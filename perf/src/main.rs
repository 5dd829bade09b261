//! `ringpost-perf`: honest load for the gateway and its rivals. See `perf/README.md`.
//!
//! Owns: the command line. Exit code 0 only if the run was good; 1 if anything failed.
#![forbid(unsafe_code)]

mod args;
mod board;
mod check;
mod client;
mod compare;
mod dialer;
mod engine;
mod html;
mod launch;
mod manifest;
mod measure;
mod merge;
mod pace;
mod phase;
mod progress;
mod report;
mod run;
mod sample;
mod scenario;
mod show;
mod smoke;
mod table;
mod tls;
mod worker;

use args::{Args, Command, Protocol, Scenario};
use clap::Parser;
use client::binary::Binary;
use client::im_demo::ImDemo;
use client::mqtt::Mqtt;
use client::relay::Relay;
use client::simple_im::SimpleIm;
use client::simple_text::SimpleText;
use launch::launch;
use manifest::Manifest;
use report::Report;
use scenario::Abort;
use std::process::ExitCode;
use std::thread;

fn main() -> ExitCode {
    match Args::parse().command {
        Command::Load(scenario) => match *scenario {
            Scenario::Smoke(args) => told(smoke::smoke(&args, load)),
            scenario => exit_code(load(&scenario)),
        },
        Command::Show(show) => told(show.run()),
    }
}

fn told(outcome: Result<bool, String>) -> ExitCode {
    exit_code(outcome.unwrap_or_else(|why| {
        eprintln!("{why}");
        false
    }))
}

/// Runs one scenario and shows what it found, however far it came. True if all of it was good.
fn load(scenario: &Scenario) -> bool {
    let Some(args) = scenario.load_args() else { return false };
    let mut report = Report {
        label: args.label(),
        scenario: scenario.name().to_owned(),
        shape: scenario.shape(),
        ..Report::default()
    };
    // Ends when the workers have ended, which the report does not wait for.
    thread::scope(|scope| {
        let outcome = match Manifest::read(args.server_pid) {
            Ok(manifest) => {
                let server_version = args.server_version.clone().unwrap_or_default();
                report.manifest = Manifest { server_version, ..manifest };
                match args.protocol {
                    Protocol::Binary => launch::<Binary>(scope, scenario, args, &mut report),
                    Protocol::Mqtt => launch::<Mqtt>(scope, scenario, args, &mut report),
                    Protocol::Relay => launch::<Relay>(scope, scenario, args, &mut report),
                    Protocol::SimpleText => {
                        launch::<SimpleText>(scope, scenario, args, &mut report)
                    }
                    Protocol::SimpleIm => launch::<SimpleIm>(scope, scenario, args, &mut report),
                    Protocol::ImDemo => launch::<ImDemo>(scope, scenario, args, &mut report),
                }
            }
            Err(error) => Err(error.into()),
        };
        if let Err(Abort(why)) = outcome {
            report.abort(why);
        }
        if args.fresh {
            report.expect_fresh();
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
        report.ok && is_saved
    })
}

fn exit_code(is_good: bool) -> ExitCode {
    if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
