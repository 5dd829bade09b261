//! Every engine against the real kernel: loopback sockets, `std::net` clients, no sleeps.

mod accepting;
mod connections;
mod dialing;
mod harness;
mod rings;
