//! The threads that guests run on, separate from those that serve requests.
//!
//! - **Quick threads.** A call starts here. There are more of them than cores, so that the kernel schedules a short call between
//!   longer ones.
//! - **Slow threads.** A call that exceeds [`QUICK_TICKS`] moves here. A plugin whose recent calls were slow or failed starts
//!   here until its calls are fast again. These threads use only idle CPU time, so that an endless loop takes almost nothing
//!   from decisions, pages and webhooks.
//! - **The late thread.** On a machine without idle CPU time, a slow call moves here after [`LATE_AFTER`] and gets a small share.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::JoinError;

/// Number of ticks at which a guest must be running to count as slow. A short call may coincide with one tick by chance.
const QUICK_TICKS: u32 = 2;

/// How long a slow call depends on idle CPU time. The rest of [`crate::Limits::total_time`] is enough for a legitimate but
/// expensive plugin on a machine that is fully used by builds.
const LATE_AFTER: Duration = Duration::from_secs(2);

/// The niceness of the late thread, which gives it a tenth of the share of other threads.
const LATE_NICENESS: libc::c_int = 10;

/// Number of ticks at which the guest of a call was running.
pub(crate) type Ticks = Arc<AtomicU32>;

/// The threads on which a call starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    Quick,
    Slow,
}

/// A score of how slow the recent calls of one plugin were. Without it, a plugin that is always slow would use the quick threads
/// for the first ticks of every call.
#[derive(Debug, Default)]
pub(crate) struct SlownessScore(AtomicU32);

impl SlownessScore {
    /// Points for one tick. A call without a tick removes one point, so this many fast calls compensate for one tick.
    const POINTS_PER_TICK: u32 = 20;
    /// The maximum score, and the score after a failed call.
    const MAX: u32 = 100;

    pub(crate) fn lane(&self) -> Lane {
        if self.0.load(Ordering::Relaxed) < QUICK_TICKS * Self::POINTS_PER_TICK { Lane::Quick } else { Lane::Slow }
    }

    /// Updates the score after a call.
    pub(crate) fn record_call(&self, ticks: &Ticks, answered: bool) {
        let ticks = ticks.load(Ordering::Relaxed);
        let updated = |score: u32| match (answered, ticks) {
            (false, _) => Self::MAX,
            (true, 0) => score.saturating_sub(1),
            (true, ticks) => score.saturating_add(ticks.saturating_mul(Self::POINTS_PER_TICK)).min(Self::MAX),
        };
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |score| Some(updated(score)));
    }
}

/// All guest threads. When they are dropped, running calls end at their next tick.
#[derive(Debug)]
pub(crate) struct GuestThreads {
    quick: Handle,
    slow: Handle,
    late: Handle,
    _runtimes: [BackgroundRuntime; 3],
}

/// A runtime that can be dropped anywhere, because dropping it does not wait for its threads.
#[derive(Debug)]
struct BackgroundRuntime(Option<Runtime>);

impl Drop for BackgroundRuntime {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl GuestThreads {
    pub(crate) fn start() -> std::io::Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        // Releasing a large guest memory blocks a core for milliseconds, so one core is kept free of slow calls.
        let slow_cores = cores.saturating_sub(1).max(1);
        let quick = build_runtime("guest", 2 * cores + 2, || ())?;
        let slow = build_runtime("guest-slow", slow_cores, use_idle_scheduling)?;
        let late = build_runtime("guest-late", 1, lower_priority)?;
        Ok(Self {
            quick: quick.handle().clone(),
            slow: slow.handle().clone(),
            late: late.handle().clone(),
            _runtimes: [quick, slow, late].map(|runtime| BackgroundRuntime(Some(runtime))),
        })
    }

