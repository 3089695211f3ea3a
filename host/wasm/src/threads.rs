//! The threads that guests run on, apart from those that serve requests.
//!
//! A call begins on quick threads. There are more of them than cores, so that the kernel lets a short call in between others that
//! are not over yet. A guest that is still running after [`QUICK_TICKS`] goes on on slow threads, which come after all others: what
//! loops there takes next to nothing from decisions, pages and hooks.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::JoinError;

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

    /// Runs a call to its end, whether or not anybody waits for it. What already runs on quick threads goes on on its own: to wake
    /// another one would take as long as many a call.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        ticks: Ticks,
        call: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Panicked> {
        let first = FirstSlice { call: Some(Box::pin(call)), ticks };
        let slow = self.slow.clone();
        let whole = async move {
            match first.await {
                First::Over(ended) => ended,
                First::GoesOn(rest) => Ok(slow.spawn(rest).await?),
            }
        };
        if Handle::try_current().is_ok_and(|here| here.id() == self.quick.id()) {
            whole.await
        } else {
            self.quick.spawn(whole).await?
        }
    }

    /// Runs what makes one call after the other where those calls begin. A panic of it is the caller's.
    pub(crate) async fn beside<T: Send + 'static>(&self, calls: impl Future<Output = T> + Send + 'static) -> T {
        match self.quick.spawn(calls).await.map_err(JoinError::try_into_panic) {
            Ok(done) => done,
            Err(Ok(payload)) => resume_unwind(payload),
            // The threads end with all that could ask them.
            Err(Err(_)) => std::future::pending().await,
        }
    }
}

/// What a panic said.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Panicked(String);

impl Panicked {
    fn of(payload: &(dyn Any + Send)) -> Self {
        let text = payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        Self(text.unwrap_or("a panic without words").to_owned())
    }
}

impl From<JoinError> for Panicked {
    fn from(error: JoinError) -> Self {
        let text = error.to_string();
        error.try_into_panic().map_or(Self(text), |payload| Self::of(&*payload))
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
    Over(Result<F::Output, Panicked>),
    GoesOn(Pin<Box<F>>),
}

impl<F: Future> Future for FirstSlice<F> {
    type Output = First<F>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(mut call) = self.call.take() else { return Poll::Pending };
        // The call is not polled again after a panic, nor looked at.
        match catch_unwind(AssertUnwindSafe(|| call.as_mut().poll(context))) {
            Err(payload) => Poll::Ready(First::Over(Err(Panicked::of(&*payload)))),
            Ok(Poll::Ready(answer)) => Poll::Ready(First::Over(Ok(answer))),
            Ok(Poll::Pending) if self.ticks.load(Ordering::Relaxed) >= QUICK_TICKS => Poll::Ready(First::GoesOn(call)),
            Ok(Poll::Pending) => {
                self.call = Some(call);
                Poll::Pending
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    fn name() -> String {
        thread::current().name().unwrap_or_default().to_owned()
    }

    #[tokio::test]
    async fn calls_one_after_the_other_wake_no_further_thread() {
        let threads = Arc::new(GuestThreads::start().unwrap());
        let inner = Arc::clone(&threads);
        let calls = async move {
            for _ in 0..100 {
                let called_on = inner.run(Ticks::default(), async { thread::current().id() }).await.unwrap();
                assert_eq!(called_on, thread::current().id());
            }
            name()
        };
        assert_eq!(threads.beside(calls).await, "guest");
        assert_eq!(threads.run(Ticks::default(), async { name() }).await.unwrap(), "guest", "and none is made on our own");
    }

    #[tokio::test]
    async fn what_is_found_running_goes_on_on_a_slow_thread() {
        let threads = Arc::new(GuestThreads::start().unwrap());
        let inner = Arc::clone(&threads);
        let slow = || {
            let ticks = Ticks::default();
            (ticks.clone(), async move {
                ticks.fetch_add(QUICK_TICKS, Ordering::Relaxed);
                tokio::task::yield_now().await;
                name()
            })
        };
        let (ticks, call) = slow();
        assert_eq!(threads.run(ticks, call).await.unwrap(), "guest-slow");
        let (ticks, call) = slow();
        let calls = async move { (inner.run(ticks, call).await.unwrap(), name()) };
        assert_eq!(threads.beside(calls).await, ("guest-slow".to_owned(), "guest".to_owned()));
    }

    #[tokio::test]
    async fn a_panic_ends_its_call_and_nothing_else() {
        let threads = Arc::new(GuestThreads::start().unwrap());
        let inner = Arc::clone(&threads);
        let calls = async move {
            let first = inner.run(Ticks::default(), async { assert!(name().is_empty(), "stumbled") }).await;
            let second = inner.run(Ticks::default(), async { 2 }).await;
            (first.unwrap_err().to_string(), second.unwrap())
        };
        assert_eq!(threads.beside(calls).await, ("stumbled".to_owned(), 2));
        let alone = threads.run(Ticks::default(), async { assert!(name().is_empty(), "stumbled") }).await;
        assert_eq!(alone.unwrap_err().to_string(), "stumbled");
    }
}
