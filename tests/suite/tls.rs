//! Encrypted connections to a server whose certificate comes from a private authority.

use std::fs;
use std::os::unix::fs::{MetadataExt, lchown};
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, IsCa, Issuer, KeyIdMethod, KeyPair,
    KeyUsagePurpose, RevokedCertParams, SerialNumber,
};
use reveille::dev::Server;
use reveille::{Database, Worker, enqueue};
use tokio::sync::OnceCell;

use crate::harness::{client, eventually, note, report, reporting, start};

/// A server whose certificate is valid for `db.example` alone.
struct Secure {
    server: Server,
    right: PathBuf,
    wrong: PathBuf,
    /// A list of revoked certificates that has the server's certificate. The list `sparing` lacks this certificate.
    revoking: PathBuf,
    sparing: PathBuf,
}

static SECURE: OnceCell<Secure> = OnceCell::const_new();

fn authority(name: &str) -> (String, Issuer<'static, KeyPair>) {
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate().unwrap();
    let pem = params.self_signed(&key).unwrap().pem();
    (pem, Issuer::new(params, key))
}

/// Returns the authority's list of revoked certificates.
fn revoked(issuer: &Issuer<'static, KeyPair>, serial: u64) -> String {
    let now = rcgen::date_time_ymd(2026, 1, 1);
    let list = CertificateRevocationListParams {
        this_update: now,
        next_update: rcgen::date_time_ymd(4000, 1, 1),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: vec![RevokedCertParams {
            serial_number: SerialNumber::from(serial),
            revocation_time: now,
            reason_code: None,
            invalidity_date: None,
        }],
        key_identifier_method: KeyIdMethod::Sha256,
    };
    list.signed_by(issuer).unwrap().pem().unwrap()
}

/// Writes a file that only the server's user may read.
fn hand_over(folder: &Path, name: &str, text: &str) -> PathBuf {
    let (path, owner) = (folder.join(name), fs::metadata(folder).unwrap());
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    lchown(&path, Some(owner.uid()), Some(owner.gid())).unwrap();
    path
}

async fn secure() -> &'static Secure {
    SECURE
        .get_or_init(|| async {
            let server = Server::start().unwrap();
            let folder = server.data_dir();
            let ((right, issuer), (wrong, _)) = (authority("right"), authority("wrong"));
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(vec!["db.example".into()]).unwrap();
            params.serial_number = Some(SerialNumber::from(77));
            hand_over(&folder, "server.crt", &params.signed_by(&key, &issuer).unwrap().pem());
            hand_over(&folder, "server.key", &key.serialize_pem());
            let rules = fs::read_to_string(folder.join("pg_hba.conf")).unwrap();
            let own = "hostnossl all guarded all reject\nhostssl all plain all reject\n";
            hand_over(&folder, "pg_hba.conf", &format!("{own}{rules}"));
            let url = server.url("postgres");
            let admin = client(&url).await;
            for sql in [
                "create role guarded login superuser password 'x'",
                "create role plain login superuser password 'x'",
                "alter system set ssl = on",
                "select pg_reload_conf()",
            ] {
                admin.batch_execute(sql).await.unwrap();
            }
            eventually("new sessions can have TLS", async || {
                client(&url).await.query_one("show ssl", &[]).await.unwrap().get::<_, &str>(0) == "on"
            })
            .await;
            Database::connect(&url).await.unwrap().migrate().await.unwrap();
            let (right, wrong) = (hand_over(&folder, "right.crt", &right), hand_over(&folder, "wrong.crt", &wrong));
            let revoking = hand_over(&folder, "revoking.crl", &revoked(&issuer, 77));
            let sparing = hand_over(&folder, "sparing.crl", &revoked(&issuer, 78));
            Secure { server, right, wrong, revoking, sparing }
        })
        .await
}

impl Secure {
    /// Returns an address with the host name that is in the certificate, and with the server's IP address, so that no
    /// resolver is needed.
    fn as_named(&self, more: &str) -> String {
        format!("host=db.example hostaddr=127.0.0.1 {}", self.rest(more))
    }

