//! A server that can be killed: it has a runtime of its own, and when that goes, every connection of it goes at once, as with a
//! process that gets SIGKILL.
use shoal_kit::serve::{self, Process, Server};
use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Mutex,
    time::Duration,
};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

pub(crate) struct Killable {
    pub(crate) address: SocketAddr,
    runtime: Mutex<Option<Runtime>>,
}

impl Killable {
    /// Serves on the address, or on any free port of that loopback address if its port is 0.
    pub(crate) fn serve(address: SocketAddr, name: &str, build: impl FnOnce(Server) -> Server) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("runtime");
        let http = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0);
        // A port that a killed server has just left may take a moment to be free again.
        let bind = async {
            for _ in 0..200 {
                match serve::bind(address, http).await {
                    Ok(bound) => return bound,
                    Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                }
            }
            panic!("{address} stays taken")
        };
        let bound = std::thread::scope(|scope| scope.spawn(|| runtime.block_on(bind)).join().expect("bound"));
        let address = bound.grpc_addr().expect("address");
        let process = Process {
            name: name.to_owned(),
            version: format!("{name}@1"),
            provider: "cpu".into(),
        };
        let server = build(Server::new(process));
        runtime.spawn(server.run(bound, CancellationToken::new(), Duration::ZERO));
        Self {
            address,
            runtime: Mutex::new(Some(runtime)),
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// SIGKILL.
    pub(crate) fn kill(&self) {
        if let Some(runtime) = self.runtime.lock().expect("runtime").take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Killable {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Any free port of 127.0.0.1.
pub(crate) fn anywhere() -> SocketAddr {
    SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0)
}
