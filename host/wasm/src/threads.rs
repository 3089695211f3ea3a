//! The threads that guests run on, apart from those that serve requests.
//!
//! A call begins on quick threads. There are more of them than cores, so that the kernel lets a short call in between others that
//! are not over yet. A guest that is still running after [`QUICK_TICKS`] goes on on slow threads, which come after all others: what
//! loops there takes next to nothing from decisions, pages and hooks.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::{JoinError, JoinHandle};

/// At so many ticks a guest must be found running to be a slow one: a short call may meet one by chance.
const QUICK_TICKS: u32 = 2;

/// A tenth of the share of other threads. At the lowest of all an honest plugin that has much to do would miss the end of its time on a
/// machine that is full of builds.
const SLOW_NICENESS: libc::c_int = 10;

/// Ticks at which the guest of a call was found running.
pub(crate) type Ticks = Arc<AtomicU32>;

/// Both kinds of threads. What runs on them ends with them, at the next tick.
#[derive(Debug)]
pub(crate) struct GuestThreads {
    quick: Handle,
    slow: Handle,
    _ended_last: [Background; 2],
}

/// A runtime that may be dropped anywhere: nobody waits for its threads.
#[derive(Debug)]
struct Background(Option<Runtime>);

impl Drop for Background {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl GuestThreads {
    pub(crate) fn start() -> std::io::Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let mut quick = Builder::new_multi_thread();
        quick.worker_threads(2 * cores + 2).thread_name("guest");
        let mut slow = Builder::new_multi_thread();
        slow.worker_threads(cores).thread_name("guest-slow").on_thread_start(step_back);
        let (quick, slow) = (quick.enable_all().build()?, slow.enable_all().build()?);
        Ok(Self {
            quick: quick.handle().clone(),
            slow: slow.handle().clone(),
            _ended_last: [Background(Some(quick)), Background(Some(slow))],
        })
    }

    /// Runs a call to its end, whether or not anybody waits for it.
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        ticks: Ticks,
        call: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<Result<T, JoinError>> {
        let slow = self.slow.clone();
        let first = FirstSlice { call: Some(Box::pin(call)), ticks };
        self.quick.spawn(async move {
            match first.await {
                First::Over(answer) => Ok(answer),
                First::GoesOn(rest) => slow.spawn(rest).await,
            }
        })
    }
}

/// Linux has a niceness for each thread; to raise it needs no privilege. Where it cannot be had, guests compete as equals.
#[expect(unsafe_code, reason = "std has no way to change a thread's priority")]
fn step_back() {
    // SAFETY: setpriority takes no pointers; 0 is the calling thread.
    if unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, SLOW_NICENESS) } != 0 {
        tracing::warn!("the threads of slow plugins keep their priority: {}", std::io::Error::last_os_error());
    }
}

/// A call until it is over, or turns out to be a slow one.
struct FirstSlice<F> {
    call: Option<Pin<Box<F>>>,
    ticks: Ticks,
}

enum First<F: Future> {
    Over(F::Output),
    GoesOn(Pin<Box<F>>),
}

impl<F: Future> Future for FirstSlice<F> {
    type Output = First<F>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(mut call) = self.call.take() else { return Poll::Pending };
        match call.as_mut().poll(context) {
            Poll::Ready(answer) => Poll::Ready(First::Over(answer)),
            Poll::Pending if self.ticks.load(Ordering::Relaxed) >= QUICK_TICKS => Poll::Ready(First::GoesOn(call)),
            Poll::Pending => {
                self.call = Some(call);
                Poll::Pending
            }
        }
    }
}
