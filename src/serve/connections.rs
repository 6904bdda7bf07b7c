//! Connections: accepted up to a limit, none of which may be slow for ever, and ended in good order.

use super::api::Api;
use futures::future::{Either, select};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_io_timeout::TimeoutStream;

/// The largest head of a request.
const HEAD: usize = 64 << 10;
/// After an error of the system, such as too many open files.
const PAUSE: Duration = Duration::from_millis(50);

/// Serves until `stop` says for how long requests may go on.
pub(super) async fn serve(listener: TcpListener, api: &Arc<Api>, stop: impl Future<Output = Duration>) {
    let slots = Arc::new(Semaphore::new(api.limits.connections.min(Semaphore::MAX_PERMITS)));
    let (graceful, mut connections) = (GracefulShutdown::new(), JoinSet::new());
    let mut stop = pin!(stop);
    let grace = loop {
        let (socket, slot) = match select(&mut stop, pin!(accept(&listener, &slots, api.limits.write))).await {
            Either::Left((grace, _)) => break grace,
            Either::Right((accepted, _)) => accepted,
        };
        let api = api.clone();
        let read = api.limits.read;
        let service = service_fn(move |request| {
            let api = api.clone();
            async move { Ok::<_, Infallible>(api.handle(request).await) }
        });
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(read).max_buf_size(HEAD);
        let connection = graceful.watch(builder.serve_connection(TokioIo::new(socket), service));
        connections.spawn(async move {
            if let Err(error) = connection.await {
                log::debug!("a connection ended: {error}");
            }
            drop(slot);
        });
        while connections.try_join_next().is_some() {}
    };
    drop(listener);
    let _ = timeout(grace, graceful.shutdown()).await;
    connections.shutdown().await;
}

/// The next connection, when there is a slot for it; writing to it fails if its client reads nothing for that long.
async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
    write: Duration,
) -> (Pin<Box<TimeoutStream<TcpStream>>>, Option<OwnedSemaphorePermit>) {
    let slot = slots.clone().acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Ok((socket, _)) => {
                // Each token goes out when it is there.
                let _ = socket.set_nodelay(true);
                let mut socket = TimeoutStream::new(socket);
                socket.set_write_timeout(Some(write));
                return (Box::pin(socket), slot);
            }
            Err(error) => {
                log::warn!("no connection could be accepted: {error}");
                sleep(PAUSE).await;
            }
        }
    }
}
