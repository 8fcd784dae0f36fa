//! A real client against the server, over a pair of sockets.
#![allow(clippy::unwrap_used, missing_docs)]

use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream as StdStream;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use russh::client::{self, Handle};
use russh::keys::PublicKeyOrCertificate;
use russh::{Channel, ChannelMsg, Sig};
use russh_sftp::protocol::FileAttributes;
use ssh::{Kind, Notice, Policy, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};

/// Accepts any host key; carries what the server opens to `target`.
struct Client {
    target: Option<std::net::SocketAddr>,
}

impl client::Handler for Client {
    type Error = russh::Error;

    async fn check_server_key(&mut self, _: &PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        Ok(true)
    }

    async fn server_channel_open_forwarded_tcpip(
        &mut self,
        channel: Channel<client::Msg>,
        _: &str,
        _: u32,
        _: &str,
        _: u32,
        reply: client::ChannelOpenHandle,
        _: &mut client::Session,
    ) -> Result<(), russh::Error> {
        reply.accept().await;
        let target = self.target.unwrap();
        tokio::spawn(async move {
            let mut stream = TcpStream::connect(target).await.unwrap();
            let _ = tokio::io::copy_bidirectional(&mut channel.into_stream(), &mut stream).await;
        });
        Ok(())
    }
}

struct World {
    server: Server,
    notices: Arc<Mutex<Vec<Notice>>>,
    place: tempfile::TempDir,
}

fn world(change: impl FnOnce(&mut Policy, &Path)) -> World {
    patient(None, change)
}

/// A world whose server gives clients up that are silent for so long.
fn patient(silence: Option<Duration>, change: impl FnOnce(&mut Policy, &Path)) -> World {
    let place = tempfile::tempdir().unwrap();
    let mut policy = Policy {
        shell: "/bin/sh".into(),
        home: place.path().into(),
        directory: place.path().into(),
        defaults: vec![
            ("PATH".into(), std::env::var_os("PATH").unwrap()),
            ("HOME".into(), place.path().into()),
        ],
        overrides: vec![("CODER".into(), "true".into())],
        ..Policy::default()
    };
    change(&mut policy, place.path());
    let notices = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&notices);
    let tell = move |notice| told.lock().unwrap().push(notice);
    let server = Server::start(&[7; 32], policy, silence, tell).unwrap();
    World { server, notices, place }
}

impl World {
    async fn client(&self, session: u64, target: Option<std::net::SocketAddr>) -> Handle<Client> {
        let (ours, theirs) = StdStream::pair().unwrap();
        self.server.serve(OwnedFd::from(theirs), session);
        ours.set_nonblocking(true).unwrap();
        let stream = UnixStream::from_std(ours).unwrap();
        let mut handle = client::connect_stream(Arc::default(), stream, Client { target }).await.unwrap();
        assert!(handle.authenticate_none("anybody").await.unwrap().success());
        handle
    }
}

#[derive(Debug, Default, PartialEq)]
struct Outcome {
    out: String,
    err: String,
    status: Option<u32>,
    signal: Option<String>,
}

async fn outcome(mut channel: Channel<client::Msg>) -> Outcome {
    let mut found = Outcome::default();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    while let Some(message) = channel.wait().await {
        match message {
            ChannelMsg::Data { data } => out.extend_from_slice(&data),
            ChannelMsg::ExtendedData { data, ext: 1 } => err.extend_from_slice(&data),
            ChannelMsg::ExitStatus { exit_status } => found.status = Some(exit_status),
            ChannelMsg::ExitSignal { signal_name, .. } => found.signal = Some(format!("{signal_name:?}")),
            _ => {}
        }
    }
    found.out = String::from_utf8_lossy(&out).into_owned();
    found.err = String::from_utf8_lossy(&err).into_owned();
    found
}

async fn run(handle: &Handle<Client>, command: &str) -> Outcome {
    let channel = handle.channel_open_session().await.unwrap();
    channel.exec(true, command).await.unwrap();
    outcome(channel).await
}

