//! The threads that guests run on, apart from those that serve requests.
//!
//! A call begins on quick threads. There are more of them than cores, so that the kernel lets a short call in between others that
//! are not over yet. A guest that is still running after [`QUICK_TICKS`], or whose latest calls were like that, runs on slow threads, which run when
//! nobody else wants to: what loops there takes next to nothing from decisions, pages and hooks. Where others always want to, a slow call
//! goes on on the late thread after [`LATE`], and has a share of its own.

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

/// At so many ticks a guest must be found running to be a slow one: a short call may meet one by chance.
const QUICK_TICKS: u32 = 2;

/// How long a slow call waits for cores that nobody else wants. What is left of [`crate::Limits::total_time`] is enough for an honest plugin that
/// has much to do, on a machine that is full of builds.
const LATE_AFTER: Duration = Duration::from_secs(2);

/// A tenth of the share of other threads.
const LATE_NICENESS: libc::c_int = 10;

/// Ticks at which the guest of a call was found running.
pub(crate) type Ticks = Arc<AtomicU32>;

/// Where a call begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    Quick,
    Slow,
}

/// What the latest calls of one plugin took beyond what is quick. Without it whoever always takes much would have each call's first ticks
/// on quick threads, again and again.
#[derive(Debug, Default)]
pub(crate) struct SlownessScore(AtomicU32);

impl SlownessScore {
    /// So many calls at which no tick found the guest running make up for one tick.
    const POINTS_PER_TICK: u32 = 20;
    /// A call without an answer owes all that can be owed.
    const MAX: u32 = 100;

    pub(crate) fn lane(&self) -> Lane {
        if self.0.load(Ordering::Relaxed) < QUICK_TICKS * Self::POINTS_PER_TICK { Lane::Quick } else { Lane::Slow }
    }

    /// A call is over.
    pub(crate) fn record_call(&self, ticks: &Ticks, answered: bool) {
        let ticks = ticks.load(Ordering::Relaxed);
        let changed = |owed: u32| match (answered, ticks) {
            (false, _) => Self::MAX,
            (true, 0) => owed.saturating_sub(1),
            (true, ticks) => owed.saturating_add(ticks.saturating_mul(Self::POINTS_PER_TICK)).min(Self::MAX),
        };
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |owed| Some(changed(owed)));
    }
}

/// All kinds of threads. What runs on them ends with them, at the next tick.
#[derive(Debug)]
pub(crate) struct GuestThreads {
    quick: Handle,
    slow: Handle,
    late: Handle,
    _runtimes: [BackgroundRuntime; 3],
}

/// A runtime that may be dropped anywhere: nobody waits for its threads.
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
        // Memory that a guest filled goes back in one piece, which holds its core up for milliseconds: one core is kept out of that.
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

    /// Runs a call to its end, whether or not anybody waits for it. What already runs on quick threads goes on on its own: to wake
    /// another one would take as long as many a call.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        begins: Lane,
        ticks: Ticks,
        call: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Panicked> {
        let (slow, late) = (self.slow.clone(), self.late.clone());
        let call = Box::pin(call);
        let whole = async move {
            let call = match begins {
                Lane::Slow => call,
                Lane::Quick => match RunUntil::new(call, move || ticks.load(Ordering::Relaxed) >= QUICK_TICKS).await {
                    Progress::Finished(ended) => return ended,
                    Progress::MustMove(call) => call,
                },
            };
            let since = Instant::now();
            match slow.spawn(RunUntil::new(call, move || since.elapsed() >= LATE_AFTER)).await? {
                Progress::Finished(ended) => ended,
                Progress::MustMove(call) => Ok(late.spawn(call).await?),
            }
        };
        if Handle::try_current().is_ok_and(|here| here.id() == self.quick.id()) {
            whole.await
        } else {
            self.quick.spawn(whole).await?
        }
    }

    /// Runs what makes one call after the other where those calls begin. A panic of it is the caller's.
    pub(crate) async fn run_on_quick<T: Send + 'static>(&self, calls: impl Future<Output = T> + Send + 'static) -> T {
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

fn build_runtime(name: &str, count: usize, each_begins: fn()) -> std::io::Result<Runtime> {
    Builder::new_multi_thread().worker_threads(count).thread_name(name).on_thread_start(each_begins).enable_all().build()
}

/// The kernel runs such a thread when no other one wants to, and takes the core away at once when one does. A mere niceness keeps others
/// waiting for milliseconds. No privilege is needed. Where it cannot be had, guests compete as equals.
#[expect(unsafe_code, reason = "std has no way to change a thread's scheduling")]
fn use_idle_scheduling() {
    let no_priority = libc::sched_param { sched_priority: 0 };
    // SAFETY: the structure lives until the call is over; 0 is the calling thread.
    if unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const no_priority) } != 0 {
        tracing::warn!("the threads of slow plugins compete with all others: {}", std::io::Error::last_os_error());
    }
}

