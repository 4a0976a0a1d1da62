//! The URLs that etcd's flags take: a scheme, a host and a port, nothing else.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// `http://host:port`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Url {
    /// Host name or address, an IPv6 address without its brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

/// What is wrong with a URL.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum UrlError {
    /// Some other scheme, or none.
    #[error("{0:?}: a URL here begins with http://")]
    Scheme(String),
    /// `https` or `unixs`.
    #[error("{0:?}: TLS is not supported yet, use http://")]
    Tls(String),
    /// Not `host:port`.
    #[error("{0:?}: a URL here has the form http://host:port")]
    Form(String),
    /// To listen on, an address is needed.
    #[error("{0:?}: to listen on, a URL needs an IP address (or localhost), not a host name")]
    NoAddress(String),
}

impl Url {
    /// Parses one URL. A closing slash is accepted, as in etcd.
    pub fn parse(text: &str) -> Result<Url, UrlError> {
        let trimmed = text.trim();
        let Some(rest) = trimmed.strip_prefix("http://") else {
            let tls = trimmed.starts_with("https://") || trimmed.starts_with("unixs://");
            return Err(if tls {
                UrlError::Tls(text.to_owned())
            } else {
                UrlError::Scheme(text.to_owned())
            });
        };
        let form = || UrlError::Form(text.to_owned());
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = rest.rsplit_once(':').ok_or_else(form)?;
        let port = port.parse().map_err(|_| form())?;
        let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(v6) if v6.parse::<std::net::Ipv6Addr>().is_ok() => v6,
            Some(_) => return Err(form()),
            None if host.is_empty() || host.contains([':', '/', '@', '?', '#', ' ']) => return Err(form()),
            None => host,
        };
        Ok(Url {
            host: host.to_owned(),
            port,
        })
    }

    /// Parses a list with commas, which must not be empty.
    pub fn parse_list(text: &str) -> Result<Vec<Url>, UrlError> {
        text.split(',').map(Url::parse).collect()
    }

    /// The address to bind.
    pub fn listen_address(&self) -> Result<SocketAddr, UrlError> {
        let ip = match self.host.as_str() {
            "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
            host => host.parse().map_err(|_| UrlError::NoAddress(self.to_string()))?,
        };
        Ok(SocketAddr::new(ip, self.port))
    }

    /// Whether this is the "all interfaces" address, which nobody can connect to from elsewhere.
    pub fn is_unspecified(&self) -> bool {
        self.host.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified())
    }

    /// `host:port`, with brackets where needed.
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.authority())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_and_their_way_back() {
        for (text, back) in [
            ("http://127.0.0.1:2379", "http://127.0.0.1:2379"),
            (" http://localhost:1/ ", "http://localhost:1"),
            ("http://[::1]:2379", "http://[::1]:2379"),
        ] {
            assert_eq!(Url::parse(text).unwrap().to_string(), back);
        }
        for text in [
            "http://a",
            "http://:1",
            "http://a:b",
            "http://a:1/x",
            "http://a:70000",
            "http://::1:1",
            "http://[a]:1",
        ] {
            assert_eq!(Url::parse(text), Err(UrlError::Form(text.to_owned())));
        }
        assert!(matches!(Url::parse("https://a:1"), Err(UrlError::Tls(_))));
        assert!(matches!(Url::parse("127.0.0.1:2379"), Err(UrlError::Scheme(_))));
        assert!(matches!(Url::parse_list(""), Err(UrlError::Scheme(_))));
    }

    #[test]
    fn listening_needs_an_address() {
        let listen = |text| Url::parse(text).unwrap().listen_address();
        assert_eq!(listen("http://localhost:1").unwrap().to_string(), "127.0.0.1:1");
        assert_eq!(listen("http://[::]:1").unwrap().to_string(), "[::]:1");
        assert!(matches!(
            listen("http://example.org:1"),
            Err(UrlError::NoAddress(_))
        ));
        assert!(Url::parse("http://0.0.0.0:1").unwrap().is_unspecified());
    }
}
