//! `shoal health`: one question by grpc.health.v1, for the health checks of containers.
use crate::{
    client,
    exit::{Failure, Result},
    output, plan_file, supervise,
};
use clap::Args;
use std::time::Duration;

/// What `shoal health` takes.
#[derive(Args, Debug)]
pub struct HealthArgs {
    /// host:port or http://host:port of any process of the mesh
    pub address: String,
    /// A service by its full name, for example shoal.v1.PlanService [default: the whole process]
    #[arg(long, default_value = "", hide_default_value = true, value_name = "NAME")]
    pub service: String,
    /// How long to wait for the answer
    #[arg(long, value_parser = plan_file::duration, value_name = "TIME", default_value = "3s")]
    pub timeout: Duration,
}

/// The command: exit 0 if the process says SERVING, 69 if it does not.
pub(crate) async fn health(args: HealthArgs) -> Result<()> {
    let address = client::with_scheme(&args.address);
    match supervise::check(&address, &args.service, args.timeout).await {
        Ok(true) => {
            output::line("serving");
            Ok(())
        }
        Ok(false) => Err(Failure::unavailable(format!(
            "{address} is not serving: it starts, drains, or has lost a part"
        ))),
        Err(why) => Err(Failure::unavailable(format!("{address}: {why}"))),
    }
}
