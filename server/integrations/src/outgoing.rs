//! Where calls may lead: to the host that a client was made for, to hosts that are registered, and never to addresses that
//! only a machine's own neighbourhood has (link-local, the metadata services of clouds) unless they are listed. Names are
//! looked up here and what they lead to is checked before a connection is made, so that a name that changes its address
//! in between does not get around it. Not here: who is told what (`git`, `registry`).

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use ipnet::IpNet;
use pipelines::{errors::chain, protocol::OutgoingRules};
use reqwest::{
    Certificate, Client, ClientBuilder,
    dns::{Addrs, Name, Resolve, Resolving},
    redirect::Policy,
};
use url::{Host, Url};

/// An address that no call goes to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OutgoingError {
    /// It belongs to a machine's own neighbourhood.
    #[error(
        "{host} is {address}, which only a machine's own neighbourhood has; if it is meant, list it under outgoing.addresses"
    )]
    Neighbourhood {
        /// What was asked for.
        host: String,
        /// Where that leads.
        address: IpAddr,
    },
    /// A rule is not a network.
    #[error("{0} is neither an address nor a network like 10.0.0.0/8")]
    Rule(String),
}

/// The rules. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Outgoing(Arc<Rules>);

#[derive(Debug, Default)]
struct Rules {
    any_host: bool,
    hosts: Vec<String>,
    networks: Vec<IpNet>,
}

impl Outgoing {
    /// Rules as they are written in the configuration.
    ///
    /// # Errors
    /// [`OutgoingError::Rule`].
    pub fn new(rules: &OutgoingRules) -> Result<Self, OutgoingError> {
        let network = |text: &String| {
            let found = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
            found.map_err(|_| OutgoingError::Rule(text.clone()))
        };
        let networks = rules.addresses.iter().map(network).collect::<Result<_, _>>()?;
        let hosts = rules.hosts.iter().map(|host| host.trim().to_ascii_lowercase()).collect();
        Ok(Self(Arc::new(Rules { any_host: false, hosts, networks })))
    }

    /// Any host may be led to: for somebody who names both ends by hand and sees what happens.
    #[must_use]
    pub fn anywhere() -> Self {
        Self(Arc::new(Rules { any_host: true, ..Rules::default() }))
    }

    /// Whether a call that was made for `own` may be led to `to`: the same host, or a registered one (`host`, `host:port`).
    #[must_use]
    pub fn may_lead(&self, own: &Url, to: &Url) -> bool {
        let Some(host) = to.host_str() else { return false };
        if self.0.any_host || own.host_str() == Some(host) {
            return true;
        }
        let with_port = to.port_or_known_default().map(|port| format!("{host}:{port}"));
        self.0.hosts.iter().any(|known| known == host || Some(known) == with_port.as_ref())
    }

    /// Whether a connection to `address` may be made; `host` is what was asked for.
    ///
    /// # Errors
    /// [`OutgoingError::Neighbourhood`].
    pub fn check(&self, host: &str, address: IpAddr) -> Result<(), OutgoingError> {
        let plain = plain(address);
        if is_neighbourhood(plain) && !self.0.networks.iter().any(|network| network.contains(&plain)) {
            return Err(OutgoingError::Neighbourhood { host: host.to_owned(), address });
        }
        Ok(())
    }

    /// As [`Outgoing::check`], where the URL names an address itself; names are checked when they are looked up.
    ///
    /// # Errors
    /// As there.
    pub fn check_url(&self, url: &Url) -> Result<(), OutgoingError> {
        match url.host() {
            Some(Host::Ipv4(address)) => self.check(&address.to_string(), address.into()),
            Some(Host::Ipv6(address)) => self.check(&address.to_string(), address.into()),
            Some(Host::Domain(_)) | None => Ok(()),
        }
    }

    /// Looks `host` up; gives the addresses that a connection may be made to.
    ///
    /// # Errors
    /// When it cannot be looked up, or none of its addresses may be called.
    pub async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let found: Vec<SocketAddr> = tokio::net::lookup_host((bare, port)).await?.collect();
        let (mut good, mut refused) = (Vec::new(), None);
        for address in found {
            match self.check(host, address.ip()) {
                Ok(()) => good.push(address),
                Err(error) => refused = Some(error),
            }
        }
        match refused {
            Some(error) if good.is_empty() => Err(io::Error::other(error)),
            _ => Ok(good),
        }
    }
}

