//! The system calls beside the ring: limits, affinity, listening sockets, eventfd, the clock.
//!
//! Invariants of the `unsafe` here: every pointer given to the kernel is to a local that outlives
//! the call, and every descriptor received is owned by exactly one `OwnedFd`. Never: keeps state,
//! apart from the moment the process's clock started.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{Error, Result, Write};
use std::mem;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};

use crate::io::Now;

/// Microseconds of the monotonic clock since the process first asked.
pub fn now() -> Now {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    Now(EPOCH.get_or_init(Instant::now).elapsed().as_micros() as u64)
}

/// Asks the processor for the cache line where `place` begins, which is going to be used soon. A
/// hint: where there is no such instruction nothing happens.
#[inline]
pub fn prefetch<T>(place: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: the instruction reads nothing that a program could see, and never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(place).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = place;
}

/// The limits of open files, which also cap the slot table of a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileLimit {
    pub soft: u64,
    pub hard: u64,
}

/// The process's current limit of open files.
pub fn file_limit() -> Result<FileLimit> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes one `rlimit` into a local that outlives the call.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) })?;
    Ok(FileLimit { soft: limit.rlim_cur, hard: limit.rlim_max })
}

/// Raises the soft limit of open files to the hard one.
pub fn raise_file_limit() -> Result<FileLimit> {
    let FileLimit { hard, .. } = file_limit()?;
    let limit = libc::rlimit { rlim_cur: hard, rlim_max: hard };
    // SAFETY: the kernel reads one `rlimit` from a local that outlives the call.
    check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) })?;
    file_limit()
}

/// The processors this thread may run on, in ascending order.
pub fn allowed_cpus() -> Result<Vec<usize>> {
    // SAFETY: `cpu_set_t` is a plain array of bits; all zero is the empty set.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    let size = size_of::<libc::cpu_set_t>();
    // SAFETY: the kernel writes at most `size` bytes into a local of that size.
    check(unsafe { libc::sched_getaffinity(0, size, &raw mut set) })?;
    // SAFETY: `CPU_ISSET` reads the bit of an index below the set's size.
    let allowed = |&cpu: &usize| unsafe { libc::CPU_ISSET(cpu, &set) };
    Ok((0..libc::CPU_SETSIZE as usize).filter(allowed).collect())
}

/// Pins the calling thread, and the threads it starts from now on, to one processor.
pub fn pin_to_cpu(cpu: usize) -> Result<()> {
    if cpu >= libc::CPU_SETSIZE as usize {
        return Err(Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: `cpu_set_t` is a plain array of bits; all zero is the empty set.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    // SAFETY: `cpu` was checked to be an index below the set's size.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // SAFETY: the kernel reads one set from a local that outlives the call.
    check(unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) })
}

/// Has the kernel back this process's memory with small pages only. With a heap per thread, each
/// touched huge page holds 2 MiB of which a small shard uses a fraction.
pub fn avoid_huge_pages() -> Result<()> {
    // SAFETY: takes no pointers.
    check(unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) })
}

/// How a listening socket, and every connection accepted from it, is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenOptions {
    /// Connections the kernel completes ahead of our accepts; capped by `net.core.somaxconn`.
    pub backlog: i32,
    /// Silence after which the kernel probes a peer.
    pub keepalive: Option<Duration>,
    /// Several shards listen on the same address, the kernel spreads connections over them.
    pub reuse_port: bool,
}

impl Default for ListenOptions {
    fn default() -> Self {
        Self { backlog: 4096, keepalive: Some(Duration::from_secs(60)), reuse_port: true }
    }
}

/// A listening socket. What is set here is inherited by the connections: direct descriptors have
/// no `setsockopt` on older kernels, and asking once is cheaper.
pub fn listen(address: SocketAddr, options: ListenOptions) -> Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if options.reuse_port {
        socket.set_reuse_port(true)?;
    }
    socket.set_tcp_nodelay(true)?;
    if let Some(idle) = options.keepalive {
        socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(idle))?;
    }
    socket.bind(&address.into())?;
    socket.listen(options.backlog)?;
    Ok(socket)
}

