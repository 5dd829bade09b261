//! `ringpost user` and `ringpost group`.
//!
//! Owns: their flags, and what they print. Never: SQL; a running gateway sees the changes within
//! seconds.

use std::io::Read as _;

use clap::{Args, Subcommand};
use codec::{GroupId, GroupKey, TenantId, UserId, UserKey};
use storage::Admin;
use storage::admin::{AdminError, NewGroup, NewUser};
use storage::auth::hash_password;

use crate::config::{Config, Tenant};
use crate::exit::Failure;
use crate::stores;

/// Which tenant a command is about.
#[derive(Clone, Debug, Args)]
pub(super) struct TenantArgs {
    /// The tenant's organisation; default: that of node.tenant
    #[arg(long)]
    org: Option<String>,
    /// The tenant's application; default: that of node.tenant
    #[arg(long)]
    appkey: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(super) enum UserCommand {
    /// Make one user, or many for a load test
    Add(AddArgs),
    /// Forget a user and all that is stored for him
    Del {
        /// His number
        #[arg(long, required_unless_present = "name", conflicts_with = "name")]
        id: Option<u32>,
        /// Or his name
        #[arg(long)]
        name: Option<String>,
        #[command(flatten)]
        tenant: TenantArgs,
    },
    /// Print number, name and phone of every user
    List {
        #[command(flatten)]
        tenant: TenantArgs,
    },
}

#[derive(Debug, Args)]
pub(super) struct AddArgs {
    /// His number; with --count the first of them
    #[arg(long)]
    id: u32,
    /// His name
    #[arg(long, required_unless_present = "count", conflicts_with = "count")]
    name: Option<String>,
    /// His password; seen by everybody who can list processes, so rather --password-stdin
    #[arg(long, required_unless_present = "password_stdin", conflicts_with = "password_stdin")]
    password: Option<String>,
    /// Read the password from standard input, up to the end of its first line
    #[arg(long)]
    password_stdin: bool,
    /// His phone number
    #[arg(long, conflicts_with = "count")]
    phone: Option<String>,
    /// Make so many users with numbers from --id on, all or none, with one password whose hash
    /// they share
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=COUNT_MAX))]
    count: Option<u32>,
    /// Their names; {n} is the number
    #[arg(long, value_name = "TEMPLATE", default_value = "u{n}", requires = "count")]
    name_template: String,
    #[command(flatten)]
    tenant: TenantArgs,
}

#[derive(Debug, Subcommand)]
pub(super) enum GroupCommand {
    /// Make a group
    Create {
        #[command(flatten)]
        group: GroupArgs,
        /// Numbers of its users
        #[arg(long, value_delimiter = ',', value_name = "ID,ID,...")]
        members: Vec<u32>,
        /// A name by which protocols with names address it, besides its number
        #[arg(long)]
        name: Option<String>,
        /// What people call it
        #[arg(long)]
        title: Option<String>,
        /// The number of the user who owns it; he becomes a member
        #[arg(long, value_name = "ID")]
        owner: Option<u32>,
    },
    /// Add users to a group
    Add {
        #[command(flatten)]
        group: GroupArgs,
        /// Numbers of the users
        #[arg(long, value_delimiter = ',', value_name = "ID,ID,...", required = true)]
        members: Vec<u32>,
    },
    /// Remove users from a group, or the group itself
    Remove {
        #[command(flatten)]
        group: GroupArgs,
        /// Numbers of the users; without them the group goes
        #[arg(long, value_delimiter = ',', value_name = "ID,ID,...")]
        members: Vec<u32>,
    },
    /// Print number and size of every group
    List {
        #[command(flatten)]
        tenant: TenantArgs,
    },
}

#[derive(Debug, Args)]
pub(super) struct GroupArgs {
    /// The group's number
    #[arg(long)]
    id: u32,
    #[command(flatten)]
    tenant: TenantArgs,
}

/// `ringpost user ...`
///
/// # Errors
/// Nothing was changed, and why.
pub(super) fn user(command: UserCommand, config: &Config) -> Result<(), Failure> {
    let mut store = stores::open_for_command(config)?;
    match command {
        UserCommand::Add(args) => add(args, config, &mut *store),
        UserCommand::Del { id, name, tenant } => {
            let tenant = tenant_of(&tenant, config, &mut *store)?;
            let id = match (id, name) {
                (Some(id), _) => UserId(id),
                (None, name) => by_name(&mut *store, tenant, &name.unwrap_or_default())?,
            };
            store.delete_user(UserKey { tenant, id }).map_err(refused)?;
            println!("user {id} is gone");
            Ok(())
        }
        UserCommand::List { tenant } => {
            let tenant = tenant_of(&tenant, config, &mut *store)?;
            list_users(&mut *store, tenant)
        }
    }
}

fn add(args: AddArgs, config: &Config, store: &mut dyn Admin) -> Result<(), Failure> {
    let tenant = tenant_of(&args.tenant, config, store)?;
    let password = match args.password {
        Some(password) => password,
        None => read_password()?,
    };
    let last = args.id.checked_add(args.count.unwrap_or(1) - 1);
    let Some(last) = last else {
        return Err(Failure::new("the last number would be over 4294967295; use a smaller --id"));
    };
    let many = args.count.is_some();
    if many && !args.name_template.contains(NUMBER) {
        return Err(Failure::new("--name-template needs {n}, or all names would be equal"));
    }
    // Salting is for passwords that differ.
    let password_hash = hash_password(password.as_bytes());
    let name = |id: u32| match &args.name {
        Some(name) => name.clone(),
        None => args.name_template.replace(NUMBER, &id.to_string()),
    };
    let users: Vec<NewUser> = (args.id..=last)
        .map(|id| {
            let name = checked_name(name(id))?;
            let key = UserKey { tenant, id: UserId(id) };
            let (password_hash, phone) = (password_hash.clone(), args.phone.clone());
            Ok(NewUser { key, name, password_hash, phone })
        })
        .collect::<Result<_, Failure>>()?;
    store.add_users(&users).map_err(refused)?;
    match many {
        true => println!("users {} to {last} are made", args.id),
        false => println!("user {} is made", args.id),
    }
    Ok(())
}

