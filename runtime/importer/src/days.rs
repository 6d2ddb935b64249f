//! Calendar days, as days since 1970-01-01.
//!
//! *In*: a text and a format in strftime's letters. *Out*: the day. *Refuses*: texts that do not match it whole.

use time::format_description::OwnedFormatItem;
use time::{Date, Month};

/// A format such as `%d.%m.%Y`, understood once.
pub(crate) fn format(text: &str) -> Result<OwnedFormatItem, String> {
    time::format_description::parse_strftime_owned(text).map_err(|error| error.to_string())
}

/// The day that `text` names.
pub(crate) fn parse(text: &str, format: &OwnedFormatItem) -> Option<i32> {
    let date = Date::parse(text, format).ok()?;
    let epoch = Date::from_calendar_date(1970, Month::January, 1).ok()?;
    i32::try_from((date - epoch).whole_days()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_of_three_countries() {
        for (text, pattern) in [("2014-04-07", "%Y-%m-%d"), ("04/07/2014", "%m/%d/%Y"), ("07.04.2014", "%d.%m.%Y")] {
            assert_eq!(parse(text, &format(pattern).unwrap()), Some(16_167), "{text}");
        }
        assert_eq!(parse("31.02.2014", &format("%d.%m.%Y").unwrap()), None);
        assert_eq!(parse("2014-04-07x", &format("%Y-%m-%d").unwrap()), None);
        assert!(format("%Q").is_err());
    }
}
