//! The server's certificates: one for each name that clients ask for, read again when their files change.

use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::client::verify_server_name;
use rustls::crypto::aws_lc_rs as provider;
use rustls::pki_types::ServerName;
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use wire::keys::NodePublic;

use crate::counters::Tally;
use crate::error::EdgeError;
use crate::tls::{Stamp, TlsFiles};

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// One pair of files, and what they held when they last were of use.
#[derive(Debug)]
struct Pair {
    files: TlsFiles,
    current: RwLock<Arc<CertifiedKey>>,
}

impl Pair {
    fn current(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The certificates in force, in the order of the configuration.
#[derive(Debug)]
pub(crate) struct Certificates {
    pairs: Vec<Pair>,
    /// The key of the relay behind them, which clients are told with each.
    relay: Option<NodePublic>,
    problem: Mutex<Option<String>>,
}

impl Certificates {
    /// Reads the files. Without any there is no TLS.
    pub(crate) fn load(
        files: &[TlsFiles],
        relay: Option<NodePublic>,
    ) -> Result<Option<Arc<Self>>, EdgeError> {
        let pair = |files: &TlsFiles| {
            let current = RwLock::new(Arc::new(files.load(relay.as_ref())?));
            Ok(Pair { files: files.clone(), current })
        };
        let pairs = files.iter().map(pair).collect::<Result<Vec<_>, EdgeError>>()?;
        let there_are = !pairs.is_empty();
        Ok(there_are.then(|| Arc::new(Self { pairs, relay, problem: Mutex::default() })))
    }

    /// What TLS servers need: TLS 1.2 and up, or only 1.3; HTTP/1.1, or HTTP/2 where the client prefers it.
    pub(crate) fn config(
        self: &Arc<Self>,
        only_13: bool,
        http2: bool,
    ) -> Result<Arc<ServerConfig>, EdgeError> {
        let versions = if only_13 { &[&rustls::version::TLS13][..] } else { rustls::DEFAULT_VERSIONS };
        let mut config = ServerConfig::builder_with_provider(Arc::new(provider::default_provider()))
            .with_protocol_versions(versions)
            .map_err(|error| EdgeError::Start(std::io::Error::other(error)))?
            .with_no_client_auth()
            .with_cert_resolver(Arc::<Self>::clone(self));
        let http2 = http2.then(|| b"h2".to_vec());
        config.alpn_protocols = http2.into_iter().chain([b"http/1.1".to_vec()]).collect();
        Ok(Arc::new(config))
    }

    /// Why changed files are not in use, in one line. Those from before are.
    pub(crate) fn problem(&self) -> Option<String> {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Looks at the files for ever. New connections get what they hold now.
    pub(crate) async fn watch(self: Arc<Self>, tally: Arc<Tally>) {
        let mut seen: Vec<Seen> = self.pairs.iter().map(|pair| Seen::new(pair.files.stamp())).collect();
        loop {
            tokio::time::sleep(LOOK).await;
            for (pair, seen) in self.pairs.iter().zip(&mut seen) {
                seen.look(pair, self.relay.as_ref(), &tally);
            }
            let problem = seen.iter().find_map(|seen| seen.problem.clone());
            *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = problem;
        }
    }

    /// The first that has the name and that the client can check; else the first that has the name; else the first.
    fn find(&self, name: Option<&str>, checks: impl Fn(&CertifiedKey) -> bool) -> Option<Arc<CertifiedKey>> {
        let first = self.pairs.first()?.current();
        let Some(name) = name.filter(|_| self.pairs.len() > 1) else { return Some(first) };
        let Ok(name) = ServerName::try_from(name) else { return Some(first) };
        let named: Vec<_> =
            self.pairs.iter().map(Pair::current).filter(|held| has_name(held, &name)).collect();
        let best = named.iter().find(|held| checks(held)).or(named.first()).cloned();
        Some(best.unwrap_or(first))
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.find(hello.server_name(), |held| held.key.choose_scheme(hello.signature_schemes()).is_some())
    }
}

/// Whether clients take a certificate for this name (RFC 9525, section 6.3).
fn has_name(held: &CertifiedKey, name: &ServerName<'_>) -> bool {
    let parsed = held.end_entity_cert().and_then(ParsedCertificate::try_from);
    parsed.is_ok_and(|certificate| verify_server_name(&certificate, name).is_ok())
}

/// What is known of a pair's files.
struct Seen {
    /// What they were when what is in force was read.
    used: Stamp,
    /// What they were when they were of no use.
    failed: Option<Stamp>,
    /// Why, once that is no matter of a moment.
    problem: Option<String>,
}

impl Seen {
    fn new(used: Stamp) -> Self {
        Self { used, failed: None, problem: None }
    }

    /// Takes what has changed into use. What is in force stays in force if that is of no use.
    fn look(&mut self, pair: &Pair, relay: Option<&NodePublic>, tally: &Tally) {
        let stamp = pair.files.stamp();
        if stamp == self.used {
            (self.failed, self.problem) = (None, None);
            return;
        }
        // The two files are seldom replaced at once: a pair that does not fit is tried again until it does.
        match pair.files.load(relay) {
            Ok(fresh) => {
                *pair.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(fresh);
                *self = Self::new(stamp);
                Tally::add(&tally.tls_reloads);
            }
            Err(error) => {
                self.problem = (self.failed == Some(stamp)).then(|| error.to_string());
                self.failed = Some(stamp);
                Tally::add(&tally.tls_reload_failures);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::tls::self_signed;

    /// One pair for each list of names, in files of this test.
    fn certificates(test: &str, names: &[&[&str]]) -> (Vec<TlsFiles>, Arc<Certificates>) {
        let directory = std::env::temp_dir().join(format!("edge-certificates-{}-{test}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let files: Vec<_> = (0..names.len())
            .map(|number| TlsFiles {
                certificates: directory.join(format!("{number}-cert.pem")),
                key: directory.join(format!("{number}-key.pem")),
            })
            .collect();
        for (files, names) in files.iter().zip(names) {
            write(files, names);
        }
        let loaded = Certificates::load(&files, None).unwrap().unwrap();
        (files, loaded)
    }

    fn write(files: &TlsFiles, names: &[&str]) {
        let (certificate, key) = self_signed(names.iter().map(|&name| name.to_owned()).collect()).unwrap();
        std::fs::write(&files.certificates, certificate).unwrap();
        std::fs::write(&files.key, key).unwrap();
    }

    fn number(all: &Certificates, name: Option<&str>, checks: impl Fn(&CertifiedKey) -> bool) -> usize {
        let found = all.find(name, checks).unwrap();
        all.pairs.iter().position(|pair| Arc::ptr_eq(&pair.current(), &found)).unwrap()
    }

    #[test]
    fn each_name_gets_the_certificate_that_has_it() {
        let (_, all) = certificates(
            "names",
            &[&["coder.example.com"], &["*.apps.example.com"], &["other.example", "Odd.Example"]],
        );
        let cases = [
            (Some("coder.example.com"), 0),
            (Some("x.apps.example.com"), 1),
            (Some("X.APPS.example.com"), 1),
            (Some("x.y.apps.example.com"), 0),
            (Some("apps.example.com"), 0),
            (Some("other.example"), 2),
            (Some("odd.example"), 2),
            (Some("unknown.example"), 0),
            (Some("no name"), 0),
            (None, 0),
        ];
        for (name, expected) in cases {
            assert_eq!(number(&all, name, |_| true), expected, "{name:?}");
        }
    }

    #[test]
    fn of_two_with_a_name_the_one_that_the_client_can_check_is_taken() {
        let (_, all) = certificates("schemes", &[&["other.example"], &["a.example.com"], &["*.example.com"]]);
        let last = all.pairs[2].current();
        let is_last = |held: &CertifiedKey| std::ptr::eq(held, &*last);
        assert_eq!(number(&all, Some("a.example.com"), |_| true), 1);
        assert_eq!(number(&all, Some("a.example.com"), is_last), 2);
        assert_eq!(number(&all, Some("a.example.com"), |_| false), 1);
    }

    #[test]
    fn a_pair_that_breaks_stays_in_force_and_is_told_once_that_lasts() {
        let (files, all) = certificates("breaks", &[&["a.example"], &["b.example"]]);
        let (tally, pair) = (Tally::default(), &all.pairs[1]);
        let mut seen = Seen::new(files[1].stamp());
        let before = pair.current();
        std::fs::write(&files[1].certificates, "no certificate at all").unwrap();
        seen.look(pair, None, &tally);
        assert_eq!(seen.problem, None);
        seen.look(pair, None, &tally);
        let told = seen.problem.clone().unwrap();
        assert!(told.contains("1-cert.pem") && told.contains("no certificate"), "{told}");
        assert!(Arc::ptr_eq(&pair.current(), &before));
        write(&files[1], &["fresh.example"]);
        seen.look(pair, None, &tally);
        assert_eq!(seen.problem, None);
        assert_eq!(number(&all, Some("fresh.example"), |_| true), 1);
        assert_eq!((tally.read().tls_reloads, tally.read().tls_reload_failures), (1, 2));
    }
}
