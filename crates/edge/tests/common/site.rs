//! An edge with an application that judges requests for apps and a workspace that answers them, both of threads.
#![allow(dead_code, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::SocketAddrV6;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use edge::{AppSettings, Config, Dial, DialError, DialReply, Edge};

use super::{application, config, parse, read_head};

pub const HOST: &str = "8080--main--dev--alice.apps.test";
const KEY: [u8; 64] = [7; 64];

type Head = (String, Vec<(String, String)>);
/// What an app does with a connection.
type Serve = dyn Fn(UnixStream) + Send + Sync;

/// An edge with an application that judges and a workspace that answers.
pub struct Site {
    pub edge: Edge,
    pub judge: Arc<Judge>,
    pub dialled: Arc<AtomicU64>,
}

#[derive(Default)]
pub struct Judge {
    pub questions: Mutex<Vec<Head>>,
    pub refuses: AtomicBool,
    /// Seconds that its tickets live.
    pub life: AtomicU64,
    pub allow_origin: AtomicBool,
}

struct Workspace {
    serve: Arc<Serve>,
    dialled: Arc<AtomicU64>,
    refuses: Arc<Mutex<Option<DialError>>>,
}

impl Dial for Workspace {
    fn open(&self, _to: SocketAddrV6, reply: DialReply) -> u64 {
        if let Some(error) = self.refuses.lock().unwrap().take() {
            reply(Err(error));
            return 0;
        }
        let (ours, theirs) = UnixStream::pair().unwrap();
        let serve = Arc::clone(&self.serve);
        std::thread::spawn(move || serve(theirs));
        reply(Ok(ours.into()));
        self.dialled.fetch_add(1, Ordering::Relaxed)
    }

    fn cancel(&self, _name: u64) {}
}

pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

pub fn ticket(at: &str, life: u64) -> String {
    let part = |json: serde_json::Value| URL_SAFE_NO_PAD.encode(json.to_string());
    let claims = serde_json::json!({
        "exp": now() + life, "at": at, "to": "[fd7a::1]:8080", "tls": false, "path": "/base", "query": "", "cors": false
    });
    let signed = format!("{}.{}", part(serde_json::json!({"alg": "HS512", "kid": "1"})), part(claims));
    let mark = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA512, &KEY), signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mark))
}

impl Judge {
    fn answer(&self, head: &[u8]) -> String {
        let (first, headers, _) = parse(head);
        let value = |name: &str| headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
        let at = value("coder-edge-at");
        let failure = value("coder-edge-failure");
        self.questions.lock().unwrap().push((first, headers));
        let Some(at) = at else { return "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhome".to_owned() };
        if self.refuses.load(Ordering::Relaxed) || failure.is_some() {
            return "HTTP/1.1 404 Not Found\r\nSet-Cookie: kept=1\r\nContent-Length: 4\r\n\r\npage"
                .to_owned();
        }
        let text = ticket(&at, self.life.load(Ordering::Relaxed));
        let allow = if self.allow_origin.load(Ordering::Relaxed) {
            "Coder-Edge-Allow-Origin: http://o\r\n"
        } else {
            ""
        };
        format!(
            "HTTP/1.1 204 No Content\r\nCoder-Edge-Ticket: {text}\r\n{allow}Set-Cookie: coder_signed_app_token={text}\r\n\r\n"
        )
    }

    pub fn asked(&self) -> usize {
        self.questions.lock().unwrap().len()
    }
}

pub fn site(serve: impl Fn(UnixStream) + Send + Sync + 'static) -> Site {
    site_with(config(), Arc::default(), serve)
}

pub fn site_with(
    config: Config,
    refuses: Arc<Mutex<Option<DialError>>>,
    serve: impl Fn(UnixStream) + Send + Sync + 'static,
) -> Site {
    let judge = Arc::new(Judge { life: AtomicU64::new(60), ..Judge::default() });
    let judging = Arc::clone(&judge);
    application(config.upstream.as_ref().unwrap(), move |mut stream| {
        let mut byte = [0];
        while stream.read(&mut byte).is_ok_and(|len| len == 1) {
            let head = [&byte[..], &read_head(&mut stream)].concat();
            stream.write_all(judging.answer(&head).as_bytes()).unwrap();
        }
    });
    let edge = Edge::start(config).unwrap();
    edge.set_apps(AppSettings {
        wildcard: "*.apps.test".to_owned(),
        dashboard: "coder.test".to_owned(),
        secret: "the-secret".to_owned(),
        keys: BTreeMap::from([("1".to_owned(), KEY.to_vec())]),
    });
    let dialled = Arc::new(AtomicU64::new(0));
    edge.set_dial(Some(Arc::new(Workspace {
        serve: Arc::new(serve),
        dialled: Arc::clone(&dialled),
        refuses,
    })));
    Site { edge, judge, dialled }
}

pub fn values<'a>(headers: &'a [(String, String)], name: &str) -> Vec<&'a str> {
    headers.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str()).collect()
}

pub fn cookie(at: &str) -> String {
    format!("Cookie: coder_signed_app_token={}\r\n", ticket(at, 60))
}
