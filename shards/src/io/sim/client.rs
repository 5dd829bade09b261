//! The clients' side: what a script may do with its end of a connection.

use std::net::{Ipv4Addr, SocketAddr};

use super::SimNet;
use super::net::Event;
use super::socket::{ClientId, Segment, Socket};
use crate::io::ListenerIndex;

impl SimNet {
    /// Connects to a listener of one of the shards that are up; which one, the seed decides. If
    /// none is up the connection is refused: [`Self::client_was_reset`] becomes true.
    pub fn connect(&self, listener: ListenerIndex) -> ClientId {
        let id = self.0.borrow().sockets.len() as u32;
        let [_, a, b, c] = id.to_be_bytes();
        self.connect_from(listener, SocketAddr::from((Ipv4Addr::new(10, a, b, c), 40_000)))
    }

    /// The same from an address of the caller's choice.
    pub fn connect_from(&self, listener: ListenerIndex, peer: SocketAddr) -> ClientId {
        let mut net = self.0.borrow_mut();
        let id = ClientId(net.sockets.len() as u32);
        let shard = net.pick_shard(listener);
        net.sockets.push(Socket::new(shard, listener, peer));
        net.travel(Event::Dial(id));
        id
    }

    /// Sends bytes. A connection that has ended swallows them.
    pub fn client_send(&self, id: ClientId, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.client_push(id, Segment::Bytes(bytes.to_vec()));
        }
    }

    /// Closes the client's end. Bytes that it has not read make the close a reset.
    pub fn client_close(&self, id: ClientId) {
        let unread = !self.0.borrow_mut().socket(id).client.arrived.is_empty();
        self.client_push(id, if unread { Segment::Reset } else { Segment::Fin });
        self.0.borrow_mut().socket(id).client.closed = true;
    }

    /// Ends the connection with a reset, after what was sent before.
    pub fn client_reset(&self, id: ClientId) {
        self.client_push(id, Segment::Reset);
        self.0.borrow_mut().socket(id).client.closed = true;
    }

    /// All bytes that have arrived since the last call; none while frozen.
    pub fn client_recv(&self, id: ClientId) -> Vec<u8> {
        let mut net = self.0.borrow_mut();
        let socket = net.socket(id);
        socket.client.touched = false;
        if socket.client.frozen {
            return Vec::new();
        }
        let bytes = std::mem::take(&mut socket.client.arrived);
        if !bytes.is_empty() && (!socket.unacked.is_empty() || socket.fin_sent) {
            net.travel(Event::Pull(id));
        }
        bytes
    }

    /// The gateway has closed, and everything before that has been received.
    pub fn client_eof(&self, id: ClientId) -> bool {
        let mut net = self.0.borrow_mut();
        let client = &net.socket(id).client;
        client.eof && client.arrived.is_empty() && !client.frozen
    }

    /// The connection was refused, or reset by the gateway or the network. What had arrived
    /// before can still be received.
    pub fn client_was_reset(&self, id: ClientId) -> bool {
        let mut net = self.0.borrow_mut();
        let client = &net.socket(id).client;
        client.reset && !client.frozen
    }

    /// Stops reading: the client's buffer fills, then the gateway's, then sends no longer
    /// complete.
    pub fn client_freeze(&self, id: ClientId) {
        self.0.borrow_mut().socket(id).client.frozen = true;
    }

    pub fn client_unfreeze(&self, id: ClientId) {
        let mut net = self.0.borrow_mut();
        net.socket(id).client.frozen = false;
        net.touch(id);
    }

    /// A client for which something has arrived or ended since this named it last; `None` when
    /// there is none left. [`Self::client_recv`] makes it eligible again.
    pub fn touched_client(&self) -> Option<ClientId> {
        let mut net = self.0.borrow_mut();
        loop {
            let id = net.touched.pop_front()?;
            let client = &mut net.socket(id).client;
            client.touched = false;
            if !client.closed {
                return Some(id);
            }
        }
    }

    fn client_push(&self, id: ClientId, segment: Segment) {
        let mut net = self.0.borrow_mut();
        let socket = net.socket(id);
        if !socket.client.closed && !socket.client.reset && !socket.cut {
            socket.wire.push_back(segment);
            net.travel(Event::Wire(id));
        }
    }
}
