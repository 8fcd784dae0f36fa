//! Which app a request means: by its host name, or by its path on any other host.

use super::Rules;

/// An app as a request names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Scope {
    /// The host name of an app that has one of its own, else `/@user/workspace.agent/apps/slug/`. What a ticket is for.
    pub(crate) at: String,
    /// Where the app's own path starts in that of the request; `None`: the slash after the slug is missing.
    pub(crate) rest: Option<usize>,
}

impl Scope {
    /// Whether the app shares its host with the dashboard.
    pub(crate) fn is_path(&self) -> bool {
        self.at.starts_with('/')
    }

    /// The app that a request for that host and path is for; `None`: it is the dashboard's.
    pub(crate) fn find(rules: &Rules, host: &str, path: &str) -> Option<Self> {
        let host = bare(host);
        match &rules.wildcard {
            Some(wildcard) if host != rules.dashboard && wildcard.matches(&host) => {
                Some(Self { at: host, rest: Some(0) })
            }
            _ => by_path(path),
        }
    }
}

/// `*` and what follows it.
pub(crate) struct Wildcard {
    suffix: String,
}

impl Wildcard {
    /// `None` for a text that does not start with a `*`, and for the empty one.
    pub(crate) fn new(text: &str) -> Option<Self> {
        let suffix = bare(text.strip_prefix('*')?);
        (!suffix.is_empty()).then_some(Self { suffix })
    }

    fn matches(&self, host: &str) -> bool {
        host.strip_suffix(&self.suffix).is_some_and(|label| !label.is_empty() && !label.contains('.'))
    }
}

/// A host without port and final dot, in lower case.
fn bare(host: &str) -> String {
    let end = match host.rfind(':') {
        Some(colon) if !host[colon..].contains(']') => colon,
        _ => host.len(),
    };
    host[..end].trim_end_matches('.').to_ascii_lowercase()
}

fn by_path(path: &str) -> Option<Scope> {
    let names = path.strip_prefix("/@").or_else(|| path.strip_prefix("/%40"))?;
    let mut parts = names.splitn(5, '/');
    let (user, workspace, apps, slug) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let plain =
        |name: &str| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'%');
    if apps != "apps" || ![user, workspace, slug].into_iter().all(plain) {
        return None;
    }
    let rest = parts.next().map(|rest| path.len() - rest.len() - 1);
    Some(Scope { at: format!("/@{user}/{workspace}/apps/{slug}/"), rest })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::apps::{AppSettings, Apps};

    fn found(host: &str, path: &str) -> Option<(String, Option<usize>)> {
        let apps = Apps::default();
        apps.configure(AppSettings {
            wildcard: "*.Apps.Example.com:8443".to_owned(),
            dashboard: "coder.apps.example.com".to_owned(),
            secret: "s".to_owned(),
            keys: [].into(),
        });
        Scope::find(&apps.rules().unwrap(), host, path).map(|scope| (scope.at, scope.rest))
    }

    #[test]
    fn hosts_below_the_wildcard_are_apps_whatever_their_path() {
        for host in ["8080--a--w--u.apps.example.com", "8080--A--w--U.apps.EXAMPLE.com.:443"] {
            let at = "8080--a--w--u.apps.example.com".to_owned();
            assert_eq!(found(host, "/api/v2/users"), Some((at, Some(0))), "{host}");
        }
        for host in
            ["coder.apps.example.com", "apps.example.com", ".apps.example.com", "a.b.apps.example.com"]
        {
            assert_eq!(found(host, "/x"), None, "{host}");
        }
        for host in ["xapps.example.com", "a.apps.example.com.evil.test", "[::1]:3000", "127.0.0.1:3000", ""]
        {
            assert_eq!(found(host, "/x"), None, "{host}");
        }
    }

    #[test]
    fn paths_name_apps_on_every_other_host() {
        let at = || "/@u/w.a/apps/s/".to_owned();
        assert_eq!(found("h", "/@u/w.a/apps/s/x/../y"), Some((at(), Some(14))));
        assert_eq!(found("h", "/@u/w.a/apps/s/"), Some((at(), Some(14))));
        assert_eq!(found("h", "/%40u/w.a/apps/s/x"), Some((at(), Some(16))));
        assert_eq!(found("h", "/@u/w.a/apps/s"), Some((at(), None)));
        for path in
            ["/@u/w", "/@u/w/apps", "/@u/w/apps/", "/@u/w/terminal/s/", "//@u/w/apps/s/", "/@/w/apps/s/"]
        {
            assert_eq!(found("h", path), None, "{path}");
        }
        assert_eq!(found("h", "/@u%2f/w/apps/s/"), None);
    }
}
