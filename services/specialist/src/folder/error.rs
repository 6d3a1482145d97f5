//! What can be wrong with a folder. Every message says what to do; the process exits 64 with it before anything binds.
use std::path::PathBuf;

/// A fault in a specialist's folder.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file is not there.
    #[error("{} is missing: export it there, or take it out of what names it", path.display())]
    Missing {
        /// Where it should be.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("{} cannot be read: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// TOML, JSON or UTF-8 that does not parse.
    #[error("{} does not parse: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and why.
        message: String,
    },
    /// specialist.toml or card.toml says something that cannot be.
    #[error("{}: {message}", path.display())]
    Card {
        /// The file.
        path: PathBuf,
        /// What is wrong and what would be right.
        message: String,
    },
    /// A name that leaves the version's folder.
    #[error("`{name}` leaves {}: name a file inside it, without `..` and without a leading `/`", root.display())]
    Escapes {
        /// The folder.
        root: PathBuf,
        /// The name as written.
        name: String,
    },
    /// A symbolic link.
    #[error("{} is a symbolic link: put the file itself there", path.display())]
    Symlink {
        /// The link.
        path: PathBuf,
    },
    /// A file that has other names.
    #[error("{} has {links} hard links: copy it (`cp`, not `cp -l`), so that no other name can change it", path.display())]
    HardLink {
        /// The file.
        path: PathBuf,
        /// How many names it has.
        links: u64,
    },
    /// A directory, pipe or device where a file should be, or a file where a directory should be.
    #[error("{} is not a regular {wanted}: put one there", path.display())]
    NotRegular {
        /// The path.
        path: PathBuf,
        /// "file" or "directory".
        wanted: &'static str,
    },
    /// A file that the card does not list.
    #[error("{} is not listed under [files] in card.toml: add its name and sha256", path.display())]
    Unlisted {
        /// The file.
        path: PathBuf,
    },
    /// A file that is not what the card says.
    #[error("{} has sha256 {found}, card.toml lists {listed}: restore the file, or export again and list the new sum", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
        /// In the card.
        listed: String,
        /// On disk.
        found: String,
    },
    /// A text file of absurd size.
    #[error("{} is {bytes} bytes, over the limit of {limit}: this is no {what}", path.display(), what = "file of its kind")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
        /// What is allowed.
        limit: u64,
    },
    /// The ONNX file is malformed, or refers to what it must not.
    #[error("{}: {message}", path.display())]
    Onnx {
        /// The file.
        path: PathBuf,
        /// What is wrong and what would be right.
        message: String,
    },
    /// External data outside its file.
    #[error(
        "{}: tensor `{tensor}` wants bytes {offset}..{end} of `{location}`, which has {bytes}: export the model again",
        path.display()
    )]
    Range {
        /// The ONNX file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// The external file.
        location: String,
        /// First byte.
        offset: u64,
        /// One past the last byte.
        end: u64,
        /// Size of the external file.
        bytes: u64,
    },
}
