//! The security of a connection: libpq's `sslmode`, by rustls.

use std::path::{Path, PathBuf};

use tokio_postgres::config::SslMode;

use super::params::Params;
use crate::error::{Error, Result};

/// Makes the TLS of a connection.
#[cfg(feature = "tls")]
pub(crate) type Tls = tokio_postgres_rustls::MakeRustlsConnect;
#[cfg(not(feature = "tls"))]
pub(crate) type Tls = tokio_postgres::NoTls;

/// The settings of `sslmode` and of the other `ssl…` parameters.
#[derive(Clone, Debug)]
pub(crate) struct Security {
    mode: Mode,
    root_cert: Option<PathBuf>,
    /// The list of revoked certificates.
    revoked: Option<PathBuf>,
    client_cert: Option<(PathBuf, PathBuf)>,
    versions: Versions,
    /// True if the host's name is sent in the clear (SNI), so that a proxy can route the connection.
    sends_name: bool,
}

/// The versions of TLS that are allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Versions {
    Any,
    Only12,
    Only13,
}

impl Versions {
    /// Returns the versions from the least to the most. Versions before 1.2 are never used.
    fn between(least: Option<&str>, most: Option<&str>) -> Result<Versions> {
        let version = |name: &str, text: Option<&str>| match text.map(str::to_ascii_lowercase).as_deref() {
            None => Ok(None),
            Some("tlsv1" | "tlsv1.1") => Ok(Some(11)),
            Some("tlsv1.2") => Ok(Some(12)),
            Some("tlsv1.3") => Ok(Some(13)),
            Some(other) => Err(Error::invalid(format!("unknown {name} {other:?}; use TLSv1.2 or TLSv1.3"))),
        };
        let least = version("ssl_min_protocol_version", least)?.unwrap_or(12).max(12);
        let most = version("ssl_max_protocol_version", most)?.unwrap_or(13);
        match (least, most) {
            (12, 13) => Ok(Versions::Any),
            (12, 12) => Ok(Versions::Only12),
            (13, 13) => Ok(Versions::Only13),
            _ => Err(Error::invalid(
                "no version of TLS is left: ssl_max_protocol_version must be TLSv1.2 or TLSv1.3, and not below \
                 ssl_min_protocol_version",
            )),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Disable,
    /// TLS without verification if the server supports TLS, else no TLS. `prefer` and `allow` both mean this here. In
    /// libpq, they differ only in the order of the tries.
    Prefer,
    /// TLS without verification.
    Require,
    /// TLS with a certificate of a trusted authority, for any host name.
    VerifyCa,
    /// TLS with a certificate of a trusted authority, for this host name.
    VerifyFull,
}

impl Security {
    pub(super) fn new(params: &Params, home: Option<&Path>) -> Result<Security> {
        let param = |name: &str| params.get(name).map(String::as_str).filter(|value| !value.is_empty());
        let own = |name: &str| home.map(|home| home.join(".postgresql").join(name)).filter(|file| file.exists());
        let is_system = param("sslrootcert") == Some("system");
        let root_cert = match param("sslrootcert") {
            Some("system") => None,
            Some(file) => Some(PathBuf::from(file)),
            None => own("root.crt"),
        };
        let mode = match param("sslmode") {
            // By libpq's rule, the system's authorities demand a check of the host's name.
            None if is_system => Mode::VerifyFull,
            Some(weak) if is_system && weak != "verify-full" => {
                return Err(Error::invalid(format!(
                    "sslmode={weak} is too weak for sslrootcert=system; use sslmode=verify-full"
                )));
            }
            Some("disable") => Mode::Disable,
            None | Some("allow" | "prefer") => Mode::Prefer,
            // By libpq's rule, a named authority is always checked.
            Some("require") if root_cert.is_some() => Mode::VerifyCa,
            Some("require") => Mode::Require,
            Some("verify-ca") => Mode::VerifyCa,
            Some("verify-full") => Mode::VerifyFull,
            Some(other) => {
                return Err(Error::invalid(format!(
                    "unknown sslmode {other:?}; use disable, allow, prefer, require, verify-ca or verify-full"
                )));
            }
        };
        if cfg!(not(feature = "tls")) && !matches!(mode, Mode::Disable | Mode::Prefer) {
            return Err(Error::invalid(
                "this program was built without TLS: enable the feature `tls`, or use sslmode=disable",
            ));
        }
        let client_cert = match (param("sslcert"), param("sslkey")) {
            _ if param("sslcertmode") == Some("disable") => None,
            (Some(cert), Some(key)) => Some((cert.into(), key.into())),
            (None, None) => None,
            _ => return Err(Error::invalid("sslcert and sslkey go together; set both or neither")),
        };
        let revoked = param("sslcrl").map(PathBuf::from).or_else(|| own("root.crl"));
        let versions = Versions::between(param("ssl_min_protocol_version"), param("ssl_max_protocol_version"))?;
        let sends_name = param("sslsni") != Some("0");
        Ok(Security { mode, root_cert, revoked, client_cert, versions, sends_name })
    }

    /// Returns the mode for tokio-postgres, which does not verify certificates itself.
    pub(super) fn ssl_mode(&self) -> SslMode {
        match self.mode {
            Mode::Disable => SslMode::Disable,
            Mode::Prefer if cfg!(not(feature = "tls")) => SslMode::Disable,
            Mode::Prefer => SslMode::Prefer,
            _ => SslMode::Require,
        }
    }

    /// Makes the TLS connector.
    ///
    /// # Errors
    /// Invalid if a certificate or key cannot be read.
    #[cfg(not(feature = "tls"))]
    pub(crate) fn connector(&self) -> Result<Tls> {
        let _ = (&self.root_cert, &self.revoked, &self.client_cert, self.versions, self.sends_name);
        Ok(tokio_postgres::NoTls)
    }

    /// Makes the TLS connector.
    ///
    /// # Errors
    /// Invalid if a certificate or key cannot be read.
    #[cfg(feature = "tls")]
    pub(crate) fn connector(&self) -> Result<Tls> {
        rustls_connector::connector(self)
    }
}

#[cfg(feature = "tls")]
mod rustls_connector {
    use std::sync::Arc;

    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    use rustls::crypto::{
        CryptoProvider, WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature,
    };
    use rustls::version::{TLS12, TLS13};
    use rustls::{
        CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme, SupportedProtocolVersion,
    };
    use rustls_pki_types::pem::PemObject;
    use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName, UnixTime};

    use super::{Mode, Path, Security, Tls, Versions};
    use crate::error::{Error, Result};

    pub(super) fn connector(security: &Security) -> Result<Tls> {
        // The provider is explicit, so that another crate's choice of a process-wide provider does not matter.
        let provider = Arc::new(ring::default_provider());
        let wrong = |error: rustls::Error| Error::invalid(format!("cannot set up TLS: {error}"));
        let config = ClientConfig::builder_with_provider(Arc::clone(&provider));
        let versions: &[&SupportedProtocolVersion] = match security.versions {
            Versions::Any => &[&TLS13, &TLS12],
            Versions::Only12 => &[&TLS12],
            Versions::Only13 => &[&TLS13],
        };
        let config = config.with_protocol_versions(versions).map_err(wrong)?;
        let config = config.dangerous().with_custom_certificate_verifier(verifier(security, &provider)?);
        let mut config = match &security.client_cert {
            None => config.with_no_client_auth(),
            Some((cert, key)) => {
                let key = PrivateKeyDer::from_pem_file(key).map_err(|error| unreadable(key, &error))?;
                config.with_client_auth_cert(certificates(cert)?, key).map_err(wrong)?
            }
        };
        config.enable_sni = security.sends_name;
        Ok(Tls::new(config))
    }

    fn verifier(security: &Security, provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ServerCertVerifier>> {
        let algorithms = provider.signature_verification_algorithms;
        if !matches!(security.mode, Mode::VerifyCa | Mode::VerifyFull) {
            return Ok(Arc::new(Lenient { chain: None, algorithms }));
        }
        let mut roots = RootCertStore::empty();
        let known = match &security.root_cert {
            Some(file) => certificates(file)?,
            None => rustls_native_certs::load_native_certs().certs,
        };
        roots.add_parsable_certificates(known);
        let chain = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
        let revoked = security.revoked.as_deref().map(revocations).transpose()?.unwrap_or_default();
        let chain = chain.with_crls(revoked).enforce_revocation_expiration().build().map_err(|error| {
            Error::invalid(format!("no certificate authority to verify the server with: {error}; set sslrootcert"))
        })?;
        Ok(if security.mode == Mode::VerifyFull { chain } else { Arc::new(Lenient { chain: Some(chain), algorithms }) })
    }

    fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>> {
        let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        match read {
            Ok(certificates) if !certificates.is_empty() => Ok(certificates),
            Ok(_) => Err(Error::invalid(format!("{} holds no certificate", file.display()))),
            Err(error) => Err(unreadable(file, &error)),
        }
    }

    fn revocations(file: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>> {
        let read = CertificateRevocationListDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        match read {
            Ok(lists) if !lists.is_empty() => Ok(lists),
            Ok(_) => Err(Error::invalid(format!("{} holds no list of revoked certificates", file.display()))),
            Err(error) => Err(unreadable(file, &error)),
        }
    }

    fn unreadable(file: &Path, error: &rustls_pki_types::pem::Error) -> Error {
        Error::invalid(format!("cannot read {}: {error}", file.display()))
    }

    /// Verifies less of a certificate than rustls does: only its chain, or nothing.
    #[derive(Debug)]
    struct Lenient {
        chain: Option<Arc<WebPkiServerVerifier>>,
        algorithms: WebPkiSupportedAlgorithms,
    }

    impl ServerCertVerifier for Lenient {
        fn verify_server_cert(
            &self,
            end_entity: &CertificateDer<'_>,
            intermediates: &[CertificateDer<'_>],
            name: &ServerName<'_>,
            ocsp: &[u8],
            now: UnixTime,
        ) -> Result<ServerCertVerified, rustls::Error> {
            use rustls::Error::InvalidCertificate;
            let Some(chain) = &self.chain else { return Ok(ServerCertVerified::assertion()) };
            match chain.verify_server_cert(end_entity, intermediates, name, ocsp, now) {
                // rustls checks the name last, so the chain is valid if only the name is wrong.
                Err(InvalidCertificate(
                    CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
                )) => Ok(ServerCertVerified::assertion()),
                verified => verified,
            }
        }

        fn verify_tls12_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            verify_tls12_signature(message, cert, dss, &self.algorithms)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            verify_tls13_signature(message, cert, dss, &self.algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.algorithms.supported_schemes()
        }
    }
}
