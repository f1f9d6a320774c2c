//! A bucket as the repository, on a local S3 server: `s3rver` of the npm package of that name, which must be in
//! `PATH`.

use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tenantry_db::doctor::Outcome;
use tenantry_testing::temp_dir;

use crate::world::World;

/// The server, with a certificate of its own.
struct S3 {
    child: Child,
    port: u16,
    dir: tempfile::TempDir,
}

impl S3 {
    async fn start() -> Self {
        let dir = temp_dir().unwrap();
        let file = |name: &str| dir.path().join(name);
        run(Command::new("openssl")
            .args([
                "req",
                "-x509",
                "-newkey",
                "rsa:2048",
                "-nodes",
                "-days",
                "2",
                "-subj",
                "/CN=localhost",
            ])
            .args(["-addext", "subjectAltName=DNS:localhost", "-keyout"])
            .arg(file("key.pem"))
            .arg("-out")
            .arg(file("cert.pem")));
        // The server's own user reads it, too.
        let readable = std::fs::Permissions::from_mode(0o644);
        std::fs::set_permissions(file("cert.pem"), readable).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = Command::new("s3rver")
            .args([
                "--address",
                "localhost",
                "--port",
                &port.to_string(),
                "--configure-bucket",
                "bucket",
            ])
            .args(["--no-vhost-buckets", "--silent", "--directory"])
            .arg(file("objects"))
            .arg("--key")
            .arg(file("key.pem"))
            .arg("--cert")
            .arg(file("cert.pem"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("`s3rver` is in PATH: `npm install s3rver`");
        let s3 = Self { child, port, dir };
        for _ in 0..300 {
            if TcpStream::connect(("localhost", port)).is_ok() {
                return s3;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("the S3 server did not answer within 30 s");
    }

    fn cert(&self) -> std::path::PathBuf {
        self.dir.path().join("cert.pem")
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        vec![
            ("backup.repository", String::new()),
            ("backup.s3.bucket", "bucket".to_owned()),
            ("backup.s3.endpoint", format!("localhost:{}", self.port)),
            ("backup.s3.region", "us-east-1".to_owned()),
            ("backup.s3.key", "S3RVER".to_owned()),
            ("backup.s3.secret", "S3RVER".to_owned()),
            ("backup.s3.uri_style", "path".to_owned()),
            ("backup.s3.ca_file", self.cert().display().to_string()),
        ]
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn run(command: &mut Command) {
    let done = command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
    assert!(done.success(), "{command:?}");
}

#[tokio::test]
#[ignore = "needs a local S3 server, `s3rver`"]
async fn a_bucket_is_a_repository_like_any_other() {
    let s3 = S3::start().await;
    let world = World::with(|_: &Path| s3.settings()).await;
    let made = world.back_up().await;
    let segment = world.segment().await;
    let found = world.examine().await;
    assert_eq!(found.worst(), Outcome::Ok, "{:?}", found.report.checks);
    assert!(found.is_continuous);
    let [window] = &*found.recoverable.windows else { panic!("{:?}", found.recoverable) };
    assert_eq!((&window.backups[..], window.from), (&[made.label][..], made.stopped_at));
    assert_eq!(window.last_segment.to_string(), segment);
    assert!(world.engine.verify().await.unwrap().ok);
    world.back_up().await;
    assert_eq!(world.examine().await.backups.len(), 2);
    world.stop().await;
}