    fn by_number(&self, more: &str) -> String {
        format!("host=127.0.0.1 {}", self.rest(more))
    }

    fn rest(&self, more: &str) -> String {
        format!("port={} user=postgres password={} dbname=postgres {more}", self.server.port(), self.password())
    }

    fn password(&self) -> String {
        let config: tokio_postgres::Config = self.server.url("postgres").parse().unwrap();
        String::from_utf8(config.get_password().unwrap().to_vec()).unwrap()
    }

    fn right(&self) -> String {
        format!("sslrootcert={}", self.right.display())
    }

    fn wrong(&self) -> String {
        format!("sslrootcert={}", self.wrong.display())
    }
}

/// Returns true if the sessions at this address are encrypted.
async fn is_encrypted(address: String) -> bool {
    let database = Database::connect(address).await.unwrap();
    let sql = "select ssl from pg_stat_ssl where pid = pg_backend_pid()";
    database.client().await.unwrap().query_one(sql, &[]).await.unwrap().get(0)
}

/// Returns the reason why a connection is refused.
async fn refusal(address: String) -> String {
    let error = Database::connect(address).await.unwrap_err();
    assert!(error.is_denied(), "{error:?}");
    error.to_string()
}

#[tokio::test]
async fn a_private_authority_vouches_for_the_server_by_its_name() {
    let secure = secure().await;
    assert!(is_encrypted(secure.as_named(&format!("sslmode=verify-full {}", secure.right()))).await);
    assert!(
        is_encrypted(secure.as_named(&format!("sslmode=verify-full channel_binding=require {}", secure.right()))).await
    );
}

#[tokio::test]
async fn the_error_for_another_authority_says_what_to_check() {
    let secure = secure().await;
    for mode in ["require", "verify-ca", "verify-full"] {
        let error = refusal(secure.as_named(&format!("sslmode={mode} {}", secure.wrong()))).await;
        assert!(error.contains("authority") && error.contains("sslrootcert"), "{mode}: {error}");
    }
    let error = refusal(secure.as_named("sslmode=verify-full sslrootcert=system")).await;
    assert!(error.contains("authority") && error.contains("sslrootcert"), "{error}");
}

#[tokio::test]
async fn the_error_for_another_hosts_certificate_names_that_host() {
    let secure = secure().await;
    let error = refusal(secure.by_number(&format!("sslmode=verify-full {}", secure.right()))).await;
    assert!(error.contains("127.0.0.1") && error.contains("db.example") && error.contains("verify-ca"), "{error}");
    assert!(!error.contains("sslrootcert"), "the error does not blame the authority, which is right: {error}");
    assert!(is_encrypted(secure.by_number(&format!("sslmode=verify-ca {}", secure.right()))).await);
}

#[tokio::test]
async fn without_an_authority_encryption_needs_no_proof() {
    let secure = secure().await;
    for mode in ["allow", "prefer", "require"] {
        assert!(is_encrypted(secure.by_number(&format!("sslmode={mode}"))).await, "{mode}");
    }
    assert!(!is_encrypted(secure.by_number("sslmode=disable")).await);
    let bare = format!("hostaddr=127.0.0.1 {}", secure.rest("sslmode=require"));
    assert!(is_encrypted(bare).await, "an address by number needs no host name");
}

#[tokio::test]
async fn a_revoked_certificate_is_refused() {
    let secure = secure().await;
    let by =
        |list: &Path| secure.as_named(&format!("sslmode=verify-full {} sslcrl={}", secure.right(), list.display()));
    assert!(is_encrypted(by(&secure.sparing)).await);
    let error = refusal(by(&secure.revoking)).await;
    assert!(error.contains("Revoked") && error.contains("new certificate"), "{error}");
    let error = Database::connect(by(&secure.right)).await.unwrap_err();
    assert!(error.is_invalid() && error.to_string().contains("no list of revoked certificates"), "{error}");
}

