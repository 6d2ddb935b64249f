//! Keys, passphrases and small files of the command line.

use std::io::IsTerminal as _;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use vestibule_protocol::key::{KeyError, PublicKey, SecretKey};
use zeroize::Zeroizing;

use crate::failure::{Failure, coded};

/// Where a passphrase comes from without a terminal.
pub(crate) const PASSPHRASE_VARIABLE: &str = "VESTIBULE_PASSPHRASE";

/// The passphrase in the environment, or the one that systemd hands to a service (`LoadCredential=vestibule-passphrase:...`), if there is one.
///
/// # Errors
/// It is there, and empty: keys would lie open without a word.
pub(crate) fn passphrase() -> Result<Option<Zeroizing<String>>> {
    let variable = std::env::var(PASSPHRASE_VARIABLE).ok().map(Zeroizing::new);
    let credential = || {
        let folder = std::env::var_os("CREDENTIALS_DIRECTORY")?;
        let text = Zeroizing::new(std::fs::read_to_string(Path::new(&folder).join("vestibule-passphrase")).ok()?);
        Some(Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned()))
    };
    match variable.or_else(credential) {
        Some(text) if text.is_empty() => {
            let why = format!("{PASSPHRASE_VARIABLE} is empty: unset it where keys are to have no passphrase");
            Err(Failure::input("passphrase-empty", why))
        }
        found => Ok(found),
    }
}

/// A secret that was given as an argument; `-` stands for a line of standard input.
pub(crate) fn handed(argument: String) -> Result<Zeroizing<String>> {
    if argument != "-" {
        return Ok(Zeroizing::new(argument));
    }
    let mut line = Zeroizing::new(String::new());
    std::io::stdin().read_line(&mut line).context("reading standard input")?;
    Ok(Zeroizing::new(line.trim().to_owned()))
}

/// Runs `open` with the passphrase of the environment and, where one is needed and a person is there, with one they type.
pub(crate) fn with_passphrase<T, E: std::fmt::Display>(
    open: impl Fn(Option<&str>) -> Result<T, E>,
    code: impl Fn(&E) -> &'static str,
) -> Result<T> {
    let given = passphrase()?;
    match open(given.as_deref().map(String::as_str)) {
        Ok(value) => Ok(value),
        Err(error) if code(&error) == KeyError::PassphraseNeeded.code() && std::io::stdin().is_terminal() => {
            let typed = Zeroizing::new(rpassword::prompt_password("Passphrase: ").context("reading the passphrase")?);
            open(Some(&typed)).map_err(|error| coded(code(&error), &error))
        }
        Err(error) if code(&error) == KeyError::PassphraseNeeded.code() => {
            Err(coded(code(&error), format!("{error} in the environment variable {PASSPHRASE_VARIABLE}")))
        }
        Err(error) => Err(coded(code(&error), &error)),
    }
}

/// Reads a secret key.
pub(crate) fn secret_key(path: &Path) -> Result<SecretKey> {
    let text = Zeroizing::new(read(path)?);
    with_passphrase(|passphrase| SecretKey::from_pem(&text, passphrase), KeyError::code)
        .with_context(|| path.display().to_string())
        .map_err(|error| match error.downcast::<Failure>() {
            Ok(failure) => coded(&failure.code, format!("{}: {}", path.display(), failure.message)),
            Err(error) => error,
        })
}

/// Reads a public key, from its own file or from a secret key's neighbour.
pub(crate) fn public_key(path: &Path) -> Result<PublicKey> {
    PublicKey::from_pem(&read(path)?).map_err(|error| coded(error.code(), format!("{}: {error}", path.display())))
}

/// Reads a text file; the error names it.
pub(crate) fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|error| Failure::input("file-unreadable", format!("{}: {error}", path.display())))
}

/// Reads a file; the error names it.
pub(crate) fn read_bytes(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|error| Failure::input("file-unreadable", format!("{}: {error}", path.display())))
}

/// Writes a file; the error names it.
pub(crate) fn write(path: &Path, bytes: impl AsRef<[u8]>) -> Result<()> {
    std::fs::write(path, bytes).map_err(|error| Failure::input("file-unwritable", format!("{}: {error}", path.display())))
}

/// Seconds since 1970, UTC.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// Random bytes of the operating system.
pub(crate) fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("the system gives no randomness: {error}"))?;
    Ok(bytes)
}

/// Milliseconds since 1970 as people read them.
pub(crate) fn rfc3339(at_ms: i64) -> String {
    let moment = time::OffsetDateTime::from_unix_timestamp_nanos(i128::from(at_ms) * 1_000_000);
    let format = time::macros::format_description!("[year]-[month]-[day] [hour]:[minute]:[second].[subsecond digits:3]");
    moment.ok().and_then(|moment| moment.format(&format).ok()).unwrap_or_else(|| at_ms.to_string())
}
