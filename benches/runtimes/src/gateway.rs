//! The relay on an engine of the gateway: nothing but completions and trait `Io`.
//!
//! Owns: connections and what waits for them. Never: knows which engine.

use std::error::Error;

use shards::io::sys::{self, ListenOptions};
use shards::io::{Completion, Engine, Io, Piece, SendBatch, Sizes, Slot, Wait};

use crate::{BACKLOG, Hello, QUEUE, READ, Users, WELCOME, address};

/// Relays until the process is ended.
pub fn run<E: Engine>() -> Result<(), Box<dyn Error>> {
    let options = ListenOptions { backlog: BACKLOG, keepalive: None, reuse_port: false };
    let listener = sys::listen(address()?, options)?;
    println!("listening on {}", listener.local_addr()?.as_socket().ok_or("not an IP address")?);
    let sizes = Sizes { buffer_size: READ as u32, ..Sizes::default() };
    let io = E::open(sizes, vec![listener.into()])?;
    Relay { io, conns: Vec::new(), users: Users::new(), spare: Vec::new() }.run()
}

struct Relay<I> {
    io: I,
    /// By slot index.
    conns: Vec<Conn>,
    users: Users<Slot>,
    /// Batches that were sent.
    spare: Vec<SendBatch>,
}

#[derive(Default)]
struct Conn {
    hello: Hello,
    /// In the table of users.
    known: bool,
    sending: bool,
    queue: Vec<u8>,
}

impl<I: Io> Relay<I> {
    fn run(&mut self) -> ! {
        self.io.set_accepting(true);
        self.conns.reserve_exact(self.io.capacity() as usize);
        loop {
            self.io.wait(Wait::Until(self.io.now().plus_ms(LONGEST_MS)));
            while let Some(completion) = self.io.next() {
                self.completion(completion);
            }
        }
    }

    fn completion(&mut self, completion: Completion<I::Buf>) {
        match completion {
            Completion::Accepted { slot, .. } => {
                let index = slot.index as usize;
                if self.conns.len() <= index {
                    self.conns.resize_with(index + 1, Conn::default);
                }
                self.conns[index] = Conn::default();
                self.io.receive(slot);
            }
            Completion::Received { slot, buf } => {
                match self.received(slot, &buf) {
                    Some(()) => self.io.receive(slot),
                    None => self.close(slot),
                }
                self.io.recycle(buf);
            }
            Completion::Sent { slot, batch: Some(batch), .. } => self.sent(slot, batch),
            Completion::ReceiveEnded { slot, .. } | Completion::SendFailed { slot, .. } => {
                self.close(slot);
            }
            _ => {}
        }
    }

    /// `None`: the connection has to go.
    fn received(&mut self, slot: Slot, input: &[u8]) -> Option<()> {
        let conn = &mut self.conns[slot.index as usize];
        let mut input = input;
        if !conn.known {
            input = conn.hello.take(input);
            let Some(number) = conn.hello.number() else { return Some(()) };
            conn.known = self.users.log_in(number, slot);
            conn.known.then(|| self.say(slot, WELCOME))?;
        }
        if !input.is_empty() {
            let number = self.conns[slot.index as usize].hello.number()?;
            self.say(self.users.partner(number)?, input);
        }
        Some(())
    }

    fn say(&mut self, to: Slot, bytes: &[u8]) {
        let conn = &mut self.conns[to.index as usize];
        if !conn.sending {
            conn.sending = true;
            let mut batch = self.spare.pop().unwrap_or_default();
            match batch.pieces.first_mut() {
                Some(Piece::Owned(piece)) => piece.extend_from_slice(bytes),
                _ => batch.pieces.push(Piece::Owned(bytes.to_vec())),
            }
            self.io.send(to, batch);
        } else if conn.queue.len() + bytes.len() <= QUEUE {
            conn.queue.extend_from_slice(bytes);
        } else {
            self.close(to);
        }
    }

    /// Goes on with what came meanwhile, or keeps the batch for the next.
    fn sent(&mut self, slot: Slot, mut batch: SendBatch) {
        let conn = &mut self.conns[slot.index as usize];
        conn.sending = !conn.queue.is_empty();
        if conn.sending {
            batch.pieces[0] = Piece::Owned(std::mem::take(&mut conn.queue));
            self.io.send(slot, batch);
        } else if self.spare.len() < SPARES
            && let Piece::Owned(piece) = &mut batch.pieces[0]
            && piece.capacity() <= READ
        {
            piece.clear();
            self.spare.push(batch);
        }
    }

    /// The slot is used again only when nothing more can complete on it.
    fn close(&mut self, slot: Slot) {
        let conn = &mut self.conns[slot.index as usize];
        if std::mem::take(&mut conn.known) {
            conn.hello.number().into_iter().for_each(|number| self.users.log_out(number));
        }
        self.io.close(slot);
    }
}

/// The most one wait sleeps.
const LONGEST_MS: u64 = 1_000;
/// Batches kept.
const SPARES: usize = 1024;