#[tokio::test]
async fn a_command_has_two_outputs_and_an_exit_code() {
    let world = world(|_, _| {});
    let client = world.client(5, None).await;
    let found = run(&client, "echo out; echo err >&2; exit 3").await;
    assert_eq!(found, Outcome { out: "out\n".into(), err: "err\n".into(), status: Some(3), signal: None });
    assert_eq!(
        run(&client, "kill -9 $$").await,
        Outcome { signal: Some("KILL".into()), ..Outcome::default() }
    );
    assert_eq!(
        run(&client, "pwd").await.out.trim(),
        world.place.path().canonicalize().unwrap().to_str().unwrap()
    );
    client.disconnect(russh::Disconnect::ByApplication, "", "").await.unwrap();
    drop(client);
    let ended = loop {
        if let Some(Notice::Ended { session: 5, status, .. }) = world.notices.lock().unwrap().last() {
            break *status;
        }
        tokio::task::yield_now().await;
    };
    assert!(ended.is_some());
    assert_eq!(world.notices.lock().unwrap()[0], Notice::Began { session: 5, kind: Kind::Ssh });
    // The notice comes a moment before the count.
    while world.server.sessions() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn input_of_any_length_comes_back_and_its_end_is_seen() {
    let world = world(|_, _| {});
    let client = world.client(1, None).await;
    let channel = client.channel_open_session().await.unwrap();
    channel.exec(true, "cat").await.unwrap();
    let sent: Vec<u8> = (0..6_000_000_u32).map(|n| (n % 251) as u8).collect();
    let (mut read, write) = channel.split();
    let copy = sent.clone();
    let sending = tokio::spawn(async move {
        write.data_bytes(copy).await.unwrap();
        write.eof().await.unwrap();
    });
    let mut got = Vec::new();
    while let Some(message) = read.wait().await {
        if let ChannelMsg::Data { data } = message {
            got.extend_from_slice(&data);
        }
    }
    sending.await.unwrap();
    assert!(got == sent);
}

#[tokio::test]
async fn what_a_process_left_behind_does_not_keep_the_session() {
    let world = world(|_, _| {});
    let client = world.client(1, None).await;
    assert_eq!(run(&client, "sleep 600 & echo started; exit 4").await.status, Some(4));
    run(&client, "pkill -f 'sleep 600'").await;
}

#[tokio::test]
async fn a_terminal_has_its_size_its_type_and_its_greeting() {
    let world = world(|policy, place| {
        policy.banners = vec!["planned outage".into()];
        policy.motd = Some(place.join("motd"));
        std::fs::write(place.join("motd"), "welcome\n").unwrap();
    });
    let client = world.client(1, None).await;
    let channel = client.channel_open_session().await.unwrap();
    channel.request_pty(true, "xterm-256color", 101, 33, 0, 0, &[(russh::Pty::ECHO, 0)]).await.unwrap();
    channel.request_shell(true).await.unwrap();
    channel.data_bytes("stty size; echo $TERM; tty -s && test -n \"$SSH_TTY\" && exit 7\n").await.unwrap();
    let found = outcome(channel).await;
    assert!(found.out.starts_with("planned outage\r\n\r\nwelcome\r\n"), "{}", found.out);
    assert!(found.out.contains("33 101") && found.out.contains("xterm-256color"), "{}", found.out);
    assert_eq!(found.status, Some(7));
}

#[tokio::test]
async fn a_terminal_changes_its_size_and_hangs_up() {
    let world = world(|_, _| {});
    let client = world.client(1, None).await;
    let mut channel = client.channel_open_session().await.unwrap();
    channel.request_pty(true, "vt100", 80, 24, 0, 0, &[]).await.unwrap();
    channel
        .exec(true, "trap 'stty size; echo resized' WINCH; echo ready; while :; do sleep 0.05; done")
        .await
        .unwrap();
    let mut seen = String::new();
    let mut asked = false;
    while !seen.contains("resized") {
        if let Some(ChannelMsg::Data { data }) = channel.wait().await {
            seen.push_str(&String::from_utf8_lossy(&data));
        }
        if seen.contains("ready") && !std::mem::replace(&mut asked, true) {
            channel.window_change(120, 40, 0, 0).await.unwrap();
        }
    }
    assert!(seen.contains("40 120"), "{seen}");
    channel.close().await.unwrap();
}

#[tokio::test]
async fn signals_reach_the_process() {
    let world = world(|_, _| {});
    let client = world.client(1, None).await;
    let mut channel = client.channel_open_session().await.unwrap();
    channel.exec(true, "trap 'exit 9' USR1; echo ready; while :; do sleep 0.02; done").await.unwrap();
    while !matches!(channel.wait().await, Some(ChannelMsg::Data { .. })) {}
    channel.signal(Sig::USR1).await.unwrap();
    assert_eq!(outcome(channel).await.status, Some(9));
}

#[tokio::test]
async fn the_client_sets_variables_but_not_those_that_are_fixed() {
    let world = world(|_, _| {});
    let client = world.client(1, None).await;
    let channel = client.channel_open_session().await.unwrap();
    for (name, value) in [("LANG", "C"), ("CODER", "no"), ("CODER_SSH_SESSION_TYPE", "vscode")] {
        channel.set_env(true, name, value).await.unwrap();
    }
    channel.exec(true, "echo $LANG $CODER ${CODER_SSH_SESSION_TYPE-unset}").await.unwrap();
    assert_eq!(outcome(channel).await.out, "C true unset\n");
    assert_eq!(world.notices.lock().unwrap()[0], Notice::Began { session: 1, kind: Kind::VsCode });
}

#[tokio::test]
async fn a_shell_that_is_not_there_is_said_so() {
    let world = world(|policy, _| policy.shell = "/nowhere/sh".into());
    let client = world.client(1, None).await;
    let found = run(&client, "true").await;
    assert_eq!(found.status, Some(229));
    assert!(found.err.contains("/nowhere/sh"), "{}", found.err);
}

#[tokio::test]
async fn moving_files_can_be_forbidden() {
    let world = world(|policy, _| policy.block_file_transfer = true);
    let client = world.client(1, None).await;
    let found = run(&client, "scp -t /tmp").await;
    assert_eq!(found.status, Some(65));
    assert_eq!(found.err, "\u{2}File transfer has been disabled.\n");
    assert_eq!(run(&client, "true").await.status, Some(0));
}

#[tokio::test]
async fn ports_are_forwarded_both_ways() {
    let world = world(|_, _| {});
    let service = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = service.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = service.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                tokio::io::copy(&mut read, &mut write).await.unwrap();
            });
        }
    });
    let client = world.client(1, Some(target)).await;
    let channel =
        client.channel_open_direct_tcpip("127.0.0.1", target.port().into(), "127.0.0.1", 1).await.unwrap();
    echo(channel.into_stream()).await;
    assert!(client.channel_open_direct_streamlocal("/nowhere/socket").await.is_err());

    let port = client.tcpip_forward("127.0.0.1", 0).await.unwrap();
    echo(TcpStream::connect(("127.0.0.1", port as u16)).await.unwrap()).await;
    client.cancel_tcpip_forward("127.0.0.1", port).await.unwrap();
    assert!(TcpStream::connect(("127.0.0.1", port as u16)).await.is_err());
}

