//! How much a connection is protected: libpq's `sslmode`, by rustls.

use std::path::{Path, PathBuf};

use tokio_postgres::config::SslMode;

use super::params::Params;
use crate::error::{Error, Result};

/// What makes the TLS of a connection, where it has one.
#[cfg(feature = "tls")]
pub(crate) type Tls = tokio_postgres_rustls::MakeRustlsConnect;
#[cfg(not(feature = "tls"))]
pub(crate) type Tls = tokio_postgres::NoTls;

/// What `sslmode` and its companions ask for.
#[derive(Clone, Debug)]
pub(crate) struct Security {
    mode: Mode,
    root_cert: Option<PathBuf>,
    client_cert: Option<(PathBuf, PathBuf)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Disable,
    /// TLS if the server has it, unverified: `prefer`, and `allow`, which differs only in what is tried first.
    Prefer,
    /// TLS, unverified.
    Require,
    /// TLS with a certificate of a known authority, whatever its name.
    VerifyCa,
    /// TLS with a certificate of a known authority for this host.
    VerifyFull,
}

impl Security {
    pub(super) fn new(params: &Params, home: Option<&Path>) -> Result<Security> {
        let param = |name: &str| params.get(name).map(String::as_str).filter(|value| !value.is_empty());
        if param("gssencmode") == Some("require") {
            return Err(Error::invalid("gssencmode=require is not supported; use sslmode=verify-full"));
        }
        let own = |name: &str| home.map(|home| home.join(".postgresql").join(name)).filter(|file| file.exists());
        let root_cert = match param("sslrootcert") {
            Some("system") => None,
            Some(file) => Some(PathBuf::from(file)),
            None => own("root.crt"),
        };
        let mode = match param("sslmode") {
            Some("disable") => Mode::Disable,
            None | Some("allow" | "prefer") => Mode::Prefer,
            // As libpq does: who names an authority wants it checked.
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
            (Some(cert), Some(key)) => Some((cert.into(), key.into())),
            (None, None) => None,
            _ => return Err(Error::invalid("sslcert and sslkey go together")),
        };
        Ok(Security { mode, root_cert, client_cert })
    }

    /// What tokio-postgres has to know of it.
    pub(super) fn ssl_mode(&self) -> SslMode {
        match self.mode {
            Mode::Disable => SslMode::Disable,
            Mode::Prefer if cfg!(not(feature = "tls")) => SslMode::Disable,
            Mode::Prefer => SslMode::Prefer,
            _ => SslMode::Require,
        }
    }

    /// What makes the TLS.
    ///
    /// # Errors
    /// Invalid if a certificate or key cannot be read.
    #[cfg(not(feature = "tls"))]
    pub(crate) fn connector(&self) -> Result<Tls> {
        let _ = (&self.root_cert, &self.client_cert);
        Ok(tokio_postgres::NoTls)
    }

    /// What makes the TLS.
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
    use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
    use rustls_pki_types::pem::PemObject;
    use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

    use super::{Mode, Path, Security, Tls};
    use crate::error::{Error, Result};

    pub(super) fn connector(security: &Security) -> Result<Tls> {
        // Named, so that whatever else the program links cannot change it.
        let provider = Arc::new(ring::default_provider());
        let wrong = |error: rustls::Error| Error::invalid(format!("cannot set up TLS: {error}"));
        let config = ClientConfig::builder_with_provider(Arc::clone(&provider));
        let config = config.with_safe_default_protocol_versions().map_err(wrong)?;
        let config = config.dangerous().with_custom_certificate_verifier(verifier(security, &provider)?);
        let config = match &security.client_cert {
            None => config.with_no_client_auth(),
            Some((cert, key)) => {
                let key = PrivateKeyDer::from_pem_file(key).map_err(|error| unreadable(key, &error))?;
                config.with_client_auth_cert(certificates(cert)?, key).map_err(wrong)?
            }
        };
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
        let chain = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider)).build();
        let chain = chain.map_err(|error| {
            Error::invalid(format!("no certificate authority to verify with: {error}; set sslrootcert"))
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

    fn unreadable(file: &Path, error: &rustls_pki_types::pem::Error) -> Error {
        Error::invalid(format!("cannot read {}: {error}", file.display()))
    }

    /// Asks less of a certificate than rustls would by itself: its chain only, or nothing.
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
                // The name is looked at last: the chain is good.
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