impl Outgoing {
    /// A client for the calls to one outside party: it looks names up under these rules, follows no redirect by itself, asks
    /// this machine without a proxy, and trusts the system's certificate authorities and those of `ca_pem`. `shape` adds
    /// what else the party needs.
    ///
    /// # Errors
    /// In words: a certificate cannot be read, or no client can be made.
    pub fn http_client(
        &self,
        endpoint: &Url,
        ca_pem: Option<&[u8]>,
        shape: impl Fn(ClientBuilder) -> ClientBuilder,
    ) -> Result<Client, String> {
        let certificates = match ca_pem {
            Some(pem) => Certificate::from_pem_bundle(pem)
                .map_err(|error| format!("its certificate cannot be read: {}", chain(&error)))?,
            None => Vec::new(),
        };
        // reqwest is built without a default provider; where `main` has chosen one, this changes nothing.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder = || {
            let http = Client::builder()
                .user_agent(concat!("windlass/", env!("CARGO_PKG_VERSION")))
                .redirect(Policy::none())
                .dns_resolver(self.clone());
            shape(if is_loopback(endpoint) { http.no_proxy() } else { http })
        };
        let http = match builder().tls_certs_merge(certificates.clone()).build() {
            // A machine without certificates of authorities can still speak to a party without TLS.
            Err(_) if endpoint.scheme() == "http" => builder().tls_certs_only(certificates).build(),
            other => other,
        };
        http.map_err(|error| format!("no HTTP client can be made: {}", chain(&error)))
    }
}

impl Resolve for Outgoing {
    fn resolve(&self, name: Name) -> Resolving {
        let rules = self.clone();
        Box::pin(async move {
            let found = Self::resolve(&rules, name.as_str(), 0).await?;
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// Whether it leads to this machine, by its name alone.
#[must_use]
pub fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// An IPv4 address that is written as one of IPv6: mapped (RFC 4291), or through NAT64 (RFC 6052).
fn plain(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address.to_canonical() else { return address.to_canonical() };
    match v6.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            let [a, b] = high.to_be_bytes();
            let [c, d] = low.to_be_bytes();
            Ipv4Addr::new(a, b, c, d).into()
        }
        _ => v6.into(),
    }
}

/// Metadata services that are not link-local: of Alibaba Cloud, of Oracle Cloud, of AWS over IPv6.
const METADATA: [IpAddr; 3] = [
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
];

fn is_neighbourhood(address: IpAddr) -> bool {
    let is_own = match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast() || v4.octets()[0] == 0,
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.is_unspecified(),
    };
    is_own || address.is_multicast() || METADATA.contains(&address)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(hosts: &[&str], addresses: &[&str]) -> Outgoing {
        let own = |all: &[&str]| all.iter().map(|one| (*one).to_owned()).collect();
        Outgoing::new(&OutgoingRules { hosts: own(hosts), addresses: own(addresses) }).unwrap()
    }

    #[test]
    fn metadata_and_link_local_addresses_are_refused_however_they_are_written() {
        let none = rules(&[], &[]);
        for address in [
            "169.254.169.254",
            "169.254.1.1",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "fe80::1",
            "fd00:ec2::254",
            "100.100.100.200",
            "192.0.0.192",
            "0.0.0.0",
            "0.1.2.3",
            "::",
            "255.255.255.255",
            "224.0.0.1",
            "ff02::1",
        ] {
            assert!(none.check("h", address.parse().unwrap()).is_err(), "{address}");
        }
        for address in ["127.0.0.1", "::1", "10.0.0.1", "192.168.1.1", "192.0.2.1", "2001:db8::1", "fd00::1"] {
            assert_eq!(none.check("h", address.parse().unwrap()), Ok(()), "{address}");
        }
        for url in
            ["http://169.254.169.254/x", "http://2852039166/x", "http://0xa9fea9fe/", "http://[::ffff:a9fe:a9fe]/"]
        {
            assert!(none.check_url(&url.parse().unwrap()).is_err(), "{url}");
        }
    }

    #[test]
    fn what_is_listed_may_be_called() {
        let some = rules(&[], &["169.254.7.0/24", "fe80::5"]);
        assert!(some.check("h", "169.254.7.9".parse().unwrap()).is_ok());
        assert!(some.check("h", "::ffff:169.254.7.9".parse().unwrap()).is_ok());
        assert!(some.check("h", "fe80::5".parse().unwrap()).is_ok());
        assert!(some.check("h", "169.254.8.9".parse().unwrap()).is_err());
        let bad = OutgoingRules { hosts: Vec::new(), addresses: vec!["10.0.0".into()] };
        assert!(matches!(Outgoing::new(&bad), Err(OutgoingError::Rule(rule)) if rule == "10.0.0"));
    }

    #[test]
    fn a_call_is_led_to_its_own_host_and_to_registered_ones() {
        let some = rules(&["git.example.com", "Mirror.example.com:8443"], &[]);
        let own: Url = "https://forge.example.com/x".parse().unwrap();
        let may = |to: &str| some.may_lead(&own, &to.parse().unwrap());
        assert!(
            may("https://forge.example.com:444/")
                && may("https://git.example.com/")
                && may("https://git.example.com:1/")
        );
        assert!(may("https://mirror.example.com:8443/") && !may("https://mirror.example.com/"));
        assert!(!may("https://evil.example.com/") && !may("https://forge.example.com.evil.example.com/"));
    }

    #[tokio::test]
    async fn a_name_that_leads_only_to_such_addresses_is_not_called() {
        let refused = rules(&[], &[]).resolve("169.254.169.254", 80).await.unwrap_err();
        assert!(refused.to_string().contains("outgoing.addresses"), "{refused}");
        assert_eq!(rules(&[], &[]).resolve("127.0.0.1", 80).await.unwrap(), ["127.0.0.1:80".parse().unwrap()]);
    }
}
