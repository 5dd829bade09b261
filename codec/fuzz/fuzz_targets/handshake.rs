//! Both halves of the opening handshake: any bytes.
#![no_main]

use codec::Decoded;
use codec::ws::handshake::{client, parse_upgrade, write_accept};
use libfuzzer_sys::fuzz_target;

const KEY: [u8; 16] = [7; 16];

fuzz_target!(|data: &[u8]| {
    let _ = client::parse_response(data, KEY, Some("mqtt"));
    match parse_upgrade(data, 0, &["/", "/ws"]) {
        Ok(Decoded::Frame { value, consumed }) => {
            assert!(consumed <= data.len());
            assert!(["/", "/ws"].contains(&value.path));
            write_accept(&mut Vec::new(), value.key, None);
        }
        Ok(Decoded::Unsure) => panic!("a head has an end"),
        Ok(Decoded::NeedMore { total }) => assert!(total > data.len()),
        Err(refusal) => {
            let mut response = Vec::new();
            refusal.write(&mut response);
            assert!(response.starts_with(b"HTTP/1.1 "));
        }
    }
});
