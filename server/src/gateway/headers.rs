//! What changes in a message's head on its way through: the host it is for, fields that are for one
//! connection only, who asked, and the request's id.

use std::net::IpAddr;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::Authority;
use http::{Method, Request, Version};

/// The id of a request, passed on or created, in the request and in its answer.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
const MAX_REQUEST_ID_BYTES: usize = 128;

/// The host that a request is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Host {
    /// As routes name it: lower case, no port, no dot at the end.
    pub(super) name: String,
    /// As the client wrote it.
    pub(super) written: HeaderValue,
}

/// Reads the host of a request; `None` when it has none, more than one, or something else there.
pub(super) fn host_of<B>(request: &Request<B>) -> Option<Host> {
    let mut fields = request.headers().get_all(header::HOST).iter();
    let field = fields.next();
    if fields.next().is_some() {
        return None;
    }
    // RFC 9112, section 3.2.2: the authority of an absolute target overrides the field.
    let written = match request.uri().authority() {
        Some(authority) => HeaderValue::from_str(authority.as_str()).ok()?,
        None => field?.clone(),
    };
    let authority: Authority = written.to_str().ok()?.parse().ok()?;
    if authority.as_str().contains('@') {
        return None;
    }
    let host = authority.host();
    let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    (!name.is_empty()).then_some(Host { name, written })
}

/// The protocol that a request asks to change to, where we let it: not to HTTP/2, which would carry
/// further requests past the gateway's eyes.
pub(super) fn upgrade_of<B>(request: &Request<B>) -> Option<HeaderValue> {
    let headers = request.headers();
    let asked = connection_tokens(headers).any(|token| token.eq_ignore_ascii_case("upgrade"));
    let protocol = headers.get(header::UPGRADE)?;
    let name = protocol.to_str().ok()?;
    let allowed = asked
        && request.method() == Method::GET
        && request.version() == Version::HTTP_11
        && !name.split(',').any(|one| one.trim().to_ascii_lowercase().starts_with("h2"));
    allowed.then(|| protocol.clone())
}

fn connection_tokens(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
}

/// Removes the fields that are for one connection only (RFC 9110, section 7.6.1), and those that
/// `Connection` names. What frames the message or says whom it is for is not removed by name: a
/// client could make us forget it.
pub(super) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = connection_tokens(headers)
        .filter_map(|token| token.parse().ok())
        .filter(|name| *name != header::HOST && *name != header::CONTENT_LENGTH && *name != REQUEST_ID)
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in [
        header::CONNECTION,
        KEEP_ALIVE,
        PROXY_CONNECTION,
        header::PROXY_AUTHENTICATE,
        header::PROXY_AUTHORIZATION,
        header::TE,
        header::TRAILER,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
        HTTP2_SETTINGS,
    ] {
        headers.remove(name);
    }
}

/// Says to the backend who asked and for what. What an untrusted peer said about it is dropped.
pub(super) fn forward(headers: &mut HeaderMap, peer: IpAddr, host: &Host, trusted: bool) {
    let own = peer.to_canonical().to_string();
    let chain = trusted
        .then(|| {
            let values = headers.get_all(FORWARDED_FOR).iter();
            let texts: Option<Vec<&str>> = values.map(|value| value.to_str().ok()).collect();
            texts.filter(|texts| !texts.is_empty())
        })
        .flatten()
        .map(|texts| format!("{}, {own}", texts.join(", ")));
    if let Ok(value) = HeaderValue::from_str(chain.as_deref().unwrap_or(&own)) {
        headers.insert(FORWARDED_FOR, value);
    }
    if !trusted {
        headers.remove(header::FORWARDED);
        headers.remove(FORWARDED_PROTO);
        headers.remove(FORWARDED_HOST);
    }
    headers.entry(FORWARDED_PROTO).or_insert(HeaderValue::from_static("http"));
    headers.entry(FORWARDED_HOST).or_insert_with(|| host.written.clone());
    headers.insert(header::HOST, host.written.clone());
}

