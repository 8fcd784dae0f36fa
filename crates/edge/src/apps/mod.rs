//! Web apps and ports of workspaces: which requests are theirs, the ticket that opens one, and the way there.
//!
//! A request that belongs to an app is carried when it holds a valid ticket for exactly that app. Otherwise the
//! application is asked; it answers with a ticket, or with what the browser is to see instead. Who may open what is
//! its decision alone. The stream to the workspace comes from a [`Dial`].

mod cookies;
mod dialling;
mod exchange;
mod pool;
mod question;
mod rewrite;
mod scope;
mod ticket;
mod watched;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use aws_lc_rs::hmac;
use hyper::header::HeaderValue;

pub use dialling::{Dial, DialError, DialReply};
pub(crate) use exchange::{Asked, serve};
pub(crate) use question::remove_ours as remove_question_headers;
pub(crate) use scope::Scope;
pub(crate) use watched::Watched;

use pool::Pool;
use scope::Wildcard;

/// What the edge must know to serve apps.
#[derive(Clone)]
pub struct AppSettings {
    /// Host name of apps with `*` for the app, as `*.apps.example.com`; empty: apps have paths only.
    pub wildcard: String,
    /// Host of the dashboard, which never is an app's.
    pub dashboard: String,
    /// What the edge proves itself with when it asks the application.
    pub secret: String,
    /// Keys that tickets are signed with, by their id.
    pub keys: BTreeMap<String, Vec<u8>>,
}

impl std::fmt::Debug for AppSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AppSettings").field("wildcard", &self.wildcard).finish_non_exhaustive()
    }
}

/// The settings as requests need them.
pub(crate) struct Rules {
    wildcard: Option<Wildcard>,
    dashboard: String,
    secret: HeaderValue,
    keys: BTreeMap<String, hmac::Key>,
}

/// Everything about apps that lasts longer than a request.
#[derive(Default)]
pub(crate) struct Apps {
    rules: RwLock<Option<Arc<Rules>>>,
    dial: RwLock<Option<Arc<dyn Dial>>>,
    pool: Arc<Pool>,
}

impl Apps {
    pub(crate) fn configure(&self, settings: AppSettings) {
        let key = |secret: Vec<u8>| hmac::Key::new(hmac::HMAC_SHA512, &secret);
        // A secret that is no header value proves nothing: then nothing is served.
        let rules = HeaderValue::from_str(&settings.secret).ok().map(|mut secret| {
            secret.set_sensitive(true);
            Arc::new(Rules {
                wildcard: Wildcard::new(&settings.wildcard),
                dashboard: settings.dashboard.to_ascii_lowercase(),
                secret,
                keys: settings.keys.into_iter().map(|(id, secret)| (id, key(secret))).collect(),
            })
        });
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = rules;
    }

    pub(crate) fn dial_with(&self, dial: Option<Arc<dyn Dial>>) {
        *self.dial.write().unwrap_or_else(PoisonError::into_inner) = dial;
        self.pool.clear();
    }

    /// The rules; `None` as long as no apps are served.
    pub(crate) fn rules(&self) -> Option<Arc<Rules>> {
        self.rules.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether a host is one of apps.
    pub(crate) fn has_host(&self, name: &str) -> bool {
        self.rules().is_some_and(|rules| Scope::find(&rules, name, "").is_some())
    }

    fn dial(&self) -> Option<Arc<dyn Dial>> {
        self.dial.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
