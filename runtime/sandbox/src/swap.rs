//! Whether the kernel may write memory of this process out to a disk.
//!
//! *In*: what the kernel says of the machine's swap, and of this process' control groups. *Out*:
//! [`Swap`]. *Trusts*: that neither changes while the process lives. It must be asked before a process
//! gives up the file system: what cannot be read counts as swap.

use std::path::Path;

/// Whether pages of this process may be written out, and so be missing among those that are present.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Swap {
    /// No swap, or none that this process may use.
    Never,
    /// There is some, or it is not known.
    Possible,
}

/// Where control groups of version 2 are mounted.
const GROUPS: &str = "/sys/fs/cgroup";

impl Swap {
    /// As it is for this process now.
    #[must_use]
    pub fn here() -> Self {
        let read = |path: &Path| std::fs::read_to_string(path).ok();
        Self::of(read(Path::new("/proc/swaps")).as_deref(), || {
            let groups = read(Path::new("/proc/self/cgroup"))?;
            Some(limits(&groups, |group| read(&Path::new(GROUPS).join(group).join("memory.swap.max"))))
        })
    }

    /// `listed`: `/proc/swaps`. `limits`: `memory.swap.max` of this process' control groups.
    fn of(listed: Option<&str>, limits: impl FnOnce() -> Option<Vec<String>>) -> Self {
        let exists = listed.is_none_or(|listed| listed.lines().nth(1).is_some());
        let forbidden = || limits().unwrap_or_default().iter().any(|most| most.trim() == "0");
        if exists && !forbidden() { Self::Possible } else { Self::Never }
    }
}

/// The limits of a process' control group and of those above it, by what `/proc/PID/cgroup` says:
/// `0::/path` is the one of version 2 (cgroups(7)).
fn limits(groups: &str, read: impl Fn(&Path) -> Option<String>) -> Vec<String> {
    let path = groups.lines().find_map(|line| line.strip_prefix("0::/"));
    path.map(|path| Path::new(path).ancestors().filter_map(read).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADING: &str = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n";

    #[test]
    fn swap_is_what_the_kernel_lists_behind_its_heading() {
        let listed = format!("{HEADING}/dev/zram0 partition 4194300 0 100\n");
        for (listed, want) in [(Some(HEADING), Swap::Never), (Some(&*listed), Swap::Possible), (None, Swap::Possible)] {
            assert_eq!(Swap::of(listed, || None), want, "{listed:?}");
        }
    }

    #[test]
    fn a_control_group_that_may_use_none_has_none_and_so_have_those_below_it() {
        let listed = format!("{HEADING}/dev/sda2 partition 4194300 0 -2\n");
        let groups = "4:memory:/other\n0::/system.slice/vestibule-site.service\n";
        for (most, at, want) in [
            ("0\n", "system.slice/vestibule-site.service", Swap::Never),
            ("0\n", "system.slice", Swap::Never),
            ("max\n", "system.slice/vestibule-site.service", Swap::Possible),
            ("10\n", "system.slice", Swap::Possible),
            ("0\n", "other", Swap::Possible),
        ] {
            let read = |group: &Path| (group == Path::new(at)).then(|| most.to_owned());
            assert_eq!(Swap::of(Some(&listed), || Some(limits(groups, read))), want, "{most:?} at {at}");
        }
        assert_eq!(limits("4:memory:/other\n", |_| Some("0".to_owned())), Vec::<String>::new());
    }
}
