//! The date of an answer.

use std::fmt;

/// A date as HTTP writes it: `Sun, 06 Nov 1994 08:49:37 GMT`.
///
/// Cheap to make once a second and copy into every answer. Source: RFC 9110 §5.6.7.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct HttpDate([u8; 29]);

impl HttpDate {
    /// The date so many seconds after 1970 began. Years beyond 9999 stay at the end of 9999.
    pub fn from_unix_secs(secs: u64) -> Self {
        let secs = secs.min(SECS_MAX);
        let (days, second_of_day) = (secs / 86_400, secs % 86_400);
        let (year, month, day) = civil(days);
        let mut bytes = *b"Thu, 01 Jan 1970 00:00:00 GMT";
        let weekday = (days % 7) as usize;
        bytes[..3].copy_from_slice(WEEKDAYS[weekday]);
        two_digits(&mut bytes[5..7], day);
        bytes[8..11].copy_from_slice(MONTHS[month as usize - 1]);
        two_digits(&mut bytes[12..14], year / 100);
        two_digits(&mut bytes[14..16], year % 100);
        two_digits(&mut bytes[17..19], second_of_day / 3600);
        two_digits(&mut bytes[20..22], second_of_day / 60 % 60);
        two_digits(&mut bytes[23..25], second_of_day % 60);
        Self(bytes)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("only ASCII is ever written")
    }
}

impl fmt::Debug for HttpDate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Year, month and day of a number of days since 1970 began, in the Gregorian calendar.
///
/// Years are counted from March, so that the leap day is a year's last; 400 of them have 146,097
/// days.
fn civil(days: u64) -> (u64, u64, u64) {
    let since_march_0 = days + 719_468;
    let (era, day_of_era) = (since_march_0 / 146_097, since_march_0 % 146_097);
    let leap_corrected =
        day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096;
    let year_of_era = leap_corrected / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

fn two_digits(place: &mut [u8], value: u64) {
    place.copy_from_slice(&[b'0' + (value / 10 % 10) as u8, b'0' + (value % 10) as u8]);
}

/// The last second of the year 9999.
const SECS_MAX: u64 = 253_402_300_799;

/// From the first of January 1970 on.
const WEEKDAYS: [&[u8; 3]; 7] = [b"Thu", b"Fri", b"Sat", b"Sun", b"Mon", b"Tue", b"Wed"];

const MONTHS: [&[u8; 3]; 12] = [
    b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_moments_are_written_right() {
        for (secs, expected) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (951_868_799, "Tue, 29 Feb 2000 23:59:59 GMT"),
            (951_868_800, "Wed, 01 Mar 2000 00:00:00 GMT"),
            (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"),
            (1_767_225_599, "Wed, 31 Dec 2025 23:59:59 GMT"),
            (SECS_MAX, "Fri, 31 Dec 9999 23:59:59 GMT"),
            (u64::MAX, "Fri, 31 Dec 9999 23:59:59 GMT"),
        ] {
            assert_eq!(HttpDate::from_unix_secs(secs).as_str(), expected);
        }
    }

    #[test]
    fn every_day_of_four_centuries_follows_the_one_before() {
        let (mut year, mut month, mut day) = (1970, 1, 1);
        for days in 0..146_097 {
            assert_eq!(civil(days), (year, month, day));
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let length = match month {
                2 if leap => 29,
                2 => 28,
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            day += 1;
            if day > length {
                (day, month) = (1, month + 1);
            }
            if month > 12 {
                (month, year) = (1, year + 1);
            }
        }
    }
}
