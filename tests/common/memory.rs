//! What a process holds of this machine's memory, as the kernel tells it (proc(5)).

use std::fs;

/// The memory of one process.
#[derive(Clone, Copy)]
pub struct Memory(u32);

impl Memory {
    /// Of the process with this id.
    pub fn of(process: u32) -> Self {
        Self(process)
    }

    /// Resident now, in KiB.
    pub fn resident_kib(self) -> i64 {
        self.read("VmRSS:")
    }

    /// The most that was resident since [`Memory::forget_peak`], in KiB.
    pub fn peak_kib(self) -> i64 {
        self.read("VmHWM:")
    }

    /// From now on the peak is counted anew.
    pub fn forget_peak(self) {
        fs::write(format!("/proc/{}/clear_refs", self.0), "5").expect("the kernel forgets the peak (Linux 4.0)");
    }

    fn read(self, name: &str) -> i64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0)).expect("the process runs");
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok());
        kib.unwrap_or_else(|| panic!("{name} in {status}"))
    }
}