#[tokio::test]
async fn limits_of_the_tls_version_are_kept() {
    let secure = secure().await;
    let version = async |limits: &str| {
        let database = Database::connect(secure.by_number(&format!("sslmode=require {limits}"))).await.unwrap();
        let sql = "select version from pg_stat_ssl where pid = pg_backend_pid()";
        database.client().await.unwrap().query_one(sql, &[]).await.unwrap().get::<_, String>(0)
    };
    assert_eq!(version("ssl_max_protocol_version=tlsv1.2").await, "TLSv1.2");
    assert_eq!(version("ssl_min_protocol_version=TLSv1.3").await, "TLSv1.3");
    for limits in
        ["ssl_min_protocol_version=TLSv1.3 ssl_max_protocol_version=TLSv1.2", "ssl_max_protocol_version=TLSv1.1"]
    {
        let error = Database::connect(secure.by_number(&format!("sslmode=require {limits}"))).await.unwrap_err();
        assert!(error.is_invalid() && error.to_string().contains("no version of TLS is left"), "{error}");
    }
    let error = Database::connect(secure.by_number("ssl_min_protocol_version=SSLv3")).await.unwrap_err();
    assert!(error.is_invalid() && error.to_string().contains("ssl_min_protocol_version"), "{error}");
}

#[tokio::test]
async fn the_systems_authorities_require_a_full_verification() {
    let secure = secure().await;
    for mode in ["disable", "prefer", "require", "verify-ca"] {
        let error =
            Database::connect(secure.as_named(&format!("sslrootcert=system sslmode={mode}"))).await.unwrap_err();
        assert!(error.is_invalid() && error.to_string().contains(&format!("sslmode={mode} is too weak")), "{error}");
    }
    let error = refusal(secure.as_named("sslrootcert=system")).await;
    assert!(error.contains("authority"), "the default mode is verify-full: {error}");
}

#[tokio::test]
async fn the_servers_demand_for_encryption_is_met_or_explained() {
    let secure = secure().await;
    let guarded = |mode| secure.by_number(&format!("user=guarded password=x sslmode={mode}"));
    assert!(is_encrypted(guarded("prefer")).await);
    let error = refusal(guarded("disable")).await;
    assert!(error.contains("rejects") && error.contains("no encryption"), "{error}");
    let plain = |mode| secure.by_number(&format!("user=plain password=x sslmode={mode}"));
    assert!(!is_encrypted(plain("prefer")).await);
    let error = refusal(plain("require")).await;
    assert!(error.contains("rejects") && error.contains("SSL encryption"), "{error}");
}

#[tokio::test]
async fn the_error_for_a_server_without_tls_says_so() {
    let server = Server::start().unwrap();
    let error = refusal(format!("{}?sslmode=require", server.url("postgres"))).await;
    assert!(error.contains("does not support TLS") && error.contains("sslmode"), "{error}");
    assert!(!error.contains("sslrootcert"), "the error does not name certificates: {error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_sessions_of_a_worker_are_encrypted() {
    let secure = secure().await;
    let database =
        Database::connect(secure.as_named(&format!("sslmode=verify-full {}", secure.right()))).await.unwrap();
    let (reporter, mut reports) = reporting();
    let running = start(Worker::builder(database.clone()).state(reporter).handle(report));
    enqueue(&database, &note("over TLS")).await.unwrap();
    assert_eq!(reports.next().await, "over TLS");
    let watch = client(&secure.server.url("postgres")).await;
    let sessions =
        "select coalesce(array_agg(distinct application_name order by application_name) filter (where ssl), '{}'),
            count(*) filter (where not ssl)
        from pg_stat_ssl join pg_stat_activity using (pid) where application_name like 'reveille %'";
    let all = ["reveille heartbeat", "reveille listener", "reveille worker"];
    eventually("all three sessions are encrypted", async || {
        let row = watch.query_one(sessions, &[]).await.unwrap();
        assert_eq!(row.get::<_, i64>(1), 0, "a session is not encrypted");
        row.get::<_, Vec<String>>(0) == all
    })
    .await;
    running.stop().await;
}
