//! The relay on plain epoll: edge-triggered, one shared buffer, no runtime.
#![forbid(unsafe_code)]

use std::error::Error;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsRawFd;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use runtimes::{BACKLOG, Hello, QUEUE, READ, Users, WELCOME, address};
use shards::io::sys::{self, ListenOptions};

fn main() -> Result<(), Box<dyn Error>> {
    let options = ListenOptions { backlog: BACKLOG, keepalive: None, reuse_port: false };
    let listener = sys::listen(address()?, options)?;
    listener.set_nonblocking(true)?;
    println!("listening on {}", listener.local_addr()?.as_socket().ok_or("not an IP address")?);
    let mut listener = TcpListener::from_std(listener.into());
    let poll = Poll::new()?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let users = Users::new();
    let mut conns = Vec::new();
    conns.reserve_exact(sys::file_limit()?.soft as usize);
    Relay { poll, listener, conns, users }.run()
}

struct Relay {
    poll: Poll,
    listener: TcpListener,
    /// By descriptor.
    conns: Vec<Option<Conn>>,
    users: Users<usize>,
}

struct Conn {
    stream: TcpStream,
    hello: Hello,
    /// In the table of users.
    known: bool,
    queue: Vec<u8>,
}

impl Relay {
    fn run(&mut self) -> Result<(), Box<dyn Error>> {
        let mut events = Events::with_capacity(1024);
        let mut buffer = [0; READ];
        loop {
            match self.poll.poll(&mut events, None) {
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error.into()),
                _ => {}
            }
            for event in &events {
                if event.token() == LISTENER {
                    self.accept()?;
                    continue;
                }
                let Token(at) = event.token();
                if event.is_writable() {
                    self.flush(at);
                }
                if event.is_readable()
                    && self.read(at, &mut buffer, event.is_read_closed()).is_none()
                {
                    self.close(at);
                }
            }
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            let mut stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            let at = stream.as_raw_fd() as usize;
            let both = Interest::READABLE | Interest::WRITABLE;
            self.poll.registry().register(&mut stream, Token(at), both)?;
            if self.conns.len() <= at {
                self.conns.resize_with(at + 1, || None);
            }
            let conn = Conn { stream, hello: Hello::default(), known: false, queue: Vec::new() };
            self.conns[at] = Some(conn);
        }
    }

    /// Reads until the socket is empty, as an edge demands. `None`: the connection has to go.
    fn read(&mut self, at: usize, buffer: &mut [u8], until_closed: bool) -> Option<()> {
        for _ in 0..READS {
            let Some(conn) = self.conns.get_mut(at)?.as_mut() else { return Some(()) };
            match conn.stream.read(buffer) {
                Ok(0) => return None,
                Ok(count) => {
                    self.received(at, &buffer[..count])?;
                    if count < buffer.len() && !until_closed {
                        return Some(());
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Some(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return None,
            }
        }
        // Others first; registering again asks for a new edge.
        let conn = self.conns[at].as_mut()?;
        let both = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().reregister(&mut conn.stream, Token(at), both).ok()
    }

    /// `None`: the connection has to go.
    fn received(&mut self, at: usize, input: &[u8]) -> Option<()> {
        let conn = self.conns[at].as_mut()?;
        let mut input = input;
        if !conn.known {
            input = conn.hello.take(input);
            let Some(number) = conn.hello.number() else { return Some(()) };
            conn.known = self.users.log_in(number, at);
            conn.known.then(|| self.say(at, WELCOME))?;
        }
        if !input.is_empty() {
            let number = self.conns[at].as_ref()?.hello.number()?;
            self.say(self.users.partner(number)?, input);
        }
        Some(())
    }

    fn say(&mut self, to: usize, bytes: &[u8]) {
        let Some(conn) = &mut self.conns[to] else { return };
        let sent = if conn.queue.is_empty() { conn.write(bytes) } else { Ok(0) };
        match sent {
            Ok(sent) if conn.queue.len() + bytes.len() - sent <= QUEUE => {
                conn.queue.extend_from_slice(&bytes[sent..]);
            }
            _ => self.close(to),
        }
    }

    /// Goes on with what the socket had no room for.
    fn flush(&mut self, at: usize) {
        let Some(Some(conn)) = self.conns.get_mut(at) else { return };
        if conn.queue.is_empty() {
            return;
        }
        let queue = std::mem::take(&mut conn.queue);
        match conn.write(&queue) {
            Ok(sent) => conn.queue.extend_from_slice(&queue[sent..]),
            Err(_) => self.close(at),
        }
    }

    fn close(&mut self, at: usize) {
        if let Some(conn) = self.conns[at].take()
            && conn.known
        {
            conn.hello.number().into_iter().for_each(|number| self.users.log_out(number));
        }
    }
}

impl Conn {
    /// How much the socket took. All but all of it means: an edge will come.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.stream.write(bytes) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
            other => other,
        }
    }
}

const LISTENER: Token = Token(usize::MAX);
/// Reads of one connection in a row.
const READS: usize = 16;
