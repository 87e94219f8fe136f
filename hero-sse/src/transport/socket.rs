//! The kernel's options of a socket.

use std::any::Any;
use std::io;
use std::sync::Once;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

use crate::telemetry;

/// Maximum number of unsent bytes in the kernel. The default is megabytes: at 200 bytes a second a stall would be
/// noticed after hours.
#[cfg(any(target_os = "linux", target_os = "android"))]
const UNSENT: u32 = 16 * 1024;

/// Size of the send buffer, on kernels without a bound for unsent bytes.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const SEND_BUFFER: usize = 64 * 1024;

/// The longest keep-alive time that the kernel accepts.
const PROBE_LIMIT: Duration = Duration::from_secs(32_767);

static NOT_TCP: Once = Once::new();

/// Sets the options that make stalled clients and vanished peers noticeable early. `GuardedIo` adds the peer
/// timeout while a stream is live.
pub(crate) fn set_up<T: Any>(io: &T, peer_timeout: Option<Duration>) {
    let Some(socket) = (io as &dyn Any).downcast_ref::<TcpStream>() else {
        return NOT_TCP.call_once(telemetry::not_tcp);
    };
    if let Err(error) = try_set_up(&SockRef::from(socket), peer_timeout) {
        telemetry::no_kernel_options(&error);
    }
}

fn try_set_up(socket: &SockRef<'_>, peer_timeout: Option<Duration>) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    #[cfg(any(target_os = "linux", target_os = "android"))]
    socket.set_tcp_notsent_lowat(UNSENT)?;
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    socket.set_send_buffer_size(SEND_BUFFER)?;
    if let Some(timeout) = peer_timeout {
        // Keep-alive probes are for idle connections. The kernel counts in whole seconds.
        let seconds = |time: Duration| time.clamp(Duration::from_secs(1), PROBE_LIMIT);
        let keepalive =
            TcpKeepalive::new().with_time(seconds(timeout)).with_interval(seconds(timeout / 3));
        socket.set_tcp_keepalive(&keepalive)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn the_kernel_accepts_the_options_for_any_peer_timeout() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        for (millis, probe) in [(500, 1), (2_000, 2), (60_000, 60), (366 * 86_400_000, 32_767)] {
            let stream = TcpStream::connect(address).await.expect("a socket");
            let socket = SockRef::from(&stream);
            try_set_up(&socket, Some(Duration::from_millis(millis))).expect("legal options");
            assert!(socket.tcp_nodelay().expect("an option"));
            assert_eq!(socket.tcp_notsent_lowat().expect("an option"), UNSENT);
            assert_eq!(socket.tcp_keepalive_time().expect("an option").as_secs(), probe);
            assert!(socket.keepalive().expect("an option"));
        }
    }
}
