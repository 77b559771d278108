//! A certificate authority of the test's own, and what it signs.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

const EXTENSIONS: &str = "[req]\ndistinguished_name = name\n[name]\n\
    [authority]\nbasicConstraints = critical,CA:TRUE\nkeyUsage = critical,keyCertSign\n\
    [server]\nbasicConstraints = CA:FALSE\nsubjectAltName = IP:127.0.0.1,IP:203.0.113.1,DNS:localhost\nextendedKeyUsage = serverAuth\n\
    [client]\nbasicConstraints = CA:FALSE\nextendedKeyUsage = clientAuth\n";

/// An authority with one certificate for a server on this machine or on `netns`'s internet, and one for a client: `authority`, `server` and `client`,
/// each with `.pem` and `.key`.
pub struct Certificates(TempDir);

impl Certificates {
    /// A new authority, trusted by nobody yet.
    pub fn new() -> Self {
        let certificates = Self(tempfile::tempdir().expect("a folder"));
        fs::write(certificates.file("openssl.cnf"), EXTENSIONS).expect("a file");
        certificates.make("authority", &[]);
        certificates.make("server", &["-CA", "authority.pem", "-CAkey", "authority.key"]);
        certificates.make("client", &["-CA", "authority.pem", "-CAkey", "authority.key"]);
        certificates
    }

    /// One of the files.
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn make(&self, name: &str, signer: &[&str]) {
        let mut command = Command::new("openssl");
        command.args("req -x509 -config openssl.cnf -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2".split(' '));
        command.args(["-subj", &format!("/CN=peercam test {name}"), "-extensions", name]);
        command.args(["-keyout", &format!("{name}.key"), "-out", &format!("{name}.pem")]);
        let output = command
            .args(signer)
            .current_dir(self.0.path())
            .output()
            .expect("running openssl (apt install openssl)");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "openssl makes the {name}'s certificate: {said}");
    }
}
