//! The relay on glommio: a task per connection that reads into one shared buffer, and writes to the
//! partner at once; a task that drains the queue only while there is one.
#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::error::Error;
use std::future::poll_fn;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use futures_lite::{AsyncRead, AsyncWrite};
use glommio::net::{TcpListener, TcpStream};
use glommio::{LocalExecutorBuilder, Placement};
use nix::sys::socket::{Shutdown, shutdown};
use runtimes::session::{self, Session};
use runtimes::{QUEUE, READ, Users, address};

struct Relay {
    users: RefCell<Users<Rc<Conn>>>,
    buffer: RefCell<[u8; READ]>,
}

struct Conn {
    stream: RefCell<TcpStream>,
    queue: RefCell<Vec<u8>>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let address = address()?;
    let executor = LocalExecutorBuilder::new(Placement::Unbound).ring_depth(RING_DEPTH).make()?;
    executor.run(async {
        let listener = TcpListener::bind(address)?;
        println!("listening on {}", listener.local_addr()?);
        let (users, buffer) = (RefCell::new(Users::new()), RefCell::new([0; READ]));
        let relay = Rc::new(Relay { users, buffer });
        loop {
            let stream = listener.accept().await?;
            stream.set_nodelay(true)?;
            glommio::spawn_local(serve(stream, Rc::clone(&relay))).detach();
        }
    })
}

async fn serve(stream: TcpStream, relay: Rc<Relay>) {
    let (stream, queue) = (RefCell::new(stream), RefCell::default());
    let conn = Rc::new(Conn { stream, queue });
    let mut session = Session::new(Rc::clone(&conn));
    let mut read = |cx: &mut Context<'_>| {
        let mut buffer = relay.buffer.borrow_mut();
        let mut stream = conn.stream.borrow_mut();
        let count = ready!(Pin::new(&mut *stream).poll_read(cx, &mut *buffer));
        drop(stream);
        let Ok(count @ 1..) = count else { return Poll::Ready(None) };
        Poll::Ready(session.received(&buffer[..count], &relay.users))
    };
    while poll_fn(&mut read).await.is_some() {}
    session.end(&relay.users);
}

impl Conn {
    fn poll_write(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut *self.stream.borrow_mut()).poll_write(cx, bytes)
    }
}

impl session::Conn for Conn {
    fn say(self: &Rc<Self>, bytes: &[u8]) {
        let mut queue = self.queue.borrow_mut();
        let waits = !queue.is_empty();
        let mut nobody = Context::from_waker(Waker::noop());
        let sent = if waits { Poll::Pending } else { self.poll_write(&mut nobody, bytes) };
        let sent = match sent {
            Poll::Ready(Ok(sent)) => sent,
            Poll::Ready(Err(_)) => return self.close(),
            Poll::Pending => 0,
        };
        if queue.len() + bytes.len() - sent > QUEUE {
            return self.close();
        }
        queue.extend_from_slice(&bytes[sent..]);
        let starts = !waits && !queue.is_empty();
        // The task runs at once, and borrows the queue.
        drop(queue);
        if starts {
            glommio::spawn_local(drain(Rc::clone(self))).detach();
        }
    }

    /// Ends the reads and writes under way, and with them the tasks.
    fn close(&self) {
        // A socket that is not connected any more needs no ending.
        let _ = shutdown(self.stream.borrow().as_raw_fd(), Shutdown::Both);
    }
}

/// Goes on with what the socket had no room for.
async fn drain(conn: Rc<Conn>) {
    let mut write = |cx: &mut Context<'_>| {
        let mut queue = conn.queue.borrow_mut();
        let sent = ready!(conn.poll_write(cx, &queue));
        queue.drain(..sent.as_ref().copied().unwrap_or(0));
        Poll::Ready(sent.is_ok() && !queue.is_empty())
    };
    while poll_fn(&mut write).await {}
}

/// Entries of each of the executor's rings.
const RING_DEPTH: usize = 1024;