    /// Runs a call to its end, even if the caller stops waiting. A caller on a quick thread runs the call on that thread, because
    /// waking another one can take as long as the call itself.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        lane: Lane,
        ticks: Ticks,
        call: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Panicked> {
        let (slow, late) = (self.slow.clone(), self.late.clone());
        let call = Box::pin(call);
        let in_lanes = async move {
            let call = match lane {
                Lane::Slow => call,
                Lane::Quick => match RunUntil::new(call, move || ticks.load(Ordering::Relaxed) >= QUICK_TICKS).await {
                    CallProgress::Finished(result) => return result,
                    CallProgress::MustMove(call) => call,
                },
            };
            let since = Instant::now();
            match slow.spawn(RunUntil::new(call, move || since.elapsed() >= LATE_AFTER)).await? {
                CallProgress::Finished(result) => result,
                CallProgress::MustMove(call) => Ok(late.spawn(call).await?),
            }
        };
        if Handle::try_current().is_ok_and(|here| here.id() == self.quick.id()) {
            in_lanes.await
        } else {
            self.quick.spawn(in_lanes).await?
        }
    }

    /// Runs a future that makes several calls in sequence on a quick thread. A panic is propagated to the caller.
    pub(crate) async fn run_on_quick<T: Send + 'static>(&self, calls: impl Future<Output = T> + Send + 'static) -> T {
        match self.quick.spawn(calls).await.map_err(JoinError::try_into_panic) {
            Ok(done) => done,
            Err(Ok(payload)) => resume_unwind(payload),
            // The runtime is shut down, together with everything that could wait for this.
            Err(Err(_)) => std::future::pending().await,
        }
    }
}

/// The message of a panic.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Panicked(String);

impl Panicked {
    fn of(payload: &(dyn Any + Send)) -> Self {
        let text = payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        Self(text.unwrap_or("a panic without a message").to_owned())
    }
}

impl From<JoinError> for Panicked {
    fn from(error: JoinError) -> Self {
        let text = error.to_string();
        error.try_into_panic().map_or(Self(text), |payload| Self::of(&*payload))
    }
}

fn build_runtime(name: &str, count: usize, on_start: fn()) -> std::io::Result<Runtime> {
    Builder::new_multi_thread().worker_threads(count).thread_name(name).on_thread_start(on_start).enable_all().build()
}

/// Puts the current thread into `SCHED_IDLE`: the kernel runs it only on an idle core, and preempts it at once when another
/// thread needs the core. With niceness alone, other threads would wait for milliseconds. This needs no privilege. If it fails,
/// the thread competes with all others.
#[expect(unsafe_code, reason = "std has no way to change a thread's scheduling")]
fn use_idle_scheduling() {
    let no_priority = libc::sched_param { sched_priority: 0 };
    // SAFETY: the structure outlives the call; 0 is the calling thread.
    if unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const no_priority) } != 0 {
        tracing::warn!(
            "slow plugin threads could not use idle scheduling, so they compete with all other threads: {}",
            std::io::Error::last_os_error()
        );
    }
}

/// Raises the niceness of the current thread. On Linux each thread has its own niceness, and raising it needs no privilege.
#[expect(unsafe_code, reason = "std has no way to change a thread's priority")]
fn lower_priority() {
    // SAFETY: setpriority takes no pointers; 0 is the calling thread.
    if unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, LATE_NICENESS) } != 0 {
        tracing::warn!("the priority of the late plugin thread could not be lowered: {}", std::io::Error::last_os_error());
    }
}

/// Polls a call until it has finished or must move to other threads.
struct RunUntil<F, L> {
    call: Option<Pin<Box<F>>>,
    should_move: L,
}

impl<F, L> RunUntil<F, L> {
    fn new(call: Pin<Box<F>>, should_move: L) -> Self {
        Self { call: Some(call), should_move }
    }
}

enum CallProgress<F: Future> {
    Finished(Result<F::Output, Panicked>),
    MustMove(Pin<Box<F>>),
}