/// A socket to be given to [`crate::io::Dial::dial`]: non-blocking, without delay, bound to
/// `source` if one is given, at a port that the kernel chooses when it is connected, so that ports
/// are unique per destination and not per machine.
pub fn dialer(to: SocketAddr, source: Option<IpAddr>) -> Result<OwnedFd> {
    let kind = Type::STREAM.nonblocking();
    let socket = Socket::new(Domain::for_address(to), kind, Some(Protocol::TCP))?;
    socket.set_tcp_nodelay(true)?;
    if let Some(source) = source {
        let (on, fd) = (1_i32, socket.as_raw_fd());
        let (level, option) = (libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT);
        let size = size_of::<i32>() as libc::socklen_t;
        // SAFETY: the kernel reads `size` bytes from a local that outlives the call.
        let set = unsafe { libc::setsockopt(fd, level, option, (&raw const on).cast(), size) };
        check(set)?;
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    Ok(socket.into())
}

/// Wakes one engine's wait from any thread. Cheap to clone; wake-ups before a wait are not lost.
#[derive(Clone, Debug)]
pub struct Waker(Arc<File>);

impl Waker {
    /// Makes the engine's current or next wait return.
    pub fn wake(&self) {
        // An eventfd refuses only when 2^64 wake-ups are pending, and then one is pending.
        let _ = (&*self.0).write(&1_u64.to_ne_bytes());
    }
}

/// A fresh eventfd: the end the engine listens to, and the waker that writes it.
pub(crate) fn waker() -> Result<(Arc<File>, Waker)> {
    // SAFETY: takes no pointers.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
    check(fd)?;
    // SAFETY: the descriptor was just created and nobody else owns it.
    let file = Arc::new(File::from(unsafe { OwnedFd::from_raw_fd(fd) }));
    Ok((Arc::clone(&file), Waker(file)))
}

/// Bytes of the socket's queue that the peer has not acknowledged; `None` where the kernel cannot
/// tell.
pub(crate) fn unsent(socket: BorrowedFd<'_>) -> Option<u32> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: SIOCOUTQ, which is TIOCOUTQ, writes one int into a local that outlives the call.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) }).ok()?;
    u32::try_from(bytes).ok()
}

/// A message header without address, pieces or control data.
pub(crate) fn empty_msghdr() -> libc::msghdr {
    // SAFETY: `msghdr` is plain pointers and integers; null and zero are valid and mean "none".
    unsafe { mem::zeroed() }
}

fn check(result: libc::c_int) -> Result<()> {
    if result < 0 { Err(Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn connections_inherit_what_the_listener_was_given() {
        let any = "127.0.0.1:0".parse().expect("an address");
        let listener = listen(any, ListenOptions::default()).expect("a loopback listener");
        let address = listener.local_addr().expect("bound").as_socket().expect("an address");
        let second = listen(address, ListenOptions::default()).expect("the port is shared");
        drop(second);
        let _client = TcpStream::connect(address).expect("connected");
        let (accepted, _) = listener.accept().expect("accepted");
        assert!(accepted.tcp_nodelay().expect("an option"));
        assert!(accepted.keepalive().expect("an option"));
        assert_eq!(accepted.tcp_keepalive_time().expect("an option"), Duration::from_secs(60));
    }

    #[test]
    fn a_pinned_thread_may_run_on_its_processor_only() {
        let cpus = allowed_cpus().expect("affinity");
        let last = *cpus.last().expect("at least one");
        let pinned = std::thread::spawn(move || {
            pin_to_cpu(last).expect("an allowed processor");
            allowed_cpus().expect("affinity")
        });
        assert_eq!(pinned.join().expect("no panic"), [last]);
        assert!(pin_to_cpu(usize::MAX).is_err());
    }

    #[test]
    fn the_soft_file_limit_follows_the_hard_one() {
        let limit = raise_file_limit().expect("raising within the hard limit is allowed");
        assert_eq!(limit.soft, limit.hard);
    }
}
