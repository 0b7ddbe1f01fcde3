//! The words workers share during a run, and the barrier between steps.

use core::sync::atomic::{AtomicU32, Ordering::SeqCst};

// Word offsets in the control block; src/backends/wasm/control.ts holds the same numbers.
const ARRIVED: usize = 0;
const GENERATION: usize = 16;
const TILE: usize = 32;
const WAITERS: usize = 48;
const STOP: usize = 64;
const ABORT: usize = 65;
const DEAD: usize = 66;
const ERROR: usize = 67;
const ERROR_STEP: usize = 68;
const ERROR_VALUE: usize = 69;
const LOADED: usize = 70;
const CONSUMED: usize = 71;
const SPIN: usize = 72;

/// Why a run ended early (word ERROR).
pub const ERROR_GATHER_RANGE: u32 = 1;
pub const ERROR_OPCODE: u32 = 2;

/// What a worker knows while it walks a tape.
pub struct Context {
    control: *mut u32,
    pub thread: usize,
    pub threads: usize,
    pub scratch: *mut u8,
}

impl Context {
    pub unsafe fn new(control: *mut u32, thread: usize, threads: usize, scratch: *mut u8) -> Self {
        Context { control, thread, threads, scratch }
    }

    #[inline(always)]
    fn word(&self, index: usize) -> &AtomicU32 {
        unsafe { &*(self.control.add(index) as *const AtomicU32) }
    }

    /// The next tile below `total` of this step; None when all are taken or the run is to end.
    #[inline(always)]
    pub fn next_tile(&self, total: usize) -> Option<usize> {
        if self.must_stop() {
            return None; // the barrier sees the same words and stops everyone
        }
        let tile = self.word(TILE).fetch_add(1, SeqCst) as usize;
        if tile < total {
            Some(tile)
        } else {
            None
        }
    }

    /// Ends the run with an error; the first one stays.
    pub fn fail(&self, error: u32, step: u32, value: u32) {
        if self.word(ERROR).compare_exchange(0, error, SeqCst, SeqCst).is_ok() {
            self.word(ERROR_STEP).store(step, SeqCst);
            self.word(ERROR_VALUE).store(value, SeqCst);
        }
    }

    fn must_stop(&self) -> bool {
        self.word(ABORT).load(SeqCst) | self.word(DEAD).load(SeqCst) | self.word(ERROR).load(SeqCst)
            != 0
    }

    /// Waits until every worker has finished the step; true when the run goes on.
    pub fn barrier(&self) -> bool {
        if self.threads == 1 {
            self.word(TILE).store(0, SeqCst);
            return !self.must_stop();
        }
        let generation = self.word(GENERATION).load(SeqCst);
        // A worker that died before this load will not change the generation again.
        if self.word(DEAD).load(SeqCst) != 0 {
            return false;
        }
        if self.word(ARRIVED).fetch_add(1, SeqCst) + 1 == self.threads as u32 {
            self.open_barrier();
        } else {
            self.wait_change(GENERATION, generation);
        }
        self.word(STOP).load(SeqCst) == 0 && self.word(DEAD).load(SeqCst) == 0
    }

    fn open_barrier(&self) {
        self.word(ARRIVED).store(0, SeqCst);
        self.word(TILE).store(0, SeqCst);
        // One worker decides for all, so that all stop at the same step.
        self.word(STOP).store(u32::from(self.must_stop()), SeqCst);
        self.word(GENERATION).fetch_add(1, SeqCst);
        if self.word(WAITERS).load(SeqCst) != 0 {
            self.wake(GENERATION);
        }
    }

    fn wake(&self, index: usize) {
        unsafe { core::arch::wasm32::memory_atomic_notify(self.control.add(index) as *mut i32, u32::MAX) };
    }

    /// Spins a while, then sleeps, until the word differs from `old` (a dying worker changes it too).
    fn wait_change(&self, index: usize, old: u32) {
        for _ in 0..self.word(SPIN).load(SeqCst) {
            if self.word(index).load(SeqCst) != old {
                return;
            }
        }
        self.word(WAITERS).fetch_add(1, SeqCst);
        while self.word(index).load(SeqCst) == old {
            let address = unsafe { self.control.add(index) as *mut i32 };
            unsafe { core::arch::wasm32::memory_atomic_wait32(address, old as i32, -1) };
        }
        self.word(WAITERS).fetch_sub(1, SeqCst);
    }

    /// Waits until the loader has brought `segment`; false when the run was ended meanwhile.
    pub fn wait_segment(&self, segment: u32) -> bool {
        loop {
            let loaded = self.word(LOADED).load(SeqCst);
            if loaded > segment {
                return true;
            }
            if self.must_stop() {
                return false;
            }
            let address = unsafe { self.control.add(LOADED) as *mut i32 };
            // Woken by the loader; the timeout only covers an abort, which wakes nobody here.
            unsafe { core::arch::wasm32::memory_atomic_wait32(address, loaded as i32, 5_000_000) };
        }
    }

    /// Tells the loader that `segment` is done and its slot free.
    pub fn release_segment(&self, segment: u32) {
        self.word(CONSUMED).store(segment + 1, SeqCst);
        self.wake(CONSUMED);
    }
}