#[tokio::test]
async fn a_forwarded_port_without_an_address_is_for_this_machine_only() {
    let world = world(|_, _| {});
    let client = world.client(1, None).await;
    let port = client.tcpip_forward("", 0).await.unwrap() as u16;
    let bound = std::net::TcpListener::bind(("127.0.0.2", port));
    assert!(bound.is_ok(), "an address that nobody asked for is taken");
    assert!(TcpStream::connect(("127.0.0.1", port)).await.is_ok());
}

#[tokio::test]
async fn connections_count_as_channels() {
    let world = world(|_, _| {});
    let service = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = u32::from(service.local_addr().unwrap().port());
    let client = world.client(1, None).await;
    let mut held = Vec::new();
    while let Ok(channel) = client.channel_open_direct_tcpip("127.0.0.1", port, "127.0.0.1", 1).await {
        held.push((channel, service.accept().await.unwrap()));
        assert!(held.len() <= 1024);
    }
    assert!(client.channel_open_session().await.is_err());
    held.pop().unwrap().0.close().await.unwrap();
    while client.channel_open_session().await.is_err() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_screen_does_not_outlive_its_channel() {
    let world = world(|_, _| {});
    let client = world.client(1, None).await;
    let channel = client.channel_open_session().await.unwrap();
    channel.request_x11(false, false, "MIT-MAGIC-COOKIE-1", "00ff", 0).await.unwrap();
    channel.exec(true, "echo $DISPLAY; ls $XAUTHORITY").await.unwrap();
    let found = outcome(channel).await;
    assert_eq!(found.status, Some(0), "{}", found.err);
    let (display, file) = found.out.trim().split_once('\n').unwrap();
    assert!(display.starts_with("localhost:"), "{display}");
    // The next channels find it over.
    while Path::new(file).exists() {
        assert_eq!(run(&client, "echo $DISPLAY").await.out, "\n");
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_process_has_the_limit_of_open_files_it_is_meant_to_have() {
    let world = world(|policy, _| policy.open_files = Some(123));
    let client = world.client(1, None).await;
    for terminal in [false, true] {
        let channel = client.channel_open_session().await.unwrap();
        if terminal {
            channel.request_pty(true, "vt100", 80, 24, 0, 0, &[]).await.unwrap();
        }
        // It is limited by the time its input arrives.
        channel.exec(true, "read go; echo limit $(ulimit -n)").await.unwrap();
        channel.data_bytes("go\n").await.unwrap();
        let found = outcome(channel).await;
        assert!(found.out.contains("limit 123"), "{}", found.out);
    }
}

async fn echo(mut stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin) {
    stream.write_all(b"there and back").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, b"there and back");
}

#[tokio::test]
async fn garbage_ends_one_session_and_no_other() {
    let world = world(|_, _| {});
    let client = world.client(1, None).await;
    let (ours, theirs) = StdStream::pair().unwrap();
    world.server.serve(OwnedFd::from(theirs), 2);
    ours.set_nonblocking(true).unwrap();
    let mut stream = UnixStream::from_std(ours).unwrap();
    stream.write_all(b"SSH-2.0-x\r\n\xff\xff\xff\xff garbage").await.unwrap();
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
    assert_eq!(run(&client, "echo alive").await.out, "alive\n");
    assert!(
        world.notices.lock().unwrap().iter().any(|notice| matches!(notice, Notice::Ended { session: 2, .. }))
    );
}

#[tokio::test]
async fn files_are_moved() {
    let world = world(|_, _| {});
    let client = world.client(1, None).await;
    let channel = client.channel_open_session().await.unwrap();
    channel.request_subsystem(true, "sftp").await.unwrap();
    let sftp = russh_sftp::client::SftpSession::new(channel.into_stream()).await.unwrap();
    let home = world.place.path().canonicalize().unwrap();
    assert_eq!(sftp.canonicalize(".").await.unwrap(), home.to_str().unwrap());

    let sent: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 241) as u8).collect();
    let mut file = sftp.create("big").await.unwrap();
    file.write_all(&sent).await.unwrap();
    file.shutdown().await.unwrap();
    assert!(std::fs::read(home.join("big")).unwrap() == sent);
    assert!(sftp.read("big").await.unwrap() == sent);
    assert_eq!(sftp.metadata("big").await.unwrap().size, Some(3_000_000));

    sftp.create_dir("sub").await.unwrap();
    sftp.rename("big", "sub/moved").await.unwrap();
    // OpenSSH has the target first, against the draft; so do the clients that are used.
    sftp.symlink("moved", "sub/link").await.unwrap();
    let mut names: Vec<String> = sftp.read_dir("sub").await.unwrap().map(|entry| entry.file_name()).collect();
    names.sort();
    assert_eq!(names, ["link", "moved"]);
    assert!(sftp.read("nowhere").await.is_err() && sftp.remove_dir("sub").await.is_err());
    std::fs::write(home.join("other"), "").unwrap();
    assert!(sftp.rename("other", "sub/moved").await.is_err(), "nothing is replaced unasked");

    let space = sftp.fs_info(".").await.unwrap().unwrap();
    assert!(space.blocks > 0 && space.name_max >= 255);
    sftp.close().await.unwrap();
}

