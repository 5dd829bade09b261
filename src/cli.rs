//! The command line: what may be said, and who does it.
//!
//! Owns: commands, flags, help. Never: the work itself. Exit codes are documented in `main.rs`.

mod dead_letters;
mod users;

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::config::keys::Transport;
use crate::config::{Config, Listener, reference};
use crate::exit::Failure;
use crate::{chat, demo, doctor, serve, stores};
use dead_letters::DeadLetterCommand;
use users::{GroupCommand, UserCommand};

/// A thread-per-core instant-messaging gateway.
#[derive(Debug, Parser)]
#[command(version, about, after_help = EXIT_CODES)]
struct Cli {
    /// The configuration file; without it every key has its default
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Without a command: serve
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway; without --config the embedded demo, on loopback only
    Serve,
    /// Check the configuration, and the certificate if one is named
    Check,
    /// Print the complete configuration file with every default
    Defaults,
    /// Make, forget and list users of the embedded store
    #[command(subcommand)]
    User(UserCommand),
    /// Make, change and list groups of the embedded store
    #[command(subcommand)]
    Group(GroupCommand),
    /// Look after messages that were given up and kept
    #[command(subcommand, name = "deadletter")]
    DeadLetter(DeadLetterCommand),
    /// Talk to people through a running gateway
    Chat(ChatArgs),
    /// Look at what this host gives the gateway, and how to fix what it does not
    Doctor,
}

#[derive(Debug, Args)]
struct ChatArgs {
    /// Your user name
    name: String,
    /// Where the gateway is; default: the first ws listener of the configuration
    #[arg(long, value_name = "ws://HOST:PORT/PATH")]
    url: Option<String>,
    /// Your password; the demo's users need none, others are asked
    #[arg(long)]
    password: Option<String>,
}

/// Parses the arguments of the process and does what they say.
///
/// # Errors
/// What went wrong, for stderr and the exit code.
pub(crate) fn run() -> Result<(), Failure> {
    let Cli { config: file, command } = Cli::parse();
    let load = || Config::load(file.as_deref());
    match command.unwrap_or(Command::Serve) {
        Command::Serve => serve::run(file.as_deref()),
        Command::Check => check(&load()?),
        Command::Defaults => {
            print!("{}", reference());
            Ok(())
        }
        Command::User(command) => users::user(command, &load()?),
        Command::Group(command) => users::group(command, &load()?),
        Command::DeadLetter(command) => dead_letters::run(command, &load()?),
        Command::Chat(args) => chat_with(args, &load()?),
        Command::Doctor => doctor::run(&load()?),
    }
}

fn check(config: &Config) -> Result<(), Failure> {
    serve::check_certificate(config)?;
    println!("the configuration is right: {} shards", config.shards());
    for listener in &config.listeners {
        let tenant = &config.tenants[listener.tenant];
        println!("  {:<16} {} ({tenant})", listener.protocol.name(), listener.url());
    }
    Ok(())
}

fn chat_with(args: ChatArgs, config: &Config) -> Result<(), Failure> {
    let first = || {
        let plain = |listener: &&Listener| {
            listener.transport == Transport::Ws && !listener.protocol.is_door()
        };
        config.listeners.iter().find(plain).map(Listener::url)
    };
    // Another gateway has other users.
    let users = if args.url.is_none() { names(config) } else { demo::users() };
    let Some(url) = args.url.or_else(first) else {
        return Err(Failure::new("the configuration has no ws listener; use --url"));
    };
    chat::run(chat::Options { name: args.name, url, password: args.password, users })
}

/// Users by name: those of the store if there is one that can be read, else the demo's.
fn names(config: &Config) -> BTreeMap<String, u32> {
    let mut names = demo::users();
    if stores::path(config).exists()
        && let Ok(mut store) = stores::open_for_command(config)
        && let Ok(tenant) = stores::tenant_id(&mut *store, &config.tenants[0])
        && let Ok(users) = store.list_users(tenant, None, NAMES_MAX)
    {
        let text = |name: Box<[u8]>| String::from_utf8(name.into()).ok();
        names.extend(users.into_iter().filter_map(|user| Some((text(user.name)?, user.id.0))));
    }
    names
}

/// Users that chat knows by name; all others have their numbers.
const NAMES_MAX: u32 = 10_000;

const EXIT_CODES: &str = "\
Exit codes: 0 done, 1 failed, 2 wrong usage, 78 the configuration is wrong.
Environment: RINGPOST_<SECTION>_<KEY> overrides a key of the file (see `ringpost defaults`).";
