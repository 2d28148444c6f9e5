//! Sizes and times as people write them.

use std::time::Duration;

/// `12 MiB`, `1.5 GiB`, `700 B`.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut unit = 0;
    let mut value = bytes as f64;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = if unit == 0 || value.fract() == 0.0 || value >= 100.0 {
        0
    } else {
        1
    };
    format!("{value:.digits$} {}", UNITS[unit])
}

/// `1 event`, `2 events`.
pub(crate) fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// `1.234 s`, `15.0 ms`, `2 min 3 s`, `3 h 5 min`.
pub(crate) fn span(nanos: u64) -> String {
    let seconds = nanos / 1_000_000_000;
    match seconds {
        0 if nanos < 1_000_000 => format!("{:.1} us", nanos as f64 / 1e3),
        0 => format!("{:.1} ms", nanos as f64 / 1e6),
        1..60 => format!("{:.3} s", nanos as f64 / 1e9),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86400 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86400, seconds % 86400 / 3600),
    }
}

/// A time of the trace clock as the kernel's text has it: `1.234567`, or the bare number of a clock
/// that does not count nanoseconds.
pub(crate) fn trace_time(time: u64, in_ns: bool) -> String {
    if !in_ns {
        return time.to_string();
    }
    let micros = time.wrapping_add(500) / 1000;
    format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000)
}

/// A time in nanoseconds, the longest there is at most.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A time given as `5s`, `1.5s`, `200ms`, `50us`, `2m` or `1h`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    const UNITS: [(&str, f64); 6] = [
        ("ns", 1e-9),
        ("us", 1e-6),
        ("ms", 1e-3),
        ("s", 1.0),
        ("m", 60.0),
        ("h", 3600.0),
    ];
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: f64 = number
        .parse()
        .map_err(|_| "expected a number and a unit, as in 5s")?;
    let scale = UNITS.iter().find(|(name, _)| *name == unit.trim());
    let (_, scale) = scale.ok_or_else(|| match unit {
        "" => format!("expected a unit behind {number}: ns, us, ms, s, m or h"),
        unit => format!("unknown unit {unit:?}: ns, us, ms, s, m or h are known"),
    })?;
    Duration::try_from_secs_f64(number * scale).map_err(|error| error.to_string())
}

/// As [`parse_duration`], of a time between two looks: what is shorter keeps a processor busy, what is
/// longer is no recording.
pub(crate) fn parse_interval(text: &str) -> Result<Duration, String> {
    let interval = parse_duration(text)?;
    match interval >= Duration::from_millis(1) && interval <= Duration::from_secs(60) {
        true => Ok(interval),
        false => Err("expected 1ms to 60s".into()),
    }
}

/// A point of time in the system's time zone, to the second.
pub(crate) fn wall_clock(realtime_ns: u64) -> String {
    in_system_zone(realtime_ns, "%Y-%m-%d %H:%M:%S")
}

/// A point of time in the system's time zone, to the microsecond.
pub(crate) fn wall_clock_us(realtime_ns: u64) -> String {
    in_system_zone(realtime_ns, "%Y-%m-%d %H:%M:%S.%6f")
}

fn in_system_zone(realtime_ns: u64, format: &str) -> String {
    match jiff::Timestamp::from_nanosecond(i128::from(realtime_ns)) {
        Ok(time) => time
            .to_zoned(jiff::tz::TimeZone::system())
            .strftime(format)
            .to_string(),
        Err(_) => format!("{realtime_ns} ns"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_spans_read_well() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(12 << 20), "12 MiB");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(span(15_000_000), "15.0 ms");
        assert_eq!(span(123_000_000_000), "2 min 3 s");
    }

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(parse_duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_duration("20ms"), Ok(Duration::from_millis(20)));
        assert!(parse_duration("5").unwrap_err().contains("unit"));
        assert!(
            parse_duration("5 parsecs")
                .unwrap_err()
                .contains("unknown unit")
        );
        assert!(parse_duration("s").is_err());
    }
}
