//! What a seed stands for: the machine, its faults, and who its clients are.

use std::collections::BTreeMap;

use shards::io::ShardIndex;
use shards::io::sim::{FaultPlan, Rng, STALL_PPM, STALL_US};

use super::backend::SidecarPlan;
use super::disk::DiskFaults;
use super::wire::Transport;

/// One run.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub shards: ShardIndex,
    pub mesh_capacity: usize,
    pub slots: u32,
    pub kernel: FaultPlan,
    pub sidecar: SidecarPlan,
    pub disk: DiskFaults,
    /// Crashes of the gateway at random moments of the run.
    pub crashes: u32,
    /// Milliseconds until faults and bad habits end and everything must come to rest.
    pub unrest_ms: u64,
    /// No faults and only well-behaved clients: nobody ever has to send anything twice.
    pub strict: bool,
    pub groups: BTreeMap<u32, Vec<u32>>,
    pub profiles: Vec<Profile>,
}

/// How a client logs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    Plain,
    Role,
    /// Names its kind of terminal, 1 to 127, and gets group messages in their own form.
    Terminal(u8),
    /// The back end's door: no login.
    Door,
    /// Speaks another protocol: calls users and groups by name, is answered in the order of its
    /// requests, and acknowledges by the gateway's ids.
    Named,
}

/// When a client acknowledges a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acks {
    AtOnce,
    /// After up to so many milliseconds each, in no particular order.
    Shuffled(u64),
    Never,
}

/// What a client is like.
#[derive(Clone, Debug)]
pub struct Profile {
    pub user: u32,
    pub layout: Layout,
    pub transport: Transport,
    pub acks: Acks,
    /// Ends the connection without an acknowledgement when a push frightens it.
    pub fears_poison: bool,
    pub answers_pings: bool,
    /// Stops reading now and then.
    pub freezes: bool,
    /// Ends its connection now and then.
    pub leaves: bool,
    pub wrong_password: bool,
    /// Sends publishes right behind its login.
    pub pipelines: bool,
    /// Which terminal it is, where that is not in the layout.
    pub device: u8,
    /// Messages to publish.
    pub publishes: u32,
    /// Publishes that may be unacknowledged at a time.
    pub window: usize,
}

impl Profile {
    pub fn new(user: u32, layout: Layout) -> Self {
        Self {
            user,
            layout,
            transport: Transport::Ws,
            acks: Acks::AtOnce,
            fears_poison: false,
            answers_pings: true,
            freezes: false,
            leaves: false,
            wrong_password: false,
            pipelines: false,
            device: 0,
            publishes: 15,
            window: 8,
        }
    }

    /// What it is like once everything must come to rest. The fear of poison stays.
    pub fn calmed(&self, kind: u8) -> Self {
        Self {
            layout: match self.layout {
                Layout::Terminal(_) => Layout::Terminal(kind),
                other => other,
            },
            device: kind,
            acks: Acks::AtOnce,
            answers_pings: true,
            freezes: false,
            leaves: false,
            publishes: 0,
            ..self.clone()
        }
    }
}

/// Users with clients are `1..=USERS`; this one never comes.
pub const GHOST: u32 = 77;
pub const USERS: u32 = 8;

impl Plan {
    pub fn seeded(seed: u64) -> Self {
        let mut rng = Rng::new(seed ^ 0x51b0_11ed);
        let strict = seed.is_multiple_of(8);
        let mut plan = Self {
            seed,
            shards: 1 + rng.below(4) as ShardIndex,
            mesh_capacity: *rng.pick(&[2, 2, 8, 128]),
            slots: 64,
            kernel: FaultPlan::default(),
            sidecar: quick_sidecar(),
            disk: DiskFaults::default(),
            crashes: 0,
            unrest_ms: 8_000,
            strict,
            groups: groups(&mut rng),
            profiles: Vec::new(),
        };
        if !strict {
            plan.add_faults(&mut rng);
        } else if rng.chance(500_000) {
            // Whoever answers in time does not notice that the gateway stood still.
            (plan.kernel.stall_ppm, plan.kernel.stall_us) = (STALL_PPM as u32, STALL_US);
        }
        plan.profiles = profiles(strict, !seed.is_multiple_of(3), &mut rng);
        plan
    }

