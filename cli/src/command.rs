//! The commands.

mod analysis;
mod attack;
pub(crate) mod charter;
mod consortium;
mod coordinator;
mod demo;
mod job;
mod key;
mod log;
mod researcher;
mod review;
mod simulate;
mod site;
mod witness;

use anyhow::Result;
use clap::Subcommand;
use vestibule_protocol::token::Role;

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// A whole federation on this machine: a coordinator, five sites, real genotypes, two analyses.
    Demo(demo::Demo),
    /// Attack a federation on this machine in every way that its designers know of; say what was seen.
    Attack(attack::Attack),
    /// Write, build, look at and try analyses.
    #[command(subcommand)]
    Analysis(analysis::Analysis),
    /// Make and show keys.
    #[command(subcommand)]
    Key(key::Key),
    /// Say who belongs to a consortium, as one of its roots.
    #[command(subcommand)]
    Consortium(consortium::Consortium),
    /// Write and sign a project's charter.
    #[command(subcommand)]
    Charter(charter::Charter),
    /// Run a coordinator.
    #[command(subcommand)]
    Coordinator(coordinator::Coordinator),
    /// Run a site.
    #[command(subcommand)]
    Site(site::Site),
    /// Join a coordinator as a researcher.
    #[command(subcommand)]
    Researcher(researcher::Person),
    /// Join a coordinator as an approver: a person who reviews what others ask for.
    #[command(subcommand)]
    Approver(researcher::Person),
    /// Review a component, for every site that lets your word count: writes a signed file.
    Review(review::Review),
    /// Submit jobs, follow them, fetch their results.
    #[command(subcommand)]
    Job(job::Job),
    Simulate(simulate::Simulate),
    /// Watch over sites' logs without being a site: cosign them when they ask.
    #[command(subcommand)]
    Witness(witness::Witness),
    /// Read and verify a site's log.
    #[command(subcommand)]
    Log(log::Log),
}

impl Command {
    /// Whether it runs guests in its own process: dry runs, and a coordinator's `plan` and `next`.
    pub(crate) const fn runs_guests(&self) -> bool {
        matches!(self, Self::Analysis(_) | Self::Attack(_) | Self::Coordinator(_) | Self::Simulate(_))
    }

    /// Whether it attacks daemons that it starts.
    pub(crate) const fn attacks(&self) -> bool {
        matches!(self, Self::Attack(_))
    }

    pub(crate) fn run(self, json: bool) -> Result<()> {
        match self {
            Self::Demo(command) => command.run(json),
            Self::Attack(command) => command.run(json),
            Self::Analysis(command) => command.run(json),
            Self::Key(command) => command.run(json),
            Self::Charter(command) => command.run(json),
            Self::Consortium(command) => command.run(json),
            Self::Coordinator(command) => command.run(json),
            Self::Site(command) => command.run(json),
            Self::Researcher(command) => command.run(Role::Researcher, json),
            Self::Approver(command) => command.run(Role::Approver, json),
            Self::Review(command) => command.run(json),
            Self::Job(command) => command.run(json),
            Self::Simulate(command) => command.run(json),
            Self::Witness(command) => command.run(json),
            Self::Log(command) => command.run(json),
        }
    }
}

/// Runs a daemon until Ctrl-C or SIGTERM. Work that blocks is not waited for: how long it takes is
/// nobody's business, and the one who does it has written down what must outlast it. It ends with the
/// process, which is at its end when this returns.
fn daemon<E>(
    run: impl AsyncFnOnce(tokio_util::sync::CancellationToken) -> Result<(), E>,
    code: impl Fn(&E) -> &'static str,
) -> Result<()>
where
    E: std::fmt::Display,
{
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let ended = runtime.block_on(async {
        let stop = tokio_util::sync::CancellationToken::new();
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        let token = stop.clone();
        let signals = tokio::spawn(async move {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
            token.cancel();
        });
        let ended = run(stop).await;
        signals.abort();
        ended.map_err(|error| crate::failure::coded(code(&error), &error))
    });
    runtime.shutdown_background();
    ended
}
