//! What the keys of each protocol mean for its codec and for its logins.
//!
//! Owns: these translations, row by row. Never: rules between keys.

use codec::{ProtocolId, binary, im_demo, simple_im, simple_text};

use super::keys::{
    AuthMode, ConnectLayout, DupPolicy, GroupPush, PasswordRule, PayloadLen, ProtocolAuth, Raw,
    TextDialect,
};
use super::{Address, Listener, Realm};

/// `[protocol.*]` as the codecs want it.
pub(super) fn settings(raw: &Raw) -> codec::Settings {
    codec::Settings {
        binary: binary(raw),
        binary_publish: binary::door::Settings { max_payload: raw.binary_publish.max_payload },
        simple_text: simple_text::Settings {
            dialect: match raw.simple_text.dialect {
                TextDialect::Auto => None,
                TextDialect::Source => Some(simple_text::Dialect::Source),
                TextDialect::Doc => Some(simple_text::Dialect::Doc),
            },
            max_chars: raw.simple_text.max_chars,
            offline: raw.simple_text.offline,
        },
        im_demo: im_demo(raw),
        simple_im: simple_im::Settings {
            gap_ms: raw.simple_im.gap_ms,
            devices: raw.simple_im.devices.iter().map(|name| name.as_bytes().into()).collect(),
            group_as_message: raw.simple_im.group_as_message,
            c0_login: raw.simple_im.phone_login,
            ..simple_im::Settings::default()
        },
    }
}

fn binary(raw: &Raw) -> binary::Settings {
    binary::Settings {
        connect_layout: match raw.binary.connect_layout {
            ConnectLayout::Auto => binary::ConnectLayout::Auto,
            ConnectLayout::Doc => binary::ConnectLayout::Doc,
            ConnectLayout::Vhost => binary::ConnectLayout::Vhost,
        },
        payload_len: match raw.binary.payload_len {
            PayloadLen::Auto => binary::PayloadLen::Auto,
            PayloadLen::Strict => binary::PayloadLen::Strict,
        },
        max_payload: raw.binary.max_payload,
        group_push: match raw.binary.group_push {
            GroupPush::Auto => binary::GroupPush::Auto,
            GroupPush::Publish => binary::GroupPush::Publish,
            GroupPush::GroupPublish => binary::GroupPush::GroupPublish,
        },
        vhosts: raw.binary.vhosts.iter().map(|name| name.as_bytes().into()).collect(),
        keeps_older: raw.binary.dup_policy == DupPolicy::RejectNew,
        max_invalid: raw.binary.max_invalid,
        require_push_ack: raw.binary.require_push_ack,
    }
}

fn im_demo(raw: &Raw) -> im_demo::Settings {
    let keys = &raw.im_demo;
    im_demo::Settings {
        max_frame: keys.max_frame,
        offline_default: keys.offline_default,
        default_to: Some(keys.default_to.as_bytes()).filter(|to| !to.is_empty()).map(Box::from),
        list_in_reason: keys.list_in_reason,
        default_tenant: keys.default_tenant,
    }
}

/// How logins of a protocol are judged where it is spoken on such an address.
pub(super) fn realm(raw: &Raw, protocol: ProtocolId, loopback: bool) -> Realm {
    let own = match protocol {
        ProtocolId::Binary => raw.binary.auth,
        ProtocolId::BinaryPublish => ProtocolAuth::Inherit,
        ProtocolId::SimpleText => raw.simple_text.auth,
        ProtocolId::ImDemo => raw.im_demo.auth,
        ProtocolId::SimpleIm => raw.simple_im.auth,
    };
    let mode = match own {
        ProtocolAuth::Inherit => raw.auth.mode,
        ProtocolAuth::Local => AuthMode::Local,
        ProtocolAuth::Http => AuthMode::Http,
        ProtocolAuth::Open => AuthMode::Open,
    };
    let password_optional = protocol == ProtocolId::SimpleText
        && mode == AuthMode::Local
        && match raw.simple_text.password {
            PasswordRule::Required => false,
            PasswordRule::Optional => true,
            PasswordRule::Loopback => loopback,
        };
    Realm { mode, password_optional, tokens: protocol == ProtocolId::SimpleIm }
}

/// The first listener whose clients log in over HTTP.
pub(super) fn with_http_login(listeners: &[Listener]) -> Option<&Listener> {
    listeners.iter().find(|listener| listener.protocol == ProtocolId::SimpleIm)
}

/// Where clients of the HTTP login are sent; `None`: nobody listens there.
pub(super) fn advertised(raw: &Raw, listeners: &[Listener]) -> Option<Address> {
    let own = with_http_login(listeners)?;
    let address = match raw.simple_im.advertise.rsplit_once(':') {
        Some((host, port)) => (host.to_owned(), port.parse().ok()?),
        None => (own.bind.ip().to_string(), own.bind.port()),
    };
    Some(Address { host: address.0, port: address.1 })
}
