//! What this process has used, by the kernel's account (getrusage(2), clock_gettime(2)).

use std::time::Duration;

/// Page faults of this process so far that needed no disk: any page that it touched for the first
/// time, of whatever kind.
pub(crate) fn faults() -> i64 {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the kernel writes one `rusage`, of which all zeros is one too.
    #[expect(unsafe_code, reason = "argued above")]
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr());
        usage.assume_init()
    };
    usage.ru_minflt
}

/// How long this thread has been on a processor so far. What else the machine does is not in it, but
/// for what others take of its caches and of the way to its memory.
pub(crate) fn own_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one `timespec`.
    #[expect(unsafe_code, reason = "argued above")]
    unsafe {
        libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time);
    }
    let (seconds, nanos) = (u64::try_from(time.tv_sec), u64::try_from(time.tv_nsec));
    Duration::from_secs(seconds.unwrap_or(0)).saturating_add(Duration::from_nanos(nanos.unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_that_is_touched_first_is_a_fault() {
        const PAGE_BYTES: usize = 4_096;
        // Too much for what an allocator may have kept of other tests: it asks the kernel.
        let before = faults();
        let mut bytes = vec![0_u8; 32_768 * PAGE_BYTES];
        std::hint::black_box(&mut bytes).iter_mut().step_by(PAGE_BYTES).for_each(|byte| *byte = 1);
        assert!(faults() > before);
    }

    #[test]
    fn work_is_own_time_and_waiting_is_not() {
        let before = own_time();
        let began = std::time::Instant::now();
        while own_time() < before + Duration::from_millis(5) {
            std::hint::spin_loop();
        }
        assert!(began.elapsed() >= Duration::from_millis(4));
        let before = own_time();
        std::thread::park_timeout(Duration::from_millis(50));
        assert!(own_time() < before + Duration::from_millis(40));
    }
}
