//! The `shoal` binary; everything is in the library, so that the workspace's tests can run it under another name.

fn main() -> std::process::ExitCode {
    shoal::main_entry()
}
