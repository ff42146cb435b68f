//! A tour of the program in which nothing is real but the program: `cargo run --example playground`.
//!
//! It starts an `OpenID` provider and a Kubernetes API server with a Headlamp on loopback, writes a
//! throw-away kubeconfig, and goes through a user's day: sign in, work from the cache, have the token
//! renewed, open Headlamp, look who one is, sign out. With a display your own browser opens; without one, or with
//! `-- --no-browser`, the playground plays the browser. kubectl is used if it is installed.

#![allow(clippy::print_stdout, reason = "a program that talks to its reader")]

use std::cell::Cell;
use std::error::Error;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, IsTerminal, Write};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use headlamp_test_support::{
    Browser, Cluster, Endpoint, HeadlampInstall, Output, Play, Provider, Run, Running, Sandbox, SignIn, StandIn,
    StandInOptions, exec_entry,
};
use serde_json::{Value, json};
use url::Url;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    note_interrupt();
    let result = play();
    match result {
        _ if interrupted() => {
            println!("\nEnded: the servers are gone, and so is the folder.");
            ExitCode::from(130)
        }
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("\nThe playground ends here: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The servers and the folder are gone when this returns.
fn play() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.iter().any(|word| word != "--no-browser") {
        return Err("usage: cargo run --example playground [-- --no-browser]".into());
    }
    let binary = build()?;
    Playground::open(binary, words.is_empty() && has_display()).tour()
}

struct Playground {
    provider: Provider,
    cluster: Cluster,
    headlamp: StandIn,
    sandbox: Sandbox,
    binary: PathBuf,
    kubectl: Option<PathBuf>,
    /// Whether your own browser signs in.
    real_browser: Cell<bool>,
}

impl Playground {
    fn open(binary: PathBuf, real_browser: bool) -> Self {
        let provider = Provider::start();
        // Who interrupts the tour at once asks it nothing.
        provider.unused_is_fine();
        provider.set(|behaviour| {
            behaviour.sign_in = SignIn::AfterClick;
            behaviour.id_token_lifetime = TOKEN_LIFETIME;
            behaviour.expires_in = Some(TOKEN_LIFETIME);
        });
        let cluster = Cluster::start(provider.authenticator());
        cluster.add_pod("default", "hello-6c8f7d9b4c-x2x8q", &[("app", "hello")], &[]);
        let headlamp = StandIn::start(StandInOptions::default());
        let pod = (Ipv4Addr::LOCALHOST, headlamp.port()).into();
        cluster.install_headlamp("headlamp", &HeadlampInstall::default(), pod);
        let sandbox = Sandbox::new(&binary);
        sandbox.play(Play::SignIn(Browser::new().clicking()));
        Self {
            provider,
            cluster,
            headlamp,
            sandbox,
            binary,
            kubectl: find_program("kubectl"),
            real_browser: Cell::new(real_browser),
        }
    }

    fn tour(&self) -> Result<()> {
        self.welcome();
        self.write_kubeconfig();
        self.sign_in()?;
        self.work_from_the_cache()?;
        self.have_it_renewed()?;
        self.open_headlamp()?;
        self.who_and_good_bye()?;
        heading("That was it");
        say("The servers stop and the folder is deleted. To use it with your own cluster:");
        say(
            "\n  cargo install --locked --path .\n  kubectl headlamp login --issuer-url <your provider> --client-id <your client>\n",
        );
        say("The README goes on from there (\"Set it up\").");
        Ok(())
    }

    fn welcome(&self) {
        println!("{}", bold("kubectl headlamp: a playground"));
        say("Everything here happens on this machine's loopback and in one temporary folder.");
        say("It takes about half a minute, ends by itself, and leaves nothing behind; Ctrl-C ends it at once.");
        heading("1. A provider and a cluster of your own");
        say(&format!("An OpenID provider listens on {},", self.provider.issuer()));
        say(&format!("a Kubernetes API server on {}.", self.cluster.url()));
        say("They know one person, Jane Doe (jane@example.com), a pod, and a small page that stands in for Headlamp.");
        if self.kubectl.is_none() {
            say("kubectl is not installed here, so the playground does kubectl's part: it asks for the token,");
            say("and takes it to the API server.");
        }
    }

    /// What the kubeconfig has the program run with.
    fn arguments(&self) -> [String; 5] {
        [
            "get-token".to_owned(),
            format!("--issuer-url={}", self.provider.issuer()),
            "--client-id=kubernetes".to_owned(),
            // Any free port: on yours, the redirect is http://localhost:8000/oidc-callback.
            "--listen-address=localhost:0".to_owned(),
            format!("--cache-dir={}", self.sandbox.cache_folder().display()),
        ]
    }

    fn write_kubeconfig(&self) {
        let arguments = self.arguments();
        let exec = exec_entry("kubectl-headlamp", &arguments);
        self.sandbox.write_kubeconfig(&self.cluster.kubeconfig(&json!({"exec": exec})));
        self.sandbox.know(&self.provider);
        heading("2. A kubeconfig whose user runs kubectl-headlamp");
        println!(
            "  users:\n  - name: jane\n    user:\n      exec:\n        apiVersion: client.authentication.k8s.io/v1"
        );
        println!("        command: kubectl-headlamp\n        args:");
        for argument in arguments {
            println!("        - {argument}");
        }
        println!("        interactiveMode: IfAvailable");
    }

    fn sign_in(&self) -> Result<()> {
        heading("3. The first command: nobody is signed in yet");
        if self.real_browser.get() {
            say("Your browser opens. Press the button there, within a minute.");
            match self.get_pods(true) {
                Err(_) if !interrupted() => {
                    say("\nThat did not work out, so now the playground plays the browser.");
                    self.real_browser.set(false);
                    // With it goes the memory of the failure, which would have the next try fail at once.
                    let _ = std::fs::remove_dir_all(self.sandbox.cache_folder());
                }
                result => return result.map(|_| tell_the_point()),
            }
        } else if has_display() {
            say("No browser of yours opens: the playground plays the browser.");
        } else {
            say("There is no display to open a browser on, so the playground plays the browser.");
        }
        self.get_pods(true)?;
        self.tell_visit();
        tell_the_point();
        Ok(())
    }

    /// Where the browser that was played went, and what it saw.
    fn tell_visit(&self) {
        let visit = self.sandbox.visit();
        say("The browser went to");
        for address in &visit.history {
            println!("  {}", shortened(address));
        }
        if let Some(title) = between(&visit.body, "<title>", "</title>") {
            say(&format!("and ended on a page with the title \"{title}\"."));
        }
    }

    fn work_from_the_cache(&self) -> Result<()> {
        heading("4. The same again: from the cache");
        let before = self.provider.all_requests().len();
        let took = self.get_pods(false)?;
        let alone = Instant::now();
        let _ = finished(self.get_token())?;
        let alone = alone.elapsed();
        match self.provider.all_requests().len() - before {
            0 => say("Nobody asked the provider anything, and no browser opened."),
            _ => say("This machine is slow today: the token had run out already and was renewed."),
        }
        let who = if self.kubectl.is_some() { "kubectl" } else { "All of it" };
        say(&format!(
            "{who} took {}; kubectl-headlamp alone takes {}{}.",
            milliseconds(took),
            milliseconds(alone),
            unoptimised()
        ));
        Ok(())
    }

    fn have_it_renewed(&self) -> Result<()> {
        heading("5. The token runs out: it is renewed in silence");
        say(&format!(
            "This provider's tokens live {TOKEN_LIFETIME} s, and one that has less than 90 s left is not handed out any more."
        ));
        wait(Duration::from_secs(TOKEN_LIFETIME.unsigned_abs() - 90 + 1));
        self.provider.forget_requests();
        self.get_pods(false)?;
        let requests: Vec<Endpoint> = self.provider.all_requests().into_iter().map(|(endpoint, _)| endpoint).collect();
        match requests.as_slice() {
            [Endpoint::Token] => say("One request to the provider, and no browser: the refresh token did it."),
            requests => say(&format!("It took {} requests to the provider.", requests.len())),
        }
        Ok(())
    }

    fn open_headlamp(&self) -> Result<()> {
        heading("6. Headlamp, signed in as kubectl is");
        let real = self.real_browser.get();
        let words: &[&str] = if real { &["open"] } else { &["open", "--no-browser"] };
        command(&format!("kubectl headlamp {}", words.join(" ")));
        let mut open = self.prepared(self.plugin_run(words)).spawn();
        let result = if real {
            self.look_around(&mut open);
            Ok(())
        } else {
            play_the_page(&mut open)
        };
        if !open.has_ended() {
            open.interrupt();
        }
        let output = open.wait();
        result?;
        if output.code != 130 {
            return Err(format!("that ended with exit code {}", output.code).into());
        }
        say("^C");
        if let Some(strayed) = self.headlamp.api_requests().first() {
            return Err(format!("the pod was asked for `{}`", strayed.path).into());
        }
        let asked = self.headlamp.requests().len();
        say(&format!(
            "The pod was asked for {asked} files and for nothing of the cluster; neither it nor the browser saw a token."
        ));
        Ok(())
    }

    /// A person has the page for some seconds.
    fn look_around(&self, open: &mut Running<'_>) {
        say("Your browser opens the page; here it closes again in a few seconds.");
        let until = Instant::now() + Duration::from_secs(60);
        while self.headlamp.requests().is_empty() && Instant::now() < until && !open.has_ended() && !interrupted() {
            std::thread::sleep(Duration::from_millis(50));
        }
        wait(Duration::from_secs(10));
    }

    fn who_and_good_bye(&self) -> Result<()> {
        heading("7. Who am I?");
        self.plugin(&["status", "--verify"])?;
        heading("8. Sign out");
        self.plugin(&["logout"])?;
        let revoked = self.provider.requests(Endpoint::Revocation).len();
        let left = match self.provider.grants_alive() {
            0 => "no session is left there".to_owned(),
            alive => format!("{alive} sessions are left there"),
        };
        say(&format!("The provider was told, too ({revoked} tokens revoked): {left}."));
        Ok(())
    }

    /// `kubectl get pods`, or what it comes to without kubectl. Returns the time that it took.
    fn get_pods(&self, explain: bool) -> Result<Duration> {
        match &self.kubectl {
            Some(kubectl) => {
                command("kubectl get pods");
                let begun = Instant::now();
                let output = finished(self.prepared(self.sandbox.program(kubectl, ["get", "pods"])))?;
                let took = begun.elapsed();
                print!("{}", output.stdout);
                Ok(took)
            }
            None => self.get_pods_without_kubectl(explain),
        }
    }

    fn get_pods_without_kubectl(&self, explain: bool) -> Result<Duration> {
        let question =
            r#"{"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1","spec":{"interactive":false}}"#;
        command("kubectl-headlamp get-token …");
        if explain {
            say("kubectl asks by a variable of the environment:");
            println!("  KUBERNETES_EXEC_INFO={question}");
        }
        let begun = Instant::now();
        let run = self.get_token().env("KUBERNETES_EXEC_INFO", question);
        let output = finished(run)?;
        let token = output.token();
        if explain {
            say("The answer on stdout, the token taken out here:");
            println!("  {}", output.stdout.trim_end().replace(&token, "…"));
        }
        let pods = Url::parse(&format!("{}/api/v1/namespaces/default/pods", self.cluster.url()))?;
        let bearer = format!("Bearer {token}");
        let page =
            Browser::new().trusting(self.cluster.ca_pem()).request("GET", &pods, &[("Authorization", &bearer)], "")?;
        let took = begun.elapsed();
        let list: Value = serde_json::from_str(&page.body)?;
        let name = list.pointer("/items/0/metadata/name").and_then(Value::as_str).unwrap_or("no pod");
        say(&format!("With it, the API server answers {}: {name}", page.status));
        Ok(took)
    }

    /// `kubectl headlamp …`.
    fn plugin(&self, words: &[&str]) -> Result<()> {
        let name = if self.kubectl.is_some() { "kubectl headlamp" } else { "kubectl-headlamp" };
        command(&format!("{name} {}", words.join(" ")));
        print!("{}", finished(self.prepared(self.plugin_run(words)))?.stdout);
        Ok(())
    }

    fn plugin_run(&self, words: &[&str]) -> Run<'_> {
        match &self.kubectl {
            Some(kubectl) => self.sandbox.program(kubectl, ["headlamp"]).args(words),
            None => self.sandbox.command(words),
        }
    }

    fn get_token(&self) -> Run<'_> {
        self.prepared(self.sandbox.command(self.arguments()))
    }

    /// Where the program and kubectl are found; and for a real browser, your own session.
    fn prepared<'a>(&self, run: Run<'a>) -> Run<'a> {
        let mut path: Vec<PathBuf> = self.binary.parent().map(Path::to_owned).into_iter().collect();
        let mut run = run.inherit_stderr();
        if self.real_browser.get() {
            path.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
            for name in SANDBOXED {
                run = run.without_env(name);
            }
            let ours = |name: &str| name.starts_with("KUBECTL_HEADLAMP_") || OURS.contains(&name);
            for (name, value) in std::env::vars_os().filter(|(name, _)| !ours(&name.to_string_lossy())) {
                run = run.env(name, value);
            }
            let cache = self.sandbox.home().join(".kube/cache");
            run = run.env("KUBECACHEDIR", cache).env("KUBECTL_HEADLAMP_TIMEOUT", "60s");
        } else {
            path.extend(self.kubectl.as_ref().and_then(|kubectl| kubectl.parent()).map(Path::to_owned));
        }
        run.env("PATH", std::env::join_paths(path).unwrap_or_else(|_| OsString::new()))
    }
}