impl<F: Future, L: Fn() -> bool + Unpin> Future for RunUntil<F, L> {
    type Output = CallProgress<F>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(mut call) = self.call.take() else { return Poll::Pending };
        // After a panic the call is dropped without being polled again, so its state does not matter.
        match catch_unwind(AssertUnwindSafe(|| call.as_mut().poll(context))) {
            Err(payload) => Poll::Ready(CallProgress::Finished(Err(Panicked::of(&*payload)))),
            Ok(Poll::Ready(answer)) => Poll::Ready(CallProgress::Finished(Ok(answer))),
            Ok(Poll::Pending) if (self.should_move)() => Poll::Ready(CallProgress::MustMove(call)),
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
    async fn sequential_calls_stay_on_one_thread() {
        let threads = Arc::new(GuestThreads::start().unwrap());
        let inner = Arc::clone(&threads);
        let calls = async move {
            for _ in 0..100 {
                let called_on = inner.run(Lane::Quick, Ticks::default(), async { thread::current().id() }).await.unwrap();
                assert_eq!(called_on, thread::current().id());
            }
            name()
        };
        assert_eq!(threads.run_on_quick(calls).await, "guest");
        assert_eq!(
            threads.run(Lane::Quick, Ticks::default(), async { name() }).await.unwrap(),
            "guest",
            "the test thread is not used"
        );
    }

    #[tokio::test]
    async fn a_slow_call_moves_to_a_slow_thread() {
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
        assert_eq!(threads.run(Lane::Quick, ticks, call).await.unwrap(), "guest-slow");
        let (ticks, call) = slow();
        let calls = async move { (inner.run(Lane::Quick, ticks, call).await.unwrap(), name()) };
        assert_eq!(threads.run_on_quick(calls).await, ("guest-slow".to_owned(), "guest".to_owned()));
    }

    #[tokio::test]
    async fn a_slow_plugin_starts_on_slow_threads_until_its_calls_are_fast() {
        let (none, one, slow) = (Ticks::default(), Arc::new(AtomicU32::new(1)), Arc::new(AtomicU32::new(QUICK_TICKS)));
        let score = SlownessScore::default();
        score.record_call(&one, true);
        assert_eq!(score.lane(), Lane::Quick, "a short call may coincide with a tick by chance");
        score.record_call(&slow, true);
        assert_eq!(score.lane(), Lane::Slow);
        for _ in 0..SlownessScore::MAX {
            score.record_call(&none, true);
        }
        assert_eq!(score.lane(), Lane::Quick);
        score.record_call(&none, false);
        assert_eq!(score.lane(), Lane::Slow, "the call failed");

        let threads = GuestThreads::start().unwrap();
        assert_eq!(threads.run(score.lane(), none, async { name() }).await.unwrap(), "guest-slow");
    }

    /// The name, niceness and scheduling policy of the current thread.
    fn scheduled() -> (String, i32, libc::c_int) {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        // The third field follows the name, which may contain any character.
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
        (name(), fields[16].parse().unwrap(), fields[38].parse().unwrap())
    }

    #[tokio::test]
    async fn slow_calls_use_idle_time_and_get_a_share_when_they_are_late() {
        let threads = GuestThreads::start().unwrap();
        let quick = threads.run(Lane::Quick, Ticks::default(), async { scheduled() }).await.unwrap();
        assert_eq!(quick, ("guest".to_owned(), 0, libc::SCHED_OTHER));
        let goes_on = async {
            let began = scheduled();
            tokio::time::sleep(LATE_AFTER).await;
            tokio::task::yield_now().await;
            (began, scheduled())
        };
        let (slow, late) = threads.run(Lane::Slow, Ticks::default(), goes_on).await.unwrap();
        assert_eq!((&*slow.0, slow.2), ("guest-slow", libc::SCHED_IDLE));
        assert_eq!(late, ("guest-late".to_owned(), LATE_NICENESS, libc::SCHED_OTHER));
    }

    #[tokio::test]
    async fn a_panic_ends_only_its_own_call() {
        let threads = Arc::new(GuestThreads::start().unwrap());
        let inner = Arc::clone(&threads);
        let calls = async move {
            let first = inner.run(Lane::Quick, Ticks::default(), async { assert!(name().is_empty(), "failed") }).await;
            let second = inner.run(Lane::Quick, Ticks::default(), async { 2 }).await;
            (first.unwrap_err().to_string(), second.unwrap())
        };
        assert_eq!(threads.run_on_quick(calls).await, ("failed".to_owned(), 2));
        let alone = threads.run(Lane::Quick, Ticks::default(), async { assert!(name().is_empty(), "failed") }).await;
        assert_eq!(alone.unwrap_err().to_string(), "failed");
    }
}
