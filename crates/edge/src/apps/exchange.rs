//! One request for an app, from its ticket to the end of its answer.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::body::{Body as _, Incoming};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderMap, HeaderValue, LOCATION, TE};
use hyper::http::request::Parts;
use hyper::http::uri::{Authority, Scheme};
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Response, StatusCode, Uri, Version};
use hyper_util::rt::TokioIo;

use super::dialling::DialError;
use super::pool::{self, Connection, Sent};
use super::question::{Granted, Question, Verdict, now};
use super::watched::{Watch, Watched};
use super::{Rules, Scope, cookies, rewrite, ticket};
use crate::counters::Tally;
use crate::front::{Body, Front, Peer, Upstream, answers, forwarded, headers};

/// Pause between attempts to have a leave renewed while the application is in trouble …
const RENEW_RETRY: Duration = Duration::from_secs(5);
/// … and how many there are.
const RENEW_ATTEMPTS: usize = 12;

/// A request that belongs to an app.
pub(crate) struct Asked {
    pub(crate) rules: Arc<Rules>,
    pub(crate) scope: Scope,
    pub(crate) request: Request<Incoming>,
}

/// What outlives the request's head.
struct Exchange {
    front: Arc<Front>,
    upstream: Arc<Upstream>,
    rules: Arc<Rules>,
    scope: Scope,
    question: Question,
}

/// Why an app gives no answer.
enum Failure {
    Dial(DialError),
    Broken,
}

/// Answers a request for an app.
pub(crate) async fn serve(front: &Arc<Front>, peer: &Peer, asked: Asked) -> Response<Body> {
    let Asked { rules, scope, mut request } = asked;
    Tally::add(&front.tally.app_requests);
    let Some(upstream) = front.upstream.clone() else { return answers::only_a_relay() };
    let wanted = headers::upgrade(request.headers());
    let client = wanted.as_ref().map(|_| hyper::upgrade::on(&mut request));
    let (mut parts, body) = request.into_parts();
    let grpc = is_grpc(&parts);
    let own = settle(front, peer, &mut parts);
    let Some(target) = parts.uri.path_and_query().cloned().filter(|_| own) else {
        return answers::problem(StatusCode::BAD_REQUEST, "The request names no path.");
    };
    let ask = parts.headers.clone();
    let question = Question::new(&rules, &scope, &parts.method, target.as_str(), ask, wanted.is_some());
    let Some(question) = question else {
        return answers::problem(StatusCode::BAD_REQUEST, "The request's address is not readable.");
    };
    let exchange = Exchange { front: Arc::clone(front), upstream, rules, scope, question };
    let mut granted = match exchange.leave(&parts.headers, target.query()).await {
        Ok(granted) => granted,
        Err(response) => return *response,
    };
    if let Some(start) = rewrite::start(&exchange.scope, &granted.ticket, &target) {
        return redirect(&start);
    }
    rewrite::request(&mut parts.headers);
    if let Some(protocol) = wanted {
        headers::set_upgrade(&mut parts.headers, protocol);
    }
    let Some(path) = rewrite::target(&exchange.scope, &granted.ticket, &target) else {
        return answers::problem(StatusCode::BAD_REQUEST, "The request names no path.");
    };
    parts.uri = Uri::from(path);
    parts.version = if grpc { Version::HTTP_2 } else { Version::HTTP_11 };
    let exchange = Arc::new(exchange);
    let mut watch = watch(Arc::clone(&exchange), &granted);
    let request = Request::from_parts(parts, body);
    let sending = async {
        match grpc {
            true => call(&exchange, &granted, request).await,
            false => send(&exchange, &mut granted, request).await,
        }
    };
    let sent = tokio::select! {
        sent = sending => sent,
        () = watch.as_mut() => return answers::problem(StatusCode::FORBIDDEN, "You may not open this app any more."),
    };
    match sent {
        Ok(response) => pass_back(&exchange, peer, &granted, response, client, watch),
        Err(failure) => exchange.failed(&failure).await,
    }
}

/// Whether a request needs HTTP/2 to the app as well.
fn is_grpc(parts: &Parts) -> bool {
    let kind = parts.headers.get(CONTENT_TYPE).map_or(&[][..], HeaderValue::as_bytes);
    parts.version == Version::HTTP_2 && kind.starts_with(b"application/grpc")
}

