//! What a command's end means to the shell.
use shoal_kit::{config, status};
use std::{fmt, process::ExitCode};

/// Exit codes. 64 to 74 are those of BSD's sysexits.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 1: the plan failed, or the mesh refused the request. Change the request.
    Refused,
    /// 3: a retraining went its whole way, and its candidate is no better than what is served. Nothing was changed.
    NotBetter,
    /// 64: the command line, a file or the configuration is wrong; nothing was started. Change what the message names.
    Usage,
    /// 69: the mesh, or a part of it, cannot be reached or did not come up. Try again later, or look at its log.
    Unavailable,
    /// 70: a fault of ours or of the machine.
    Internal,
    /// 74: standard output could not be written, for example to a full disk. What stands there is not all.
    Output,
}

impl Exit {
    /// The number.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Exit::Refused => 1,
            Exit::NotBetter => 3,
            Exit::Usage => 64,
            Exit::Unavailable => 69,
            Exit::Internal => 70,
            Exit::Output => 74,
        }
    }

    /// The meaning of a child's exit code, if it has one of ours.
    #[must_use]
    pub fn of_code(code: i32) -> Option<Exit> {
        let all = [
            Exit::Refused,
            Exit::NotBetter,
            Exit::Usage,
            Exit::Unavailable,
            Exit::Internal,
            Exit::Output,
        ];
        all.into_iter().find(|e| i32::from(e.code()) == code)
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit.code())
    }
}

/// Why a command did not do what it was asked, in words that say what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// For the shell.
    pub exit: Exit,
    /// For people.
    pub message: String,
}

impl Failure {
    /// 1.
    pub fn refused(message: impl Into<String>) -> Self {
        Self {
            exit: Exit::Refused,
            message: message.into(),
        }
    }

    /// 64.
    pub fn usage(message: impl Into<String>) -> Self {
        Self {
            exit: Exit::Usage,
            message: message.into(),
        }
    }

    /// 69.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self {
            exit: Exit::Unavailable,
            message: message.into(),
        }
    }

    /// 70.
    pub fn internal(message: impl Into<String>) -> Self {
        Self {
            exit: Exit::Internal,
            message: message.into(),
        }
    }

    /// 74.
    pub fn output(error: &std::io::Error) -> Self {
        Self {
            exit: Exit::Output,
            message: format!("cannot write to standard output: {error}"),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl From<config::Error> for Failure {
    fn from(error: config::Error) -> Self {
        Self::usage(error.to_string())
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::internal(format!("{error:#}"))
    }
}

/// What to do where the gateway does not answer.
const START_MESH: &str = "start it with `shoal up`, name another with --gateway, or use --local";

/// The same of the feedback service, whose clients have another flag.
const START_STORE: &str = "start it with `shoal up`, or name another with --feedback";

impl From<tonic::Status> for Failure {
    /// A refusal carries the server's words; a mesh that is not there gets advice on how to start one.
    fn from(status: tonic::Status) -> Self {
        Self::answered(&status, "the mesh", START_MESH)
    }
}

impl Failure {
    /// The same for a call to the feedback service.
    pub(crate) fn of_store(status: tonic::Status) -> Self {
        Self::answered(&status, "the feedback service", START_STORE)
    }

    fn answered(status: &tonic::Status, who: &str, advice: &str) -> Self {
        let (code, message) = (status::code_name(status.code().into()), status.message());
        let wait = status::retry_after(status)
            .map(|d| format!(" (retry after {d:.1?})"))
            .unwrap_or_default();
        match status.code() {
            // Only what the connection itself came to has a source: a status that was sent has words alone.
            tonic::Code::Unavailable if std::error::Error::source(status).is_some() => {
                Self::unavailable(format!("{who} does not answer ({message}): {advice}"))
            }
            tonic::Code::Unavailable => Self::unavailable(format!("{who} answers {code}: {message}{wait}")),
            tonic::Code::Internal | tonic::Code::Unknown | tonic::Code::DataLoss => {
                Self::internal(format!("{code}: {message}"))
            }
            _ => Self::refused(format!("{code}: {message}{wait}")),
        }
    }
}

/// The result of a command.
pub type Result<T, E = Failure> = std::result::Result<T, E>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_exit_has_the_code_that_the_manual_names_and_is_found_by_it() {
        for (exit, code) in [
            (Exit::Refused, 1),
            (Exit::NotBetter, 3),
            (Exit::Usage, 64),
            (Exit::Unavailable, 69),
            (Exit::Internal, 70),
            (Exit::Output, 74),
        ] {
            assert_eq!(i32::from(exit.code()), code);
            assert_eq!(Exit::of_code(code), Some(exit));
        }
        assert_eq!(Exit::of_code(2), None);
    }

    #[tokio::test]
    async fn a_mesh_that_is_away_is_told_apart_from_one_that_lacks_a_part_and_one_that_refuses() {
        let nobody = crate::client::Mesh::at("http://127.0.0.1:1").expect("url");
        let away = Failure::from(nobody.status().await.expect_err("away"));
        assert_eq!(away.exit, Exit::Unavailable);
        assert!(away.message.contains("shoal up"), "{away}");
        let part = status::Reason::Unavailable {
            message: "the tool server concierge does not answer".into(),
            retry_after: std::time::Duration::from_secs(1),
        };
        let lacks = Failure::from(tonic::Status::from(part));
        assert_eq!(lacks.exit, Exit::Unavailable);
        assert!(
            lacks.message.contains("concierge") && lacks.message.contains("retry after 1.0s"),
            "{lacks}"
        );
        assert!(!lacks.message.contains("shoal up"), "{lacks}");
        let refused = Failure::from(tonic::Status::from(status::invalid("plan.nodes", "names no node")));
        assert_eq!(refused.exit, Exit::Refused);
        assert!(refused.message.contains("INVALID_ARGUMENT"), "{refused}");
    }
}