#[tokio::test]
async fn a_pipe_gets_another_mode_though_nobody_writes_to_it() {
    let world = world(|_, _| {});
    let client = world.client(1, None).await;
    let channel = client.channel_open_session().await.unwrap();
    channel.request_subsystem(true, "sftp").await.unwrap();
    let sftp = russh_sftp::client::SftpSession::new(channel.into_stream()).await.unwrap();
    let pipe = world.place.path().join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let wanted = FileAttributes { permissions: Some(0o640), ..FileAttributes::empty() };
    sftp.set_metadata("pipe", wanted).await.unwrap();
    assert_eq!(std::fs::metadata(&pipe).unwrap().permissions().mode() & 0o777, 0o640);
}

/// The stream of a client that freezes without a word: nothing is closed, and nothing answers.
#[tokio::test]
async fn a_client_that_answers_nothing_is_given_up() {
    let world = patient(Some(Duration::from_millis(600)), |_, _| {});
    let (near, far) = StdStream::pair().unwrap();
    let (inner, served) = StdStream::pair().unwrap();
    world.server.serve(OwnedFd::from(served), 1);
    let [mut near, mut inner, far] = [near, inner, far].map(|stream| {
        stream.set_nonblocking(true).unwrap();
        UnixStream::from_std(stream).unwrap()
    });
    let (freeze, frozen) = tokio::sync::oneshot::channel();
    let carrying = tokio::spawn(async move {
        tokio::select! {
            _ = tokio::io::copy_bidirectional(&mut near, &mut inner) => panic!("nobody has ended this"),
            _ = frozen => {}
        }
        let mut asked = Vec::new();
        inner.read_to_end(&mut asked).await.unwrap();
        (asked, near)
    });
    let connecting = client::connect_stream(Arc::default(), far, Client { target: None });
    let mut client = connecting.await.unwrap();
    assert!(client.authenticate_none("anybody").await.unwrap().success());
    assert_eq!(run(&client, "echo there").await.out, "there\n");
    freeze.send(()).unwrap();
    let (asked, _near) = carrying.await.unwrap();
    assert!(!asked.is_empty());
}
