//! Memory that is there before the first row.
//!
//! *In*: how many items a buffer will ever hold, from public terms. *Out*: the buffer, whose pages the kernel has given
//! already. *Refuses*: what the machine has not. So neither an allocation nor a page that is touched for the first time
//! follows from how many rows there are or what they say; and where memory does not suffice, that shows before any data.

/// The machine has not the memory that was reckoned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the machine has not the memory that this round was reckoned to take")]
pub struct NoRoom;

/// So many items, all the same.
pub(crate) fn laid<T: Copy>(length: usize, value: T) -> Result<Vec<T>, NoRoom> {
    let mut all = Vec::new();
    all.try_reserve_exact(length).map_err(|_| NoRoom)?;
    all.resize(length, value);
    // A compiler may make memory that the kernel promises to be zero of the line before: then no page of it is there yet.
    std::hint::black_box(all.as_mut_slice()).fill(value);
    Ok(all)
}

/// Nothing, and room for so many items, which are laid as this one.
pub(crate) fn room<T: Copy>(length: usize, value: T) -> Result<Vec<T>, NoRoom> {
    let mut all = laid(length, value)?;
    all.clear();
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// KiB that this process has in memory.
    fn resident() -> usize {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("RssAnon")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// Other tests of this process take and give back memory meanwhile: far less than this.
    #[test]
    fn pages_are_there_before_they_are_used() {
        let before = resident();
        let laid = laid(256 << 20, 0_u8).unwrap();
        assert!(resident() > before + (128 << 10));
        assert!(laid.len() == 256 << 20 && laid.capacity() == laid.len());
        let room = room(1 << 10, 0_u64).unwrap();
        assert!(room.is_empty() && room.capacity() == 1 << 10);
    }

    #[test]
    fn what_no_machine_has_is_refused() {
        assert_eq!(laid(usize::MAX / 2, 0_u8).unwrap_err(), NoRoom);
        assert_eq!(laid(usize::MAX, 0_u64).unwrap_err(), NoRoom);
    }
}