/// Linux has a niceness for each thread; to raise it needs no privilege.
#[expect(unsafe_code, reason = "std has no way to change a thread's priority")]
fn lower_priority() {
    // SAFETY: setpriority takes no pointers; 0 is the calling thread.
    if unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, LATE_NICENESS) } != 0 {
        tracing::warn!("the thread of late plugins keeps its priority: {}", std::io::Error::last_os_error());
    }
}

/// A call until it is over, or has to go elsewhere.
struct RunUntil<F, L> {
    call: Option<Pin<Box<F>>>,
    should_move: L,
}

impl<F, L> RunUntil<F, L> {
    fn new(call: Pin<Box<F>>, should_move: L) -> Self {
        Self { call: Some(call), should_move }
    }
}

enum Progress<F: Future> {
    Finished(Result<F::Output, Panicked>),
    MustMove(Pin<Box<F>>),
}

impl<F: Future, L: Fn() -> bool + Unpin> Future for RunUntil<F, L> {
    type Output = Progress<F>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(mut call) = self.call.take() else { return Poll::Pending };
        // The call is not polled again after a panic, nor looked at.
        match catch_unwind(AssertUnwindSafe(|| call.as_mut().poll(context))) {
            Err(payload) => Poll::Ready(Progress::Finished(Err(Panicked::of(&*payload)))),
            Ok(Poll::Ready(answer)) => Poll::Ready(Progress::Finished(Ok(answer))),
            Ok(Poll::Pending) if (self.should_move)() => Poll::Ready(Progress::MustMove(call)),
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
                let called_on = inner.run(Lane::Quick, Ticks::default(), async { thread::current().id() }).await.unwrap();
                assert_eq!(called_on, thread::current().id());
            }
            name()
        };
        assert_eq!(threads.run_on_quick(calls).await, "guest");
        assert_eq!(
            threads.run(Lane::Quick, Ticks::default(), async { name() }).await.unwrap(),
            "guest",
            "and none is made on our own"
        );
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
        assert_eq!(threads.run(Lane::Quick, ticks, call).await.unwrap(), "guest-slow");
        let (ticks, call) = slow();
        let calls = async move { (inner.run(Lane::Quick, ticks, call).await.unwrap(), name()) };
        assert_eq!(threads.run_on_quick(calls).await, ("guest-slow".to_owned(), "guest".to_owned()));
    }

    #[tokio::test]
    async fn whose_calls_take_much_begins_on_slow_threads_until_they_do_not() {
        let (none, one, slow) = (Ticks::default(), Arc::new(AtomicU32::new(1)), Arc::new(AtomicU32::new(QUICK_TICKS)));
        let debt = SlownessScore::default();
        debt.record_call(&one, true);
        assert_eq!(debt.lane(), Lane::Quick, "a short call may meet a tick by chance");
        debt.record_call(&slow, true);
        assert_eq!(debt.lane(), Lane::Slow);
        for _ in 0..SlownessScore::MAX {
            debt.record_call(&none, true);
        }
        assert_eq!(debt.lane(), Lane::Quick);
        debt.record_call(&none, false);
        assert_eq!(debt.lane(), Lane::Slow, "it did not answer");

        let threads = GuestThreads::start().unwrap();
        assert_eq!(threads.run(debt.lane(), none, async { name() }).await.unwrap(), "guest-slow");
    }

    /// The thread's name, its niceness and how the kernel schedules it.
    fn scheduled() -> (String, i32, libc::c_int) {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        // Its third field follows the name, which may hold anything.
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
        (name(), fields[16].parse().unwrap(), fields[38].parse().unwrap())
    }

    #[tokio::test]
    async fn slow_calls_come_after_all_and_have_a_share_when_they_are_late() {
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
    async fn a_panic_ends_its_call_and_nothing_else() {
        let threads = Arc::new(GuestThreads::start().unwrap());
        let inner = Arc::clone(&threads);
        let calls = async move {
            let first = inner.run(Lane::Quick, Ticks::default(), async { assert!(name().is_empty(), "stumbled") }).await;
            let second = inner.run(Lane::Quick, Ticks::default(), async { 2 }).await;
            (first.unwrap_err().to_string(), second.unwrap())
        };
        assert_eq!(threads.run_on_quick(calls).await, ("stumbled".to_owned(), 2));
        let alone = threads.run(Lane::Quick, Ticks::default(), async { assert!(name().is_empty(), "stumbled") }).await;
        assert_eq!(alone.unwrap_err().to_string(), "stumbled");
    }
}
