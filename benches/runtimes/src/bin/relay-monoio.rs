//! The relay on monoio: a task per connection with its buffer parked in a read, and a writer task
//! from the first word to it on.
#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::error::Error;
use std::future::poll_fn;
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;
use std::task::{Poll, Waker};

use monoio::io::{AsyncReadRent, AsyncWriteRentExt, OwnedWriteHalf, Splitable};
use monoio::net::{ListenerOpts, TcpListener, TcpStream};
use nix::sys::socket::{Shutdown, shutdown};
use runtimes::session::{Conn as _, Session};
use runtimes::{BACKLOG, QUEUE, READ, address};

type Users = Rc<RefCell<runtimes::Users<Rc<Conn>>>>;

struct Conn {
    fd: RawFd,
    out: RefCell<Out>,
}

/// What a connection is told.
#[derive(Default)]
struct Out {
    queue: Vec<u8>,
    /// Until the writer has it.
    half: Option<OwnedWriteHalf<TcpStream>>,
    /// Of the writer, when it has nothing to write.
    waker: Option<Waker>,
    closed: bool,
}

fn main() -> Result<(), Box<dyn Error>> {
    let address = address()?;
    let builder = monoio::RuntimeBuilder::<monoio::IoUringDriver>::new();
    builder.with_entries(ENTRIES).build()?.block_on(async {
        let options = ListenerOpts::new().backlog(BACKLOG).reuse_port(false);
        let listener = TcpListener::bind_with_config(address, &options)?;
        println!("listening on {}", listener.local_addr()?);
        let users = Rc::new(RefCell::new(runtimes::Users::new()));
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            monoio::spawn(serve(stream, Rc::clone(&users)));
        }
    })
}

async fn serve(stream: TcpStream, users: Users) {
    let fd = stream.as_raw_fd();
    let (mut stream, half) = stream.into_split();
    let out = RefCell::new(Out { half: Some(half), ..Out::default() });
    let mut session = Session::new(Rc::new(Conn { fd, out }));
    let mut buffer = Vec::with_capacity(READ);
    loop {
        let (result, filled) = stream.read(buffer).await;
        let more = matches!(result, Ok(1..));
        if !more || session.received(&filled, &users).is_none() {
            break;
        }
        buffer = filled;
    }
    session.end(&users);
}

impl runtimes::session::Conn for Conn {
    fn say(self: &Rc<Self>, bytes: &[u8]) {
        let mut out = self.out.borrow_mut();
        if out.queue.len() + bytes.len() > QUEUE {
            drop(out);
            return self.close();
        }
        out.queue.extend_from_slice(bytes);
        if let Some(waker) = out.waker.take() {
            waker.wake();
        } else if let Some(half) = out.half.take() {
            monoio::spawn(write(Rc::clone(self), half));
        }
    }

    /// Ends the reads and writes under way, and with them the tasks.
    fn close(&self) {
        let mut out = self.out.borrow_mut();
        out.closed = true;
        out.waker.take().into_iter().for_each(Waker::wake);
        // A socket that is not connected any more needs no ending.
        let _ = shutdown(self.fd, Shutdown::Both);
    }
}

/// Writes what is queued, at once what came together.
async fn write(conn: Rc<Conn>, mut half: OwnedWriteHalf<TcpStream>) {
    let mut spare = Vec::new();
    loop {
        let queued = poll_fn(|cx| {
            let mut out = conn.out.borrow_mut();
            if out.closed {
                return Poll::Ready(None);
            }
            if out.queue.is_empty() {
                out.waker = Some(cx.waker().clone());
                return Poll::Pending;
            }
            Poll::Ready(Some(std::mem::replace(&mut out.queue, std::mem::take(&mut spare))))
        });
        let Some(queued) = queued.await else { return };
        let (result, mut written) = half.write_all(queued).await;
        if result.is_err() {
            return conn.close();
        }
        written.clear();
        spare = written;
    }
}

/// The submission queue: the gateway's default.
const ENTRIES: u32 = 4096;