/// The id of a request: the client's where it is a plain word, else a new one.
pub(super) fn request_id(headers: &HeaderMap) -> HeaderValue {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let given = headers.get(REQUEST_ID).filter(|value| {
        let bytes = value.as_bytes();
        (1..=MAX_REQUEST_ID_BYTES).contains(&bytes.len()) && bytes.iter().all(|byte| plain(*byte))
    });
    given.cloned().unwrap_or_else(|| {
        let id = format!("{:032x}", rand::random::<u128>());
        HeaderValue::from_str(&id).unwrap_or(HeaderValue::from_static("none"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(target: &str, fields: &[(&str, &str)]) -> Request<()> {
        let mut builder = Request::get(target);
        for (name, value) in fields {
            builder = builder.header(*name, *value);
        }
        builder.body(()).expect("a request")
    }

    #[test]
    fn a_host_is_found_whatever_its_case_port_and_form() {
        let name = |r: Request<()>| host_of(&r).map(|host| host.name);
        let shop = Some("shop.example.com".to_owned());
        assert_eq!(name(request("/", &[("host", "SHOP.example.com:8080")])), shop);
        assert_eq!(name(request("/", &[("host", "shop.example.com.")])), shop);
        assert_eq!(name(request("http://shop.example.com/x", &[("host", "other")])), shop);
        assert_eq!(name(request("/", &[])), None);
        assert_eq!(name(request("/", &[("host", "")])), None);
        assert_eq!(name(request("/", &[("host", "a"), ("host", "b")])), None);
        assert_eq!(name(request("/", &[("host", "a@b")])), None);
        assert_eq!(name(request("/", &[("host", "a/b")])), None);
        assert_eq!(name(request("/", &[("host", "<script>")])), None);
    }

    #[test]
    fn fields_for_one_connection_are_removed_and_framing_cannot_be_named_away() {
        let mut head = request(
            "/",
            &[
                ("host", "a"),
                ("connection", "close, X-Secret, host, content-length"),
                ("x-secret", "1"),
                ("te", "trailers"),
                ("upgrade", "h2c"),
                ("http2-settings", "AAMAAABkAAQAAP__"),
                ("keep-alive", "timeout=5"),
                ("content-length", "3"),
                ("accept", "*/*"),
            ],
        );
        strip_hop_by_hop(head.headers_mut());
        let mut left: Vec<_> = head.headers().keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["accept", "content-length", "host"]);
    }

    #[test]
    fn a_client_cannot_forge_where_it_comes_from() {
        let forged = [
            ("host", "shop:80"),
            ("x-forwarded-for", "1.2.3.4"),
            ("x-forwarded-host", "evil"),
            ("forwarded", "for=1.2.3.4"),
        ];
        let host = Host { name: "shop".into(), written: HeaderValue::from_static("shop:80") };
        let peer: IpAddr = "::ffff:10.0.0.7".parse().expect("an address");
        let mut head = request("/", &forged);
        forward(head.headers_mut(), peer, &host, false);
        assert_eq!(head.headers()["x-forwarded-for"], "10.0.0.7");
        assert_eq!(head.headers()["x-forwarded-host"], "shop:80");
        assert_eq!(head.headers()["x-forwarded-proto"], "http");
        assert!(!head.headers().contains_key("forwarded"));
        let mut head = request("/", &forged);
        forward(head.headers_mut(), peer, &host, true);
        assert_eq!(head.headers()["x-forwarded-for"], "1.2.3.4, 10.0.0.7");
        assert_eq!(head.headers()["x-forwarded-host"], "evil");
    }

    #[test]
    fn an_upgrade_passes_and_a_way_to_http2_does_not() {
        let ask = |protocol: &str| {
            let fields = [("connection", "keep-alive, Upgrade"), ("upgrade", protocol)];
            upgrade_of(&request("/", &fields)).is_some()
        };
        assert!(ask("websocket"));
        assert!(!ask("h2c"));
        assert!(!ask("websocket, H2C"));
        assert_eq!(upgrade_of(&request("/", &[("upgrade", "websocket")])), None);
    }

    #[test]
    fn a_request_id_is_passed_on_only_when_it_is_a_plain_word() {
        let of = |id: &str| request_id(request("/", &[("x-request-id", id)]).headers());
        assert_eq!(of("abc-1.2_3"), "abc-1.2_3");
        for id in ["", "a b", "<x>", &"a".repeat(129)] {
            assert_eq!(of(id).len(), 32);
        }
        assert_ne!(of(""), of(""));
    }

    #[test]
    fn fuzz_heads() {
        let samples: [&[u8]; 3] = [
            b"host: SHOP.example.com:8080\nconnection: close, x-a\nx-a: 1\nx-forwarded-for: 1.2.3.4",
            b"host: a\nupgrade: websocket\nconnection: upgrade\nx-request-id: abc",
            b"host: a\nhost: b\nte: trailers\ntransfer-encoding: chunked",
        ];
        let words =
            ["host: ", "connection: ", "\nupgrade: h2c", "content-length: ", "@", "x-request-id: ", "forwarded: "];
        fuzz::feed("heads", &samples, &words, |bytes| {
            let mut request = Request::builder().uri("/").body(()).map_err(|error| error.to_string())?;
            for line in bytes.split(|byte| *byte == b'\n') {
                let (name, value) = line.split_at(line.iter().position(|byte| *byte == b':').unwrap_or(line.len()));
                let value = value.strip_prefix(b": ").unwrap_or_default();
                if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
                    request.headers_mut().append(name, value);
                }
            }
            let (host, upgrade) = (host_of(&request), upgrade_of(&request));
            if upgrade.as_ref().is_some_and(|to| to.as_bytes().to_ascii_lowercase().starts_with(b"h2")) {
                return Err("an upgrade to HTTP/2 is let through".into());
            }
            let framing = request.headers().get_all(header::CONTENT_LENGTH).iter().count();
            let headers = request.headers_mut();
            strip_hop_by_hop(headers);
            if headers.get_all(header::CONTENT_LENGTH).iter().count() != framing {
                return Err("the length of the body was named away".into());
            }
            if headers.contains_key(header::CONNECTION) || headers.contains_key(header::TRANSFER_ENCODING) {
                return Err("a field for one connection goes on".into());
            }
            let Some(host) = host else { return Ok("no host".into()) };
            if host.name.is_empty() || host.name.chars().any(|c| c.is_ascii_uppercase() || c == '@' || c == '/') {
                return Err(format!("{} is no host", host.name));
            }
            forward(headers, IpAddr::from([10, 0, 0, 7]), &host, false);
            let said = headers.get_all(FORWARDED_FOR).iter().collect::<Vec<_>>();
            if said != ["10.0.0.7"] || headers.contains_key(header::FORWARDED) {
                return Err("a client forged where it comes from".into());
            }
            let id = request_id(headers);
            Ok(format!("{} {}", upgrade.is_some(), id.len() == 32))
        });
    }
}
