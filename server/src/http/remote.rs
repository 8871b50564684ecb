//! From which address a request comes: the peer's, or what a trusted reverse proxy says. Not here: what is counted by it.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use axum::{
    extract::{ConnectInfo, FromRequestParts, Request, State},
    http::{HeaderMap, request::Parts},
    middleware::Next,
    response::Response,
};
use ipnet::IpNet;

use crate::app::App;

/// The header in which proxies say for whom they come, the last one last.
const FORWARDED_FOR: &str = "x-forwarded-for";

/// The address that the request comes from; empty where it is not known.
#[derive(Clone, Debug, Default)]
pub struct Remote(pub String);

impl<S: Sync> FromRequestParts<S> for Remote {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or_default())
    }
}

/// Notes where a request comes from. Runs before whatever counts by it.
pub async fn locate(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| peer.ip());
    let client = peer.map(|peer| client(peer, &app.config.trusted_proxies, request.headers()));
    request.extensions_mut().insert(Remote(client.map(|client| client.to_string()).unwrap_or_default()));
    next.run(request).await
}

/// Whom the request is for: from the last word on, each proxy is believed about the one before it while it is trusted. What
/// stands before the first one that is not can be made up by it.
fn client(peer: IpAddr, trusted: &[IpNet], headers: &HeaderMap) -> IpAddr {
    let is_trusted = |address: &IpAddr| trusted.iter().any(|network| network.contains(address));
    let mut client = peer.to_canonical();
    let words: Vec<&[u8]> =
        headers.get_all(FORWARDED_FOR).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b',')).collect();
    for word in words.into_iter().rev() {
        if !is_trusted(&client) {
            break;
        }
        let Some(before) = address(word) else { break };
        client = before;
    }
    client
}

/// An address, also with a port: `192.0.2.1`, `192.0.2.1:4711`, `[2001:db8::1]`, `[2001:db8::1]:4711`.
fn address(word: &[u8]) -> Option<IpAddr> {
    let word = std::str::from_utf8(word).ok()?.trim();
    let bare = word.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(word);
    let found = bare.parse().or_else(|_| word.parse::<SocketAddr>().map(|address| address.ip()));
    found.ok().map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(peer: &str, trusted: &[&str], forwarded: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append(FORWARDED_FOR, value.parse().unwrap());
        }
        let trusted: Vec<IpNet> = trusted.iter().map(|network| network.parse().unwrap()).collect();
        client(peer.parse().unwrap(), &trusted, &headers).to_string()
    }

    #[test]
    fn a_stranger_s_word_about_where_they_come_from_counts_for_nothing() {
        assert_eq!(seen("203.0.113.9", &[], &["192.0.2.1"]), "203.0.113.9");
        assert_eq!(seen("203.0.113.9", &["10.0.0.0/8"], &["10.0.0.1, 192.0.2.1"]), "203.0.113.9");
        assert_eq!(
            seen("::ffff:10.0.0.1", &["10.0.0.0/8"], &["192.0.2.1"]),
            "192.0.2.1",
            "an IPv4 peer of an IPv6 socket"
        );
    }

    #[test]
    fn behind_a_trusted_proxy_the_last_address_that_is_none_counts() {
        let trusted = ["10.0.0.0/8", "2001:db8:1::/48"];
        assert_eq!(seen("10.0.0.1", &trusted, &["192.0.2.1"]), "192.0.2.1");
        // What the client itself sent along stands before what the proxy added.
        assert_eq!(seen("10.0.0.1", &trusted, &["127.0.0.1, 192.0.2.1"]), "192.0.2.1");
        assert_eq!(seen("10.0.0.1", &trusted, &["127.0.0.1", "192.0.2.1, 10.0.0.2"]), "192.0.2.1");
        assert_eq!(seen("2001:db8:1::7", &trusted, &["[2001:db8:2::9]:4711"]), "2001:db8:2::9");
        assert_eq!(seen("10.0.0.1", &trusted, &["192.0.2.1:80"]), "192.0.2.1");
        for nonsense in ["", "unknown", "1.2.3", "192.0.2.1, <script>"] {
            assert_eq!(seen("10.0.0.1", &trusted, &[nonsense]), "10.0.0.1", "{nonsense}");
        }
        assert_eq!(seen("10.0.0.1", &trusted, &[]), "10.0.0.1");
    }
}