/// Makes the head say what this connection knows. Returns whether it has a host.
fn settle(front: &Front, peer: &Peer, parts: &mut Parts) -> bool {
    if let Some(authority) = parts.uri.authority()
        && let Ok(host) = HeaderValue::from_str(authority.as_str())
    {
        parts.headers.insert(HOST, host);
    }
    headers::strip_hop_by_hop(&mut parts.headers);
    let origin = forwarded::origin(&parts.headers, peer.address.ip(), peer.secure, |hop| front.trusts(hop));
    forwarded::set(&mut parts.headers, origin);
    parts.headers.contains_key(HOST)
}

fn redirect(to: &str) -> Response<Body> {
    let Ok(to) = HeaderValue::from_str(to) else {
        return answers::problem(StatusCode::BAD_GATEWAY, "The address of the app is not readable.");
    };
    let mut response = answers::empty(StatusCode::TEMPORARY_REDIRECT);
    response.headers_mut().insert(LOCATION, to);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

impl Exchange {
    /// The ticket that came along, or a new one, or what the client gets instead.
    async fn leave(&self, headers: &HeaderMap, query: Option<&str>) -> Result<Granted, Box<Response<Body>>> {
        if rewrite::speaks_for_itself(&self.scope, headers, query) {
            let valid = cookies::tickets(headers)
                .find_map(|text| ticket::verify(&self.rules.keys, text, &self.scope.at, now()));
            if let Some(ticket) = valid {
                return Ok(Granted { ticket, cookies: Vec::new(), allow_origin: None });
            }
        }
        self.ask(None).await
    }

    /// Asks the application.
    async fn ask(&self, failure: Option<&str>) -> Result<Granted, Box<Response<Body>>> {
        Tally::add(&self.front.tally.app_questions);
        match self.question.ask(&self.rules, &self.upstream, failure).await {
            Ok(Verdict::Granted(granted)) => Ok(granted),
            Ok(Verdict::Refused(mut response)) => {
                headers::strip_hop_by_hop(response.headers_mut());
                Err(Box::new(response.map(Either::Left)))
            }
            Err(_) => {
                Tally::add(&self.front.tally.upstream_errors);
                let message = "The application does not answer. It may be starting; try again in a moment.";
                Err(Box::new(answers::problem(StatusCode::BAD_GATEWAY, message)))
            }
        }
    }

    async fn connect(&self, granted: &Granted) -> Result<Connection, DialError> {
        let dial = self.front.apps.dial().ok_or(DialError::NoTunnel)?;
        pool::connect(dial, (granted.ticket.to, granted.ticket.tls)).await
    }

    /// The page about an app that is down.
    async fn failed(&self, failure: &Failure) -> Response<Body> {
        Tally::add(&self.front.tally.app_failures);
        let text = match failure {
            Failure::Dial(error) => error.to_string(),
            Failure::Broken => "broken".to_owned(),
        };
        match self.ask(Some(&text)).await {
            Err(page) => *page,
            // It has no page for that.
            Ok(_) => answers::problem(StatusCode::BAD_GATEWAY, "The app does not answer."),
        }
    }
}

/// Sends the request over an idle connection, or a new one.
async fn send(
    exchange: &Exchange,
    granted: &mut Granted,
    request: Request<Incoming>,
) -> Result<Response<Incoming>, Failure> {
    let place = (granted.ticket.to, granted.ticket.tls);
    let (parts, body) = request.into_parts();
    // What changes nothing and has no body is sent again when a server closes an idle connection at that moment.
    let again = (body.is_end_stream()
        && matches!(parts.method, Method::GET | Method::HEAD | Method::OPTIONS))
    .then(|| parts.clone());
    let mut request = Request::from_parts(parts, Sent::Left(body));
    while let Some(mut connection) = exchange.front.apps.pool.take(place) {
        match connection.try_send_request(request).await {
            Ok(response) => return Ok(keep(exchange, granted, connection, response)),
            Err(mut error) => match (error.take_message(), &again) {
                (Some(unsent), _) => request = unsent,
                (None, Some(parts)) => request = bodiless(parts.clone()),
                (None, None) => return Err(Failure::Broken),
            },
        }
    }
    let connection = match exchange.connect(granted).await {
        // The tunnel was taken down since the ticket was issued: whoever issues another one sets it up.
        Err(DialError::NoTunnel | DialError::Timeout) => {
            *granted = exchange.ask(None).await.map_err(|_| Failure::Dial(DialError::NoTunnel))?;
            exchange.connect(granted).await
        }
        other => other,
    };
    let mut connection = connection.map_err(Failure::Dial)?;
    let response = connection.send_request(request).await.map_err(|_| Failure::Broken)?;
    Ok(keep(exchange, granted, connection, response))
}

/// Sends a request over HTTP/2.
async fn call(
    exchange: &Exchange,
    granted: &Granted,
    request: Request<Incoming>,
) -> Result<Response<Incoming>, Failure> {
    let (place, pool) = ((granted.ticket.to, granted.ticket.tls), &exchange.front.apps.pool);
    let mut connection = match pool.take_shared(place) {
        Some(connection) => connection,
        None => {
            let dial = exchange.front.apps.dial().ok_or(Failure::Dial(DialError::NoTunnel))?;
            let connection = pool::connect_shared(dial, place).await.map_err(Failure::Dial)?;
            pool.share(place, connection.clone());
            connection
        }
    };
    let (mut parts, body) = request.into_parts();
    let scheme = if granted.ticket.tls { Scheme::HTTPS } else { Scheme::HTTP };
    let host = parts.headers.remove(HOST).and_then(|host| Authority::try_from(host.as_bytes()).ok());
    let mut uri = parts.uri.into_parts();
    (uri.scheme, uri.authority) = (Some(scheme), host);
    parts.uri = Uri::from_parts(uri).map_err(|_| Failure::Broken)?;
    // The answer's last word, whether it went well, is a trailer.
    parts.headers.insert(TE, HeaderValue::from_static("trailers"));
    connection.send_request(Request::from_parts(parts, Sent::Left(body))).await.map_err(|_| Failure::Broken)
}

fn bodiless(parts: Parts) -> Request<Sent> {
    Request::from_parts(parts, Either::Right(Full::new(Bytes::new())))
}

fn keep(
    exchange: &Exchange,
    granted: &Granted,
    connection: Connection,
    response: Response<Incoming>,
) -> Response<Incoming> {
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        exchange.front.apps.pool.give_back((granted.ticket.to, granted.ticket.tls), connection);
    }
    response
}

