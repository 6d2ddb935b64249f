//! A site whose rows lie in a bucket of a server that speaks S3 (moto, which checks signatures): jobs are answered from there; credentials that are wrong, objects
//! that are gone, changed or another's, and a server that is gone are told to the site, and to nobody else.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use vestibule_runtime::dataset::Dataset;
use vestibule_runtime::home::Home;

use crate::world::{World, wait};

const JOB: &str = "epsilon = 2.0\ndelta = 1e-6\nsites = [\"leiden\"]\nmin_sites = 1\n[params]\n";

/// The server, and keys of a user of it.
struct Server {
    process: Child,
    endpoint: String,
    id: String,
    secret: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Server {
    /// `None` where it is not installed. The first four calls need no signature: those that make the bucket and the user.
    fn start() -> Option<Self> {
        let there = Command::new("python3").args(["-c", "import moto.server"]).stderr(Stdio::null()).status();
        if !there.is_ok_and(|status| status.success()) {
            assert!(std::env::var("VESTIBULE_NEEDS_S3").is_err(), "moto is to be there: pip install 'moto[server]'");
            eprintln!("skipped: no S3 server on this machine (pip install 'moto[server]')");
            return None;
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let process = Command::new("python3")
            .args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &port.to_string()])
            .env("INITIAL_NO_AUTH_ACTION_COUNT", "4")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let endpoint = format!("http://127.0.0.1:{port}");
        let mut server = Self { process, endpoint: endpoint.clone(), id: String::new(), secret: String::new() };
        wait("the S3 server", || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
        ureq::put(format!("{endpoint}/rows")).send_empty().unwrap();
        let iam = |action: &str| {
            // Not a signature: it says which of the server's services is meant.
            let header = "AWS4-HMAC-SHA256 Credential=x/20200101/us-east-1/iam/aws4_request, SignedHeaders=host, Signature=x";
            let body = format!("{action}&UserName=site&Version=2010-05-08");
            let call = ureq::post(&endpoint).header("authorization", header);
            let call = call.header("content-type", "application/x-www-form-urlencoded").send(body).unwrap();
            call.into_body().read_to_string().unwrap()
        };
        iam("Action=CreateUser");
        iam(
            "Action=PutUserPolicy&PolicyName=p&PolicyDocument=%7B%22Version%22%3A%222012-10-17%22%2C%22Statement%22%3A%5B%7B%22Effect%22\
             %3A%22Allow%22%2C%22Action%22%3A%22s3%3A%2A%22%2C%22Resource%22%3A%22%2A%22%7D%5D%7D",
        );
        let made = iam("Action=CreateAccessKey");
        let field = |name: &str| {
            let (_, rest) = made.split_once(&format!("<{name}>")).unwrap_or_else(|| panic!("{made}"));
            rest.split_once('<').unwrap().0.to_owned()
        };
        (server.id, server.secret) = (field("AccessKeyId"), field("SecretAccessKey"));
        Some(server)
    }

    fn settings(&self, bucket: &str) -> String {
        let endpoint = &self.endpoint;
        format!("[storage]\nurl = \"s3://{bucket}/site\"\nendpoint = {endpoint:?}\ncredentials = \"keys/storage.toml\"\n")
    }

    fn credentials(&self, world: &World, secret: &str) {
        use std::os::unix::fs::PermissionsExt as _;
        let file = world.dir().join("leiden/keys/storage.toml");
        std::fs::write(&file, format!("access_key_id = {:?}\nsecret_access_key = {secret:?}\n", self.id)).unwrap();
        std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
}

fn open(world: &World) -> Result<Dataset, &'static str> {
    let home = Home::open(&world.dir().join("leiden"), None).unwrap();
    let data = home.data().map_err(|error| error.code())?;
    Dataset::open(&data, &"cohort".parse().unwrap(), &home.store_key()).map_err(|error| error.code())
}

#[test]
fn a_site_answers_from_a_bucket_and_tells_nobody_else_what_is_wrong_with_it() {
    let Some(mut server) = Server::start() else { return };
    let mut world = World::new(&["leiden"]);
    let stop = |world: &mut World| world.stop_site("leiden");
    let start = |world: &mut World| {
        world.start_site("leiden");
        world.all_connected();
    };
    stop(&mut world);
    // Another recipe, since the same files are not ingested twice.
    let recipe = world.dir().join("leiden-source/DATASET.toml");
    let text = std::fs::read_to_string(&recipe).unwrap();
    std::fs::write(&recipe, format!("# in a bucket\n{text}")).unwrap();
    let ingest = ["site", "ingest", "leiden", "leiden-source/DATASET.toml"];
    let code = |world: &World| world.json(&ingest).1["error"]["code"].as_str().unwrap_or("none").to_owned();
    // Nothing of these leaves a version behind, and the one before goes on serving.
    world.set_site("leiden", &server.settings("rows"));
    assert_eq!(code(&world), "storage-settings", "no credentials");
    server.credentials(&world, "wrong");
    assert_eq!(code(&world), "storage-denied");
    server.credentials(&world, &server.secret);
    world.set_site("leiden", &server.settings("other"));
    assert_eq!(code(&world), "storage-missing", "no such bucket");
    world.set_site("leiden", &server.settings("rows"));
    world.ok(&ingest);
    assert_eq!(world.ok(&["site", "datasets", "leiden"])[0]["rows"], "s3://rows/site");
    let version = world.version("leiden");
    assert!(!version.join("people.rows").exists());

    world.log_everything();
    start(&mut world);
    let status = world.ended(&world.submitted("cohort-summary", &format!("{JOB}columns = [\"age\"]\n")));
    assert_eq!(status["state"], "finished", "{status}\n{}", world.log());
    let params = "outcome = \"trait\"\ncovariates = [\"age\"]\ncatalogue = \"panel\"\nslices = [[\"8\", 1, 150_000_000]]\n";
    let status = world.ended(&world.submitted("linear-association", &format!("{JOB}{params}")));
    assert_eq!(status["state"], "finished", "{status}\n{}", world.log());
    assert!(!world.log().contains(&server.secret), "the secret is in no log");

    // Changed in its place, where only a round reads: charged, and nothing leaves. The owner of the bucket does that without the site's credentials.
    let object = std::fs::read_to_string(version.join("people.object")).unwrap();
    let key = object.trim().strip_prefix("s3://rows/").unwrap().to_owned();
    let owner = |code: &str| {
        let script = format!(
            "import boto3\ns = boto3.client('s3', endpoint_url='{}', region_name='us-east-1', aws_access_key_id='{}', \
             aws_secret_access_key='{}')\nk = dict(Bucket='rows', Key='{key}')\nb = bytearray(s.get_object(**k)['Body'].read())\n{code}\n",
            server.endpoint, server.id, server.secret
        );
        assert!(Command::new("python3").args(["-c", &script]).status().unwrap().success());
    };
    owner("b[48:20000] = bytes(x ^ 1 for x in b[48:20000])\ns.put_object(Body=bytes(b), **k)");
    let status = world.ended(&world.submitted("cohort-summary", &format!("{JOB}columns = [\"age\", \"sex\"]\n")));
    assert_eq!(status["sites"][0]["reason"]["code"], "no-release", "{status}");
    owner("b[48:20000] = bytes(x ^ 1 for x in b[48:20000])\ns.put_object(Body=bytes(b), **k)");
    let dataset = open(&world).unwrap();
    let of = |column: &str| dataset.select(&[column.to_owned()], &[]).unwrap();
    dataset.read(&of("age"), 0).unwrap();

    // Gone, while it is open and before.
    owner("s.copy_object(Bucket='rows', Key='kept', CopySource=k)\ns.delete_object(**k)");
    assert_eq!(open(&world).unwrap_err(), "storage-missing");
    let error = dataset.read(&of("sex"), 0).unwrap_err();
    assert!(error.code() == "storage-missing" && error.to_string().contains(object.trim()), "{error}");
    let status = world.ended(&world.submitted("cohort-summary", &format!("{JOB}columns = [\"sex\"]\n")));
    assert_eq!(status["sites"][0]["reason"]["code"], "site-fault", "{status}");
    assert!(!status.to_string().contains("s3://"), "{status}");
    assert!(world.log().contains("storage-missing") || world.log().contains("there is no such object"), "{}", world.log());

    // The server is gone while a dataset is open, and before.
    let _ = server.process.kill();
    let _ = server.process.wait();
    assert_eq!(dataset.read(&of("trait"), 0).unwrap_err().code(), "storage-unreachable");
    dataset.read(&of("age"), 0).unwrap();
    assert_eq!(open(&world).unwrap_err(), "storage-unreachable");
    assert_eq!(world.ok(&["log", "verify", "leiden"])["whole"], true);
}
