//! What one connection says, for relays with a task per connection. Never: reads or writes.

use std::cell::RefCell;
use std::rc::Rc;

use crate::{Hello, Users, WELCOME};

/// A connection that can be told something.
pub trait Conn {
    /// Sends, or queues.
    fn say(self: &Rc<Self>, bytes: &[u8]);

    fn close(&self);
}

/// A connection and who it is.
pub struct Session<C> {
    conn: Rc<C>,
    hello: Hello,
    known: bool,
}

impl<C: Conn> Session<C> {
    pub fn new(conn: Rc<C>) -> Self {
        Self { conn, hello: Hello::default(), known: false }
    }

    /// `None`: the connection has to go.
    pub fn received(&mut self, input: &[u8], users: &RefCell<Users<Rc<C>>>) -> Option<()> {
        let mut input = input;
        if !self.known {
            input = self.hello.take(input);
            let Some(number) = self.hello.number() else { return Some(()) };
            self.known = users.borrow_mut().log_in(number, Rc::clone(&self.conn));
            self.known.then(|| self.conn.say(WELCOME))?;
        }
        if !input.is_empty() {
            let partner = users.borrow().partner(self.hello.number()?)?;
            partner.say(input);
        }
        Some(())
    }

    pub fn end(self, users: &RefCell<Users<Rc<C>>>) {
        if self.known {
            self.hello.number().into_iter().for_each(|number| users.borrow_mut().log_out(number));
        }
        self.conn.close();
    }
}