/// The answer as the client gets it.
fn pass_back(
    exchange: &Exchange,
    peer: &Peer,
    granted: &Granted,
    mut response: Response<Incoming>,
    client: Option<OnUpgrade>,
    watch: Watch,
) -> Response<Body> {
    let protocol = headers::upgrade(response.headers());
    headers::strip_hop_by_hop(response.headers_mut());
    rewrite::response(response.headers_mut(), &exchange.scope, granted);
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return response.map(|body| Either::Right(Either::Right(Watched::new(body, watch))));
    }
    let (Some(client), Some(protocol)) = (client, protocol) else {
        Tally::add(&exchange.front.tally.app_failures);
        return answers::problem(StatusCode::BAD_GATEWAY, "The app switched to a protocol nobody asked for.");
    };
    headers::set_upgrade(response.headers_mut(), protocol);
    let server = hyper::upgrade::on(&mut response);
    let seat = Arc::clone(&peer.seat);
    tokio::spawn(async move {
        let _seat = seat;
        tokio::select! {
            () = splice(client, server) => {}
            () = watch => {}
        }
    });
    response.map(Either::Left)
}

/// After an upgrade: bytes both ways until both sides have ended.
async fn splice(client: OnUpgrade, server: OnUpgrade) {
    if let (Ok(client), Ok(server)) = tokio::join!(client, server) {
        // An error ends both; nobody is left to be told.
        let _ = tokio::io::copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(server)).await;
    }
}

/// Asks again each time a ticket ends, and ends itself when there is no further one for the same place. So nobody
/// keeps a stream for longer than a ticket's life after losing the right to it.
fn watch(exchange: Arc<Exchange>, granted: &Granted) -> Watch {
    let (mut end, to) = (granted.ticket.exp, granted.ticket.to);
    Box::pin(async move {
        loop {
            tokio::time::sleep(Duration::from_secs(end.saturating_sub(now()))).await;
            match renewed(&exchange).await {
                Some(granted) if granted.ticket.to == to => end = granted.ticket.exp,
                _ => return,
            }
        }
    })
}

async fn renewed(exchange: &Exchange) -> Option<Granted> {
    for _ in 0..RENEW_ATTEMPTS {
        match exchange.question.ask(&exchange.rules, &exchange.upstream, None).await {
            Ok(Verdict::Granted(granted)) => return Some(granted),
            Ok(Verdict::Refused(answer)) if !in_trouble(answer.status()) => return None,
            _ => tokio::time::sleep(RENEW_RETRY).await,
        }
    }
    None
}

/// Says nothing about the user's rights.
fn in_trouble(status: StatusCode) -> bool {
    status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS
}
