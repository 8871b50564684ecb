//! A TCP relay between two parts of a test, which can be cut as a network is: what is open stands still and dies, what is
//! new is not answered. Not here: what flows through it.

use std::{net::SocketAddr, sync::Arc};

use anyhow::Result;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

/// A relay to one address.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    is_cut: Arc<watch::Sender<bool>>,
    task: JoinHandle<()>,
}

impl Relay {
    /// Starts a relay to `to` (`host:port`).
    ///
    /// # Errors
    /// When no port is free.
    pub async fn start(to: &str) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let (address, to) = (listener.local_addr()?, to.to_owned());
        let is_cut = Arc::new(watch::channel(false).0);
        let cut = Arc::clone(&is_cut);
        let task = tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let (to, mut cut) = (to.clone(), cut.subscribe());
                tokio::spawn(async move {
                    if *cut.borrow_and_update() {
                        // Silence, until the cut is over: then the connection is closed.
                        cut.changed().await.ok();
                        return;
                    }
                    let Ok(mut far) = TcpStream::connect(&to).await else { return };
                    tokio::select! {
                        _ = copy_bidirectional(&mut near, &mut far) => {}
                        // Both ends keep an open connection on which nothing comes any more.
                        _ = cut.changed() => drop(cut.changed().await),
                    }
                });
            }
        });
        Ok(Self { address, is_cut, task })
    }

    /// Where it is: `http://host:port`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Nothing goes through any more.
    pub fn cut(&self) {
        self.is_cut.send_replace(true);
    }

    /// New connections go through again.
    pub fn mend(&self) {
        self.is_cut.send_replace(false);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}
