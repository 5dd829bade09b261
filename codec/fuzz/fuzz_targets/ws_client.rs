//! Frames to a client: any bytes, cut anywhere.
#![no_main]

use codec::ws::Role;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| codec_fuzz::ws_stream(Role::Client, data));