fn checked_name(name: String) -> Result<Box<[u8]>, Failure> {
    match name.len() {
        1..=NAME_MAX => Ok(name.into_bytes().into()),
        len => Err(Failure::new(format!("a name has 1 to {NAME_MAX} bytes, this one {len}"))),
    }
}

fn read_password() -> Result<String, Failure> {
    let mut text = String::new();
    let read = std::io::stdin().take(PASSWORD_MAX).read_to_string(&mut text);
    read.map_err(|error| Failure::other("the password cannot be read", error))?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

fn by_name(store: &mut dyn Admin, tenant: TenantId, name: &str) -> Result<UserId, Failure> {
    let found = store.user_by_name(tenant, name.as_bytes());
    let found = found.map_err(|error| Failure::other("the store", error.label()))?;
    found.map(|user| user.id).ok_or_else(|| Failure::new(format!("there is no user {name:?}")))
}

fn list_users(store: &mut dyn Admin, tenant: TenantId) -> Result<(), Failure> {
    let mut after = None;
    loop {
        let users = store.list_users(tenant, after, PAGE).map_err(refused)?;
        for user in &users {
            let phone = user.phone.as_deref().unwrap_or("-");
            let open = if user.has_password { "" } else { "\tno password" };
            println!("{}\t{}\t{phone}{open}", user.id, user.name.escape_ascii());
        }
        match users.last() {
            Some(last) => after = Some(last.id),
            None => return Ok(()),
        }
    }
}

/// `ringpost group ...`
///
/// # Errors
/// Nothing was changed, and why.
pub(super) fn group(command: GroupCommand, config: &Config) -> Result<(), Failure> {
    let mut store = stores::open_for_command(config)?;
    let key = |store: &mut dyn Admin, args: &GroupArgs| -> Result<GroupKey, Failure> {
        Ok(GroupKey { tenant: tenant_of(&args.tenant, config, store)?, id: GroupId(args.id) })
    };
    let ids = |members: Vec<u32>| -> Vec<UserId> { members.into_iter().map(UserId).collect() };
    match command {
        GroupCommand::Create { group, members, name, title, owner } => {
            let group = key(&mut *store, &group)?;
            let made = NewGroup {
                key: group,
                name: name.map(|name| name.into_bytes().into()),
                title: title.unwrap_or_default().into_bytes().into(),
                owner: owner.map(UserId),
                members: ids(members),
            };
            store.create_group(&made).map_err(refused)?;
            println!("group {} is made", group.id);
        }
        GroupCommand::Add { group, members } => {
            let group = key(&mut *store, &group)?;
            store.add_members(group, &ids(members)).map_err(refused)?;
            println!("group {} has them", group.id);
        }
        GroupCommand::Remove { group, members } if members.is_empty() => {
            let group = key(&mut *store, &group)?;
            store.delete_group(group).map_err(refused)?;
            println!("group {} is gone", group.id);
        }
        GroupCommand::Remove { group, members } => {
            let group = key(&mut *store, &group)?;
            let removed = store.remove_members(group, &ids(members)).map_err(refused)?;
            println!("{removed} removed from group {}", group.id);
        }
        GroupCommand::List { tenant } => {
            let tenant = tenant_of(&tenant, config, &mut *store)?;
            list_groups(&mut *store, tenant)?;
        }
    }
    Ok(())
}

fn list_groups(store: &mut dyn Admin, tenant: TenantId) -> Result<(), Failure> {
    let mut after = None;
    loop {
        let groups = store.list_groups(tenant, after, PAGE).map_err(refused)?;
        for group in &groups {
            println!("{}\t{} members", group.id, group.members);
        }
        match groups.last() {
            Some(last) => after = Some(last.id),
            None => return Ok(()),
        }
    }
}

fn tenant_of(
    args: &TenantArgs,
    config: &Config,
    store: &mut dyn Admin,
) -> Result<TenantId, Failure> {
    // Listeners without a tenant of their own are in the first.
    let default = &config.tenants[0];
    let part = |given: &Option<String>, default: &String| given.as_ref().unwrap_or(default).clone();
    let tenant =
        Tenant { org: part(&args.org, &default.org), appkey: part(&args.appkey, &default.appkey) };
    if !tenant.is_valid() {
        return Err(Failure::new(format!("{tenant:?} is no tenant; see node.tenant")));
    }
    stores::tenant_id(store, &tenant)
}

fn refused(error: AdminError) -> Failure {
    Failure::new(error.to_string())
}

/// What stands for the number in a name template.
const NUMBER: &str = "{n}";
/// Users of one `--count`: one transaction, some 200 MB of memory.
const COUNT_MAX: i64 = 1_000_000;
/// Bytes of a user name.
const NAME_MAX: usize = 255;
/// Bytes read for a password.
const PASSWORD_MAX: u64 = 4096;
/// Rows read at once by the lists.
const PAGE: u32 = 1000;