/// The address works once; from then on the cookie does, and with it the page and the cluster.
fn play_the_page(open: &mut Running<'_>) -> Result<()> {
    while !open.stdout().contains('\n') {
        if open.has_ended() || interrupted() {
            return Err("there is no page".into());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let start = Url::parse(open.stdout().trim())?;
    say(&format!("It prints the address for a browser: {}", shortened(start.as_str())));
    let mut browser = Browser::new();
    browser.request("GET", &start, &[], "")?;
    let headers = [("Sec-Fetch-Site", "same-origin"), ("Sec-Fetch-Dest", "empty")];
    let page = browser.request("GET", &start.join("/")?, &[], "")?;
    say(&format!("The page comes from the pod: {}", between(&page.body, "<title>", "</title>").unwrap_or("no page")));
    let pods = start.join("/clusters/main/api/v1/namespaces/default/pods")?;
    let list: Value = serde_json::from_str(&browser.request("GET", &pods, &headers, "")?.body)?;
    let name = list.pointer("/items/0/metadata/name").and_then(Value::as_str).unwrap_or("no pod");
    say(&format!("What it asks of the cluster, the cluster answers as to kubectl: {name}"));
    let stranger = Browser::new().request("GET", &pods, &headers, "")?;
    say(&format!("Another program that asks the same port gets {}.", stranger.status));
    Ok(())
}

/// Runs it to its end.
fn finished(run: Run<'_>) -> Result<Output> {
    let mut running = run.spawn();
    // A person may take longer than any deadline of the sandbox. Who is interrupted ends soon.
    let mut patience = 2000;
    while !running.has_ended() {
        patience -= i32::from(interrupted());
        if patience == 0 {
            running.kill();
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let output = running.wait();
    if output.code == 0 && !interrupted() {
        Ok(output)
    } else {
        Err(format!("that failed with exit code {}", output.code).into())
    }
}

/// Builds the program as this one was built, and returns where it is.
fn build() -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| env!("CARGO").into());
    let profile = profile()?;
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let mut command = Command::new(cargo);
    // What cargo tells this program of itself would make build scripts run again.
    for (name, _) in std::env::vars_os() {
        let told = name.to_string_lossy();
        if told.starts_with("CARGO_PKG_") || told.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    let mut child = command
        // Together with this example, for the same dependencies: none is compiled twice.
        .args(["build", "--bin", "kubectl-headlamp", "--example", "playground", "--profile", &profile])
        .args(["--message-format", "json-render-diagnostics"])
        .arg("--manifest-path")
        .arg(manifest)
        .stdout(Stdio::piped())
        .spawn()?;
    let messages = BufReader::new(child.stdout.take().ok_or("cargo says nothing")?);
    let mut executable = None;
    for line in messages.lines() {
        let message: Value = serde_json::from_str(&line?).unwrap_or_default();
        let text = |pointer: &str| message.pointer(pointer).and_then(Value::as_str);
        if text("/target/name") == Some("kubectl-headlamp") {
            executable = text("/executable").map(PathBuf::from).or(executable);
        }
    }
    if !child.wait()?.success() {
        return Err("kubectl-headlamp could not be built".into());
    }
    executable.ok_or_else(|| "cargo does not say where it put kubectl-headlamp".into())
}

/// The profile of this very program, from the folder that it is in.
fn profile() -> Result<String> {
    let program = std::env::current_exe()?;
    let folder = program.parent().and_then(Path::parent).and_then(Path::file_name).unwrap_or_default();
    Ok(if folder == "debug" { "dev".to_owned() } else { folder.to_string_lossy().into_owned() })
}

fn unoptimised() -> &'static str {
    if cfg!(debug_assertions) { " (unoptimised, as it was built here)" } else { "" }
}

fn has_display() -> bool {
    let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let away = ["SSH_CONNECTION", "SSH_TTY", "CI"].into_iter().any(set);
    !away && (cfg!(any(windows, target_os = "macos")) || set("DISPLAY") || set("WAYLAND_DISPLAY"))
}

fn find_program(name: &str) -> Option<PathBuf> {
    let name = format!("{name}{}", std::env::consts::EXE_SUFFIX);
    std::env::split_paths(&std::env::var_os("PATH")?).map(|folder| folder.join(&name)).find(|path| path.is_file())
}

/// Ctrl-C is noted. What runs gets it too and ends, and then so does the tour, in good order.
fn note_interrupt() {
    std::thread::spawn(|| {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
        while runtime.block_on(tokio::signal::ctrl_c()).is_ok() {
            INTERRUPTED.store(true, Ordering::Relaxed);
        }
    });
}

fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

fn wait(time: Duration) {
    let terminal = std::io::stdout().is_terminal();
    if !terminal {
        say(&format!("Waiting {} s.", time.as_secs()));
    }
    for left in (1..=time.as_secs()).rev().take_while(|_| !interrupted()) {
        if terminal {
            print!("\r  waiting {left:2} s ");
            let _ = std::io::stdout().flush();
        }
        std::thread::sleep(Duration::from_secs(1));
    }
    if terminal {
        print!("\r               \r");
    }
}

fn heading(text: &str) {
    println!("\n{}", bold(text));
}

fn say(text: &str) {
    println!("{text}");
}

fn command(line: &str) {
    println!("{}", bold(&format!("$ {line}")));
}

fn bold(text: &str) -> String {
    if std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none() {
        format!("\u{1b}[1m{text}\u{1b}[0m")
    } else {
        text.to_owned()
    }
}

fn milliseconds(time: Duration) -> String {
    format!("{} ms", time.as_millis().max(1))
}

fn tell_the_point() {
    say("The provider gave a code, and for the code the tokens; the browser never saw one.");
}

/// An address without its parameters and its random parts.
fn shortened(address: &str) -> String {
    let (address, query) = address.split_once('?').map_or((address, ""), |(address, _)| (address, "?…"));
    let random = ["/start/", "/done/"].into_iter().find_map(|part| address.find(part).map(|at| at + part.len()));
    match random.and_then(|at| address.get(..at)) {
        Some(beginning) => format!("{beginning}…{query}"),
        None => format!("{address}{query}"),
    }
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    text.split_once(before)?.1.split_once(after).map(|(middle, _)| middle)
}

static INTERRUPTED: AtomicBool = AtomicBool::new(false);
/// Seconds: short enough to see a token run out, long enough to be used before.
const TOKEN_LIFETIME: i64 = 100;
/// Variables that stay the playground's, whatever yours are.
const OURS: &[&str] = &["KUBECONFIG", "KUBECACHEDIR", "KUBERNETES_EXEC_INFO", "PATH"];
/// Variables of the sandbox that a browser of yours must not see.
const SANDBOXED: &[&str] =
    &["BROWSER", "HOME", "TMPDIR", "XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"];
