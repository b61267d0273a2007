//! Exit codes, and the one error type that carries them.

use std::path::Path;
use veilformer::accel;
use veilformer::accel::OffloadError;
use veilformer::ckks;
use veilformer::transformer::ConfigError;
use veilformer::transformer::slots::SlotError;
use veilformer::wire;
use veilformer_multicore::SetupError;
use veilformer_plain::data::DataError;
use veilformer_plain::executor::PlainError;
use veilformer_plain::model::ModelError;
use veilformer_plain::pretrain::PretrainError;
use veilformer_plain::tokenizer::TokenizerError;
use veilformer_plain::train::TrainError;

/// What the process tells its caller. Part of the interface: numbers never change meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// Something failed that no other code names.
    Failure = 1,
    /// The command line is wrong, or an output exists and `--force` was not given.
    Usage = 2,
    /// An input file is missing, damaged, or not what was asked for.
    BadFile = 3,
    /// A key is missing, or belongs to somebody else.
    Key = 4,
    /// Refused, because going on would not be secure.
    Security = 5,
    /// Not enough memory or disk.
    Resources = 6,
    /// A value left its polynomial's interval: an answer means nothing.
    Escaped = 7,
    /// Stopped as asked; what was done is kept.
    Stopped = 8,
}

/// For `--help`.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0  success
  1  failure
  2  wrong usage, or an output file exists and --force was not given
  3  an input file is missing, damaged or not what was asked for
  4  a key is missing or belongs to another secret key
  5  refused for security: a secret key where none may be, parameters without security, no releases left
  6  out of memory or disk
  7  a value left its polynomial's interval under encryption: an answer means nothing
  8  stopped by Ctrl-C or a signal; what was done is kept";

/// Why the program stops: a code for scripts, a sentence for people. Never holds anything secret.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into() }
    }

    /// What was being done, in front of what went wrong.
    pub(crate) fn during(self, what: impl std::fmt::Display) -> Self {
        Self { message: format!("{what}: {}", self.message), ..self }
    }
}

/// Names the file an error is about.
pub(crate) trait InFile<T> {
    fn in_file(self, path: &Path) -> Result<T, Failure>;
}

impl<T, E: Into<Failure>> InFile<T> for Result<T, E> {
    fn in_file(self, path: &Path) -> Result<T, Failure> {
        self.map_err(|error| error.into().during(path.display()))
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        use std::io::ErrorKind;
        let exit = match error.kind() {
            ErrorKind::NotFound
            | ErrorKind::PermissionDenied
            | ErrorKind::InvalidData
            | ErrorKind::UnexpectedEof
            | ErrorKind::IsADirectory
            | ErrorKind::NotADirectory => Exit::BadFile,
            ErrorKind::AlreadyExists => Exit::Usage,
            ErrorKind::StorageFull
            | ErrorKind::OutOfMemory
            | ErrorKind::QuotaExceeded
            | ErrorKind::FileTooLarge => Exit::Resources,
            _ => Exit::Failure,
        };
        Self::new(exit, error.to_string())
    }
}

impl From<ckks::Error> for Failure {
    fn from(error: ckks::Error) -> Self {
        use ckks::Error as E;
        let (exit, hint) = match error {
            E::Insecure { .. } => (Exit::Security, ""),
            E::ReleasesExhausted { .. } => (Exit::Security, "; make a new key"),
            E::MissingKey { .. } => (Exit::Key, "; were the keys made for this model?"),
            E::Memory(_) | E::Accelerator(accel::Error::OutOfLimbs { .. }) => (Exit::Resources, ""),
            _ => (Exit::Failure, ""),
        };
        Self::new(exit, format!("{error}{hint}"))
    }
}

impl From<accel::Error> for Failure {
    fn from(error: accel::Error) -> Self {
        ckks::Error::from(error).into()
    }
}

impl From<veilformer::matrix::Error> for Failure {
    fn from(error: veilformer::matrix::Error) -> Self {
        match error {
            veilformer::matrix::Error::Scheme(error) => error.into(),
            error => Self::new(Exit::Failure, error.to_string()),
        }
    }
}

impl From<veilformer_engine::Error> for Failure {
    fn from(error: veilformer_engine::Error) -> Self {
        use veilformer_engine::Error as E;
        match error {
            E::Stopped => Self::new(Exit::Stopped, error.to_string()),
            E::Matrix(error) => error.into(),
            E::Scheme(error) => error.into(),
            error => Self::new(Exit::Failure, error.to_string()),
        }
    }
}

impl From<wire::Error> for Failure {
    fn from(error: wire::Error) -> Self {
        use wire::Error as E;
        let (exit, hint) = match error {
            E::Scheme(error) => return error.into(),
            E::SecretNotAllowed => (Exit::Security, "; give the file of public keys instead"),
            E::InsecureMark => (Exit::Security, "; make keys under secure parameters"),
            E::OtherKey { .. } => (Exit::Key, "; use the files of one key generation together"),
            E::NoRoom { .. } => (Exit::Resources, ""),
            E::Stream(fault) => {
                return Self::from(std::io::Error::from_raw_os_error(fault.code));
            }
            E::Truncated { .. } | E::Corrupt { .. } => (Exit::BadFile, "; copy or make the file again"),
            _ => (Exit::BadFile, ""),
        };
        Self::new(exit, format!("{error}{hint}"))
    }
}

impl From<SlotError> for Failure {
    fn from(error: SlotError) -> Self {
        match error {
            SlotError::Scheme(error) => error.into(),
            SlotError::Layout(_) | SlotError::NoApproximation(_) => {
                Self::new(Exit::BadFile, format!("this model cannot be run under encryption: {error}"))
            }
            error => Self::new(Exit::Failure, error.to_string()),
        }
    }
}

impl From<PretrainError> for Failure {
    fn from(error: PretrainError) -> Self {
        let exit = match &error {
            PretrainError::Diverged { .. } => Exit::Failure,
            _ => Exit::BadFile,
        };
        match error {
            PretrainError::File { path, source } => Self::from(source).during(path.display()),
            error => Self::new(exit, error.to_string()),
        }
    }
}

/// Errors that mean the same wherever they come from.
macro_rules! always {
    ($($error:ty => $exit:ident),* $(,)?) => {$(
        impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::new(Exit::$exit, error.to_string())
            }
        }
    )*};
}

always! {
    ModelError => BadFile,
    DataError => BadFile,
    TokenizerError => BadFile,
    ConfigError => BadFile,
    PlainError => Failure,
    TrainError => Failure,
    SetupError => Failure,
    OffloadError => Failure,
    serde_json::Error => Failure,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_keep_their_codes() {
        let exit = |failure: Failure| failure.exit;
        assert_eq!(exit(wire::Error::SecretNotAllowed.into()), Exit::Security);
        assert_eq!(exit(wire::Error::OtherKey { have: 1, need: 2 }.into()), Exit::Key);
        assert_eq!(exit(wire::Error::Truncated { have: 1, need: 2 }.into()), Exit::BadFile);
        assert_eq!(exit(accel::Error::OutOfLimbs { capacity: 3 }.into()), Exit::Resources);
        let fault = wire::Fault { code: 28 };
        assert_eq!(exit(wire::Error::Stream(fault).into()), Exit::Resources, "ENOSPC");
        let missing = std::io::Error::from(std::io::ErrorKind::NotFound);
        assert_eq!(exit(missing.into()), Exit::BadFile);
    }

    #[test]
    fn the_help_lists_every_code() {
        for code in 1..=Exit::Stopped as u8 {
            assert!(EXIT_CODES.contains(&format!("\n  {code}  ")), "{code}");
        }
    }
}
