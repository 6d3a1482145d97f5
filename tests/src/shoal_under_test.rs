//! The binary `shoal` under another name: a test of this package finds it as `CARGO_BIN_EXE_shoal-under-test`, which cargo
//! does not offer for binaries of other packages. It calls the same main.
fn main() -> std::process::ExitCode {
    shoal::main_entry()
}
