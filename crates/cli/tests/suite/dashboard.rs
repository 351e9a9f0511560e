//! `reveille dashboard`: who gets in, how it ends, and what it tells nobody.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use crate::cli::{command, run};
use crate::harness::{DEADLINE, TestDatabase, database, eventually, host_and_port};

/// A running dashboard. Dropping this kills the process.
pub struct Served {
    process: Child,
    at: SocketAddr,
    /// The link that the command has printed.
    pub link: String,
    /// The lines that the command has printed as errors.
    errors: Arc<Mutex<Vec<String>>>,
}

/// An answer: its status, its head in lower case, and its body.
pub struct Answer {
    pub status: u16,
    head: String,
    pub body: String,
    took: Duration,
}

fn dashboard(database: &TestDatabase, at: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Command {
    let mut command = command(&["dashboard", "--listen", at]);
    command.args(arguments).env("DATABASE_URL", &database.address);
    command.envs(variables.iter().copied());
    command
}

impl Served {
    fn start(database: &TestDatabase, arguments: &[&str], variables: &[(&str, &str)]) -> Served {
        // With --public-url, the link does not have the port.
        let at = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        Served::by(dashboard(database, &at.to_string(), arguments, variables), Some(at))
    }

    /// Starts a command that serves the dashboard, at the address of its link unless another one is given.
    pub fn by(mut command: Command, at: Option<SocketAddr>) -> Served {
        let mut process = command.spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines().map_while(Result::ok);
        let (sender, printed) = channel();
        std::thread::spawn(move || {
            let _ = sender.send(lines.next());
            lines.for_each(drop);
        });
        let errors = BufReader::new(process.stderr.take().unwrap()).lines().map_while(Result::ok);
        let received = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&received);
        std::thread::spawn(move || errors.for_each(|line| kept.lock().unwrap().push(line)));
        let link = printed.recv_timeout(DEADLINE).ok().flatten().unwrap_or_else(|| {
            let _ = process.kill();
            panic!("the dashboard prints its link: {:?}", received.lock().unwrap())
        });
        let at = at.unwrap_or_else(|| link.split('/').nth(2).unwrap().parse().unwrap());
        Served { process, at, link, errors: received }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.at).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream
    }

    pub fn get(&self, path: &str, headers: &[&str]) -> Answer {
        self.send("GET", path, headers, "")
    }

    fn send(&self, method: &str, path: &str, headers: &[&str], body: &str) -> Answer {
        let (began, mut stream) = (Instant::now(), self.connect());
        let host = if headers.iter().any(|header| header.starts_with("Host:")) { "" } else { "Host: localhost\r\n" };
        let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\n{host}{headers}Connection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}"));
        Answer {
            status: head.split(' ').nth(1).unwrap().parse().unwrap(),
            head: head.to_owned(),
            body: body.to_owned(),
            took: began.elapsed(),
        }
    }

    /// Returns the cookie that the printed link leads to.
    pub fn cookie(&self) -> String {
        let query = self.link.split_once('?').unwrap().1;
        let answer = self.get(&format!("/?{query}"), &[]);
        assert_eq!(answer.status, 303, "{}", answer.head);
        let cookie = answer.value("set-cookie").split(';').next().unwrap().to_owned();
        format!("Cookie: other=1; {cookie}; another=2")
    }

    pub fn interrupt(&self) {
        let pid = self.process.id().to_string();
        assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    }

    /// Waits for the end, and returns the exit status and what was printed as errors.
    pub fn ended(mut self) -> (Option<i32>, Vec<String>) {
        let began = Instant::now();
        while self.process.try_wait().unwrap().is_none() {
            assert!(began.elapsed() < DEADLINE, "the dashboard ends");
            std::thread::sleep(Duration::from_millis(10));
        }
        let code = self.process.wait().unwrap().code();
        // The thread that reads the errors releases them at their end.
        while Arc::strong_count(&self.errors) > 1 {
            std::thread::sleep(Duration::from_millis(10));
        }
        let errors = self.errors.lock().unwrap().clone();
        (code, errors)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Answer {
    fn value(&self, name: &str) -> &str {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.into_iter().find(|(known, _)| *known == name).map(|(_, value)| value).unwrap_or_default()
    }
}

fn basic(name: &str, password: &str) -> String {
    format!("Authorization: Basic {}", BASE64_STANDARD.encode(format!("{name}:{password}")))
}

const PASSWORD: (&str, &str) = ("REVEILLE_DASHBOARD_PASSWORD", "a secret: with colons");

#[tokio::test(flavor = "multi_thread")]
async fn only_the_printed_link_lets_a_user_of_the_machine_in() {
    let database = database().await;
    let served = Served::start(&database, &[], &[]);
    let (page, token) = served.link.split_once("?token=").unwrap();
    assert_eq!(page, format!("http://{}/", served.at));
    assert!(token.len() == 32 && token.bytes().all(|byte| byte.is_ascii_hexdigit()), "{token}");
    let another = Served::start(&database, &[], &[]);
    assert_ne!(another.link.split_once("?token=").unwrap().1, token);

    let link = served.get(&format!("/jobs?token={token}"), &[]);
    assert_eq!((link.status, link.value("location")), (303, "./"));
    let cookie = link.value("set-cookie");
    let name = format!("reveille_{}={token};", served.at.port());
    assert!(cookie.starts_with(&name) && cookie.contains("HttpOnly") && cookie.contains("SameSite=Lax"), "{cookie}");
    assert!(!cookie.contains("Secure") && !cookie.contains("Domain"), "{cookie}");
    for (name, value) in [("cache-control", "no-store"), ("x-content-type-options", "nosniff")] {
        assert_eq!(link.value(name), value);
    }
    assert_eq!(served.get("/", &[&served.cookie()]).status, 200);

    let foreign = another.cookie();
    let wrong = format!("Cookie: reveille_{}={}", served.at.port(), "0".repeat(32));
    let empty = format!("Cookie: reveille_{}=", served.at.port());
    let cut = format!("Cookie: reveille_{}={}", served.at.port(), &token[..31]);
    for headers in [&[][..], &[foreign.as_str()], &[&wrong], &[&empty], &[&cut], &[&basic("ada", token)]] {
        for path in ["/", "/jobs", "/style.css", "/no/such/page", "/?token=", "/?token=0", "/?x=1&token=1"] {
            let answer = served.get(path, headers);
            assert_eq!(answer.status, 403, "{path} {headers:?}");
            assert!(answer.body.contains("Open the link") && !answer.body.contains(token), "{}", answer.body);
            assert_eq!((answer.value("x-frame-options"), answer.value("cache-control")), ("DENY", "no-store"));
            assert_eq!(answer.value("set-cookie"), "");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_link_behind_a_proxy_with_tls_is_for_tls_alone() {
    let database = database().await;
    let served = Served::start(&database, &["--public-url", "https://ops.example.com/jobs"], &[]);
    assert!(served.link.starts_with("https://ops.example.com/jobs/?token="), "{}", served.link);
    let query = served.link.split_once('?').unwrap().1;
    assert!(served.get(&format!("/?{query}"), &[]).value("set-cookie").ends_with("; Secure"));
    let cookie = served.cookie();
    assert_eq!(served.get("/", &[&cookie, "Host: ops.example.com"]).status, 200);
    assert_eq!(served.get("/", &[&cookie, "Host: evil.example"]).status, 421);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_for_others_needs_a_login_and_a_warning() {
    let database = database().await;
    let start =
        |at: &str, more: &[&str], variables: &[(&str, &str)]| run(dashboard(&database, at, more, variables), "");
    for at in ["0.0.0.0:0", "[::]:0"] {
        start(at, &[], &[]).refused(&["others can reach", "--auth basic"]);
        start(at, &["--auth", "basic"], &[]).refused(&["REVEILLE_DASHBOARD_PASSWORD"]);
        start(at, &["--auth", "basic"], &[("REVEILLE_DASHBOARD_PASSWORD", "")]).refused(&["PASSWORD"]);
        start(at, &["--auth", "bearer"], &[]).refused(&["REVEILLE_DASHBOARD_TOKEN"]);
    }
    let hash = ("REVEILLE_DASHBOARD_PASSWORD_HASH", "no hash");
    start("127.0.0.1:0", &["--auth", "basic"], &[hash]).refused(&["no bcrypt hash"]);
    let [password, token] = [("REVEILLE_DASHBOARD_PASSWORD", "short"), ("REVEILLE_DASHBOARD_TOKEN", "short")];
    start("127.0.0.1:0", &["--auth", "basic"], &[password]).refused(&["at least 12 random characters"]);
    start("127.0.0.1:0", &["--auth", "bearer"], &[token]).refused(&["at least 32 random characters"]);
    start("127.0.0.1:0", &[], &[("REVEILLE_DASHBOARD_SECRET", "short")]).refused(&["16 random characters"]);
    start("nowhere", &[], &[]).refused(&["cannot listen at nowhere"]);
    start("127.0.0.1:0", &["--host", "a b"], &[]).refused(&["--host \"a b\" is no name of a host"]);
    start("127.0.0.1:0", &["--host", "x@y"], &[]).refused(&["--host"]);
    for url in ["ops.example.com", "ftp://ops.example.com", "https://a:b@ops.example.com", "https://x/?a=b"] {
        start("127.0.0.1:0", &["--public-url", url], &[]).refused(&["--public-url"]);
    }
    let unreachable = [("DATABASE_URL", "postgres://user:secret@127.0.0.1:1/none")];
    start("127.0.0.1:0", &[], &unreachable).refused(&["127.0.0.1:1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_lets_in_and_a_wrong_one_waits() {
    let database = database().await;
    let hash = bcrypt::hash(PASSWORD.1, 10).unwrap();
    for variable in [PASSWORD, ("REVEILLE_DASHBOARD_PASSWORD_HASH", hash.as_str())] {
        let served = Served::start(&database, &["--auth", "basic"], &[variable]);
        assert!(!served.link.contains("token"), "{}", served.link);
        let asked = served.get("/", &[]);
        assert_eq!((asked.status, asked.value("cache-control")), (401, "no-store"));
        assert!(asked.value("www-authenticate").starts_with("Basic realm="), "{}", asked.head);
        let right = basic("Ada Łovelace", PASSWORD.1);
        let page = served.get("/", &[&right]);
        assert_eq!(page.status, 200, "{}", page.body);
        assert!(page.body.contains("Ada Łovelace"), "{}", page.body);

        let longer = format!("{}x", PASSWORD.1);
        let wrong = ["", "a secret", &longer, &PASSWORD.1.to_uppercase(), "wrong"].map(|wrong| basic("ada", wrong));
        let odd = ["Authorization: Basic !", "Authorization: Basic", "Authorization: Bearer x"].map(str::to_owned);
        let nameless = basic("ada\nroot", PASSWORD.1);
        std::thread::scope(|scope| {
            let all: Vec<_> = wrong.iter().chain(&odd).chain([&nameless]).collect();
            let failing: Vec<_> = all.iter().map(|wrong| scope.spawn(|| served.get("/", &[wrong]))).collect();
            // The right one does not wait for the wrong ones.
            while failing.iter().any(|login| !login.is_finished()) {
                let right = served.get("/", &[&right]);
                assert_eq!(right.status, 200);
                assert!(right.took < Duration::from_secs(5), "{:?}", right.took);
            }
            for login in failing {
                let login = login.join().unwrap();
                assert_eq!(login.status, 401);
                assert!(login.took >= Duration::from_secs(1), "{:?}", login.took);
            }
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_sends_its_token_and_the_visitors_name() {
    let database = database().await;
    let token = ("REVEILLE_DASHBOARD_TOKEN", "0123456789abcdef0123456789abcdef");
    let served = Served::start(&database, &["--auth", "bearer", "--host", "ops.example.com"], &[token]);
    let right = "Authorization: Bearer 0123456789abcdef0123456789abcdef";
    let page = |headers: &[&str]| served.get("/", headers);
    let named = page(&[right, "X-Forwarded-User: ada <b>", "Host: ops.example.com"]);
    assert_eq!(named.status, 200);
    assert!(named.body.contains("ada &lt;b&gt;"), "{}", named.body);
    for headers in [
        &[][..],
        &["X-Forwarded-User: ada"],
        // Without a name, no change could be recorded.
        &[right],
        &[right, "X-Forwarded-User: "],
        &["Authorization: Bearer 0123456789abcdef0123456789abcde", "X-Forwarded-User: ada"],
        &["Authorization: Bearer", "X-Forwarded-User: ada"],
        &["Authorization: Basic 0123456789abcdef0123456789abcdef", "X-Forwarded-User: ada"],
        // Who lets a visitor's own header through, lets nobody in.
        &[right, "X-Forwarded-User: root", "X-Forwarded-User: ada"],
    ] {
        let answer = page(headers);
        assert_eq!(answer.status, 401, "{headers:?}");
        assert_eq!(answer.value("www-authenticate"), "");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_dashboard_changes_nothing() {
    let database = database().await;
    database.run("insert into reveille.jobs (kind) values ('note')").await;
    let secret = "0123456789abcdef0123456789abcdef";
    let served = Served::start(&database, &["--read-only", "--auth", "none"], &[("REVEILLE_DASHBOARD_SECRET", secret)]);
    let page = served.get("/jobs/1", &[]);
    assert!(page.status == 200 && page.body.contains("read-only") && !page.body.contains("method=\"post\""));
    let own = ["Sec-Fetch-Site: same-origin", "Content-Type: application/x-www-form-urlencoded"];
    // The same secret signs the forms of another dashboard, which may change jobs.
    let writing = Served::start(&database, &["--auth", "none"], &[("REVEILLE_DASHBOARD_SECRET", secret)]);
    let form = writing.get("/jobs/1", &[]).body;
    let signature = form.split("name=\"signature\" value=\"").nth(1).unwrap().split('"').next().unwrap();
    let body = format!("signature={signature}");
    let refused = served.send("POST", "/jobs/1/cancel", &own, &body);
    assert_eq!(refused.status, 403);
    assert!(refused.body.contains("the dashboard is read-only"), "{}", refused.body);
    assert_eq!(database.value("select count(*) from reveille.jobs").await, 1);
    assert_eq!(writing.send("POST", "/jobs/1/cancel", &own, &body).status, 303);
    assert_eq!(database.value("select count(*) from reveille.jobs").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_ends_quickly_with_streams_and_stuck_clients() {
    let database = database().await;
    let served = Served::start(&database, &["--auth", "none"], &[]);
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut stream = served.connect();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n").unwrap();
        let mut begin = [0; 15];
        stream.read_exact(&mut begin).unwrap();
        assert_eq!(&begin, b"HTTP/1.1 200 OK");
        clients.push(stream);
    }
    let began = Instant::now();
    served.interrupt();
    let (code, errors) = served.ended();
    assert_eq!(code, Some(0), "{errors:?}");
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());

    // A client that has sent half a request, and one that reads nothing, end with it after a grace.
    let served = Served::start(&database, &["--auth", "none"], &[]);
    let mut slow = served.connect();
    slow.write_all(
        b"POST /queue/pause HTTP/1.1\r\nHost: localhost\r\nSec-Fetch-Site: same-origin\r\nContent-Length: 9\r\n\
          Content-Type: application/x-www-form-urlencoded\r\n\r\nx=",
    )
    .unwrap();
    let mut deaf = served.connect();
    deaf.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
    let request = b"GET /style.css HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(100);
    while deaf.write_all(&request).is_ok() {}
    let began = Instant::now();
    served.interrupt();
    let (code, errors) = served.ended();
    assert_eq!(code, Some(0), "{errors:?}");
    assert!(began.elapsed() < Duration::from_secs(9), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_told_to_nobody() {
    let database = database().await;
    let role = format!("dashboard_{}_{:08x}", std::process::id(), fastrand::u32(..));
    database.run(&format!("create role {role} login superuser password 'pass-sesame'")).await;
    let config: tokio_postgres::Config = database.address.parse().unwrap();
    let ((host, port), name) = (host_and_port(&config), config.get_dbname().unwrap());
    let url = format!("postgres://{role}:pass-sesame@{host}:{port}/{name}");
    let variables = [("DATABASE_URL", url.as_str()), PASSWORD, ("RUST_LOG", "trace")];
    let served = Served::start(&database, &["--auth", "basic"], &variables);
    let right = basic("ada", PASSWORD.1);
    for path in ["/", "/jobs", "/workers", "/jobs/1", "/no/such"] {
        let answer = served.get(path, &[&right]);
        for secret in ["sesame", "with colons", &right[21..]] {
            assert!(!answer.body.contains(secret) && !answer.head.contains(secret), "{path}: {}", answer.body);
        }
    }
    // Without its role, the dashboard cannot reach the database.
    database.run(&format!("alter role {role} password 'other'; alter role {role} nologin")).await;
    database.run(&format!("select pg_terminate_backend(pid) from pg_stat_activity where usename = '{role}'")).await;
    eventually("the page says that the database is away", async || {
        let answer = served.get("/", &[&right]);
        assert!(!answer.body.contains("sesame"), "{}", answer.body);
        answer.body.contains("role=\"alert\"")
    })
    .await;
    served.interrupt();
    let (_, errors) = served.ended();
    for line in errors {
        assert!(!line.contains("sesame") && !line.contains("with colons") && !line.contains(&right[21..]), "{line}");
    }
    let mut help = command(&["dashboard", "--help"]);
    help.envs(variables);
    let help = run(help, "");
    assert!(help.code == 0 && help.out.contains("REVEILLE_DASHBOARD_PASSWORD"), "{}", help.err);
    assert!(!help.out.contains("sesame") && !help.out.contains("with colons"), "{}", help.out);
    let mut wrong = command(&["dashboard", "--nonsense"]);
    wrong.envs(variables);
    let wrong = run(wrong, "");
    assert_eq!(wrong.code, 2);
    assert!(!wrong.err.contains("sesame") && !wrong.err.contains("with colons"), "{}", wrong.err);
    database.run(&format!("drop owned by {role}; drop role {role}")).await;
}
