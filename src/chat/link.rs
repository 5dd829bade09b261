//! The connection of the chat client: one thread that owns the socket.
//!
//! Owns: connecting, reconnecting with back-off, moving packets between the socket and the
//! [`Session`]. Never: the terminal; it reports what happens.

use std::net::{TcpStream, ToSocketAddrs as _};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use codec::MessageId;
use tungstenite::protocol::WebSocketConfig;
use tungstenite::{Error, Message, WebSocket};

use super::session::{Event, NotTaken, Output, Session, To};

/// From the terminal.
#[derive(Debug)]
pub(crate) enum Order {
    Say {
        to: To,
        id: MessageId,
        body: Vec<u8>,
        label: String,
    },
    /// Say goodbye once logged in with everything safe, or after the grace time.
    Quit,
}

/// To the terminal.
#[derive(Debug)]
pub(crate) enum Report {
    Session(Event),
    /// The connection is gone or could not be made; the next try comes after the pause.
    Lost {
        reason: String,
        pause: Duration,
    },
    NotTaken {
        label: String,
        why: NotTaken,
    },
    /// The thread has ended; so many messages were never acknowledged.
    Ended {
        ever_accepted: bool,
        unsafe_count: usize,
    },
}

/// Where to connect: the parts of a `ws://` URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Url {
    text: String,
    host: String,
    port: u16,
}

impl Url {
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| format!("{text:?} {why}; use ws://127.0.0.1:9095/ws");
        let uri: tungstenite::http::Uri = text.parse().map_err(|_| wrong("is no URL"))?;
        if uri.scheme_str() != Some("ws") {
            return Err(wrong("is not a ws:// URL"));
        }
        let host = uri.host().ok_or_else(|| wrong("names no host"))?;
        let host = host.trim_matches(['[', ']']).to_owned();
        Ok(Self { text: text.to_owned(), host, port: uri.port_u16().unwrap_or(80) })
    }
}

type Socket = WebSocket<TcpStream>;

/// Runs until told to quit, or until the gateway refuses for good.
pub(crate) fn run(
    url: &Url,
    mut session: Session,
    orders: &Receiver<Order>,
    reports: &dyn Fn(Report),
) {
    let mut link = Link { session: &mut session, orders, reports, quit_at: None };
    let mut pause = FIRST_PAUSE;
    loop {
        let reason = match connect(url).and_then(|mut socket| link.login(&mut socket, &mut pause)) {
            Ok(()) => break,
            Err(reason) => reason,
        };
        link.session.lost();
        link.report(Report::Lost { reason, pause });
        if !link.wait(pause) {
            break;
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    let ever_accepted = link.session.ever_accepted();
    link.report(Report::Ended { ever_accepted, unsafe_count: link.session.unsafe_count() });
}

struct Link<'a> {
    session: &'a mut Session,
    orders: &'a Receiver<Order>,
    reports: &'a dyn Fn(Report),
    /// Set by [`Order::Quit`]: when to leave even if messages are not safe.
    quit_at: Option<Instant>,
}

impl Link<'_> {
    /// One connection, from the login to its end: `Ok` when it ended for good, by the terminal's or
    /// the gateway's word, else why it was lost. A successful login resets the back-off.
    fn login(&mut self, socket: &mut Socket, pause: &mut Duration) -> Result<(), String> {
        let connect = self.session.connected().map_err(|error| error.to_string())?;
        send(socket, connect)?;
        loop {
            if let Some(packet) = receive(socket)? {
                let output = self.session.packet(&packet, Instant::now());
                if output.events.iter().any(|event| matches!(event, Event::Accepted { .. })) {
                    *pause = FIRST_PAUSE;
                }
                if self.deliver(Some(&mut *socket), output)? {
                    return Ok(());
                }
            }
            let output = self.session.tick(Instant::now());
            self.deliver(Some(&mut *socket), output)?;
            self.take_orders(Some(&mut *socket))?;
            if self.done() {
                goodbye(socket);
                return Ok(());
            }
        }
    }

    /// Sends packets and reports events. `true`: the gateway's last word was among them.
    fn deliver(&mut self, socket: Option<&mut Socket>, output: Output) -> Result<bool, String> {
        if let Some(socket) = socket {
            for packet in output.packets {
                send(socket, packet)?;
            }
        }
        let mut last = false;
        for event in output.events {
            last |= matches!(event, Event::Final(_));
            self.report(Report::Session(event));
        }
        Ok(last)
    }

    fn take_orders(&mut self, mut socket: Option<&mut Socket>) -> Result<(), String> {
        loop {
            match self.orders.try_recv() {
                Ok(order) => {
                    let output = self.order(order);
                    self.deliver(socket.as_deref_mut(), output)?;
                }
                Err(TryRecvError::Empty) => return Ok(()),
                Err(TryRecvError::Disconnected) => {
                    self.quit_soon();
                    return Ok(());
                }
            }
        }
    }

    fn order(&mut self, order: Order) -> Output {
        match order {
            Order::Quit => {
                self.quit_soon();
                Output::default()
            }
            Order::Say { to, id, body, label } => {
                match self.session.say(to, id, &body, &label, Instant::now()) {
                    Ok(output) => output,
                    Err(why) => {
                        self.report(Report::NotTaken { label, why });
                        Output::default()
                    }
                }
            }
        }
    }

    fn quit_soon(&mut self) {
        self.quit_at.get_or_insert_with(|| Instant::now() + QUIT_GRACE);
    }

    /// Told to quit, and logged in with everything safe, or the grace time is over.
    fn done(&self) -> bool {
        let settled = self.session.ever_accepted() && self.session.unsafe_count() == 0;
        self.quit_at.is_some_and(|at| settled || Instant::now() >= at)
    }

    /// Waits out the back-off, taking orders meanwhile. `false`: told to quit.
    fn wait(&mut self, pause: Duration) -> bool {
        let until = Instant::now() + pause;
        while Instant::now() < until {
            // Without a socket nothing is sent, so nothing can fail.
            let _ = self.take_orders(None);
            if self.done() {
                return false;
            }
            std::thread::sleep(TURN);
        }
        true
    }

    fn report(&self, report: Report) {
        (self.reports)(report);
    }
}