    fn add_faults(&mut self, rng: &mut Rng) {
        let some = |rng: &mut Rng, ppm_max: u64| {
            if rng.chance(400_000) { rng.below(ppm_max) as u32 } else { 0 }
        };
        self.kernel = FaultPlan::seeded(rng);
        self.crashes = *rng.pick(&[0, 0, 1, 3]);
        self.unrest_ms = *rng.pick(&[8_000, 20_000]);
        self.sidecar = SidecarPlan {
            batch_us: 100..*rng.pick(&[1_000, 20_000, 300_000]),
            stall_ppm: some(rng, 100_000),
            stall_us: 4_000_000,
            auth_us: 100..*rng.pick(&[1_000, 50_000]),
            auth_fails_ppm: some(rng, 200_000),
            queue_len_max: *rng.pick(&[2, 8, 1_000]),
        };
        self.disk = DiskFaults {
            write_fails_ppm: some(rng, 200_000),
            full_ppm: some(rng, 200_000),
            read_fails_ppm: some(rng, 200_000),
            members_fail_ppm: some(rng, 300_000),
        };
    }

    /// The kernel, the sidecar and the disk at the end: delays, but no faults.
    pub fn calmed(&self) -> (FaultPlan, SidecarPlan, DiskFaults) {
        let sidecar = SidecarPlan { stall_ppm: 0, auth_fails_ppm: 0, ..self.sidecar.clone() };
        (self.kernel.calmed(), sidecar, DiskFaults::default())
    }
}

fn quick_sidecar() -> SidecarPlan {
    SidecarPlan {
        batch_us: 100..1_000,
        stall_ppm: 0,
        stall_us: 0,
        auth_us: 100..1_000,
        auth_fails_ppm: 0,
        queue_len_max: 1_000,
    }
}

fn groups(rng: &mut Rng) -> BTreeMap<u32, Vec<u32>> {
    let mut groups = BTreeMap::new();
    for group in 1..=3 {
        let mut members: Vec<u32> = (1..=USERS).filter(|_| rng.chance(600_000)).collect();
        if group == 2 {
            members.push(GHOST);
        }
        groups.insert(group, members);
    }
    groups
}

/// `named`: with clients of [`Layout::Named`] among them.
fn profiles(strict: bool, named: bool, rng: &mut Rng) -> Vec<Profile> {
    let mut profiles: Vec<_> = (1..=USERS).map(|user| profile(user, strict, named, rng)).collect();
    // Second clients of some users: another kind of terminal, or the same one again.
    for user in 1..=3 {
        let first = profiles[user as usize - 1].layout;
        let layout = match first {
            Layout::Terminal(kind) if !strict && rng.chance(500_000) => Layout::Terminal(kind),
            Layout::Terminal(kind) => Layout::Terminal(kind + 1),
            Layout::Named if !strict && rng.chance(300_000) => Layout::Named,
            _ => Layout::Terminal(9),
        };
        let transport = transport(layout, rng);
        profiles.push(Profile { layout, transport, ..profile(user, strict, named, rng) });
    }
    profiles.push(Profile {
        transport: Transport::Tcp,
        window: 16,
        ..Profile::new(0, Layout::Door)
    });
    if !strict {
        let layout = if named { Layout::Named } else { Layout::Plain };
        let mut stranger = Profile::new(5, layout);
        stranger.transport = transport(layout, rng);
        stranger.wrong_password = true;
        stranger.publishes = 0;
        profiles.push(stranger);
    }
    profiles
}

fn transport(layout: Layout, rng: &mut Rng) -> Transport {
    match layout {
        Layout::Named => Transport::Varint,
        _ if rng.chance(200_000) => Transport::Tcp,
        _ => Transport::Ws,
    }
}

fn profile(user: u32, strict: bool, named: bool, rng: &mut Rng) -> Profile {
    let layout = match rng.below(if named { 6 } else { 4 }) {
        0 => Layout::Plain,
        1 => Layout::Role,
        2 | 3 => Layout::Terminal(1 + rng.below(3) as u8),
        _ => Layout::Named,
    };
    let mut profile = Profile::new(user, layout);
    profile.pipelines = rng.chance(400_000);
    profile.transport = transport(layout, rng);
    profile.window = *rng.pick(&[1, 4, 16]);
    profile.acks = if rng.chance(500_000) { Acks::AtOnce } else { Acks::Shuffled(30) };
    if strict {
        return profile;
    }
    if rng.chance(300_000) {
        profile.acks = *rng.pick(&[Acks::Shuffled(600), Acks::Shuffled(3_000), Acks::Never]);
    }
    profile.fears_poison = rng.chance(200_000);
    profile.answers_pings = rng.chance(900_000);
    profile.freezes = rng.chance(200_000);
    profile.leaves = rng.chance(300_000);
    profile
}