fn connect(url: &Url) -> Result<Socket, String> {
    let addresses = (url.host.as_str(), url.port).to_socket_addrs();
    let addresses = addresses.map_err(|error| format!("{}: {error}", url.host))?;
    let mut failure = format!("{}: no address", url.host);
    for address in addresses {
        match TcpStream::connect_timeout(&address, CONNECT_TIME) {
            Ok(stream) => return upgrade(url, stream),
            Err(error) => failure = format!("{address}: {error}"),
        }
    }
    Err(failure)
}

fn upgrade(url: &Url, stream: TcpStream) -> Result<Socket, String> {
    let prepared = stream
        .set_nodelay(true)
        .and_then(|()| stream.set_read_timeout(Some(CONNECT_TIME)))
        .and_then(|()| stream.set_write_timeout(Some(CONNECT_TIME)));
    prepared.map_err(|error| error.to_string())?;
    let config = WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_MAX))
        .max_frame_size(Some(MESSAGE_MAX));
    let (socket, _) =
        tungstenite::client::client_with_config(url.text.as_str(), stream, Some(config))
            .map_err(|error| format!("no WebSocket at {}: {error}", url.text))?;
    socket.get_ref().set_read_timeout(Some(TURN)).map_err(|error| error.to_string())?;
    Ok(socket)
}

/// Waits one turn for a packet.
fn receive(socket: &mut Socket) -> Result<Option<Vec<u8>>, String> {
    match socket.read() {
        Ok(Message::Binary(packet)) => Ok(Some(packet.to_vec())),
        Ok(Message::Close(Some(frame))) => Err(format!("closed by the gateway ({})", frame.code)),
        Ok(Message::Close(None)) => Err("closed by the gateway".to_owned()),
        Ok(_) => Ok(None),
        Err(Error::Io(error))
            if matches!(
                error.kind(),
                std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error.to_string()),
    }
}

fn send(socket: &mut Socket, packet: Vec<u8>) -> Result<(), String> {
    socket.send(Message::Binary(packet.into())).map_err(|error| error.to_string())
}

fn goodbye(socket: &mut Socket) {
    let mut packet = Vec::new();
    codec::binary::client::disconnect(&mut packet);
    // We are leaving; that the gateway hears it is a courtesy.
    let _ = send(socket, packet);
    let _ = socket.close(None);
    let _ = socket.flush();
}

/// How long a read waits before the terminal gets its turn: what a typed line waits at most.
const TURN: Duration = Duration::from_millis(20);
const CONNECT_TIME: Duration = Duration::from_secs(10);
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// After /quit or the end of the input, for answers that are on their way.
const QUIT_GRACE: Duration = Duration::from_secs(5);
/// The largest packet of the protocol is below 64 KiB + 64 B.
const MESSAGE_MAX: usize = 128 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ws_urls_are_taken() {
        let url = Url::parse("ws://127.0.0.1:9095/ws").expect("a URL");
        assert_eq!((url.host.as_str(), url.port), ("127.0.0.1", 9095));
        let url = Url::parse("ws://[::1]/ws").expect("a URL");
        assert_eq!((url.host.as_str(), url.port), ("::1", 80));
        for wrong in ["", "http://a/", "wss://a/", "ws://", "127.0.0.1:9095"] {
            assert!(Url::parse(wrong).is_err(), "{wrong}");
        }
    }
}
