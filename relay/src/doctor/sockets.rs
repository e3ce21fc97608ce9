//! The kernel's bounds for sockets.

use super::finding::Finding;
use super::kernel_files::KernelFiles;
use crate::listener::BACKLOG;

/// Whether a burst of connections may wait to be accepted.
pub(crate) fn backlog(files: &KernelFiles) -> Finding {
    const CHECK: &str = "backlog";
    let wanted = u64::from(BACKLOG.unsigned_abs());
    let Some(cap) = files.number("proc/sys/net/core/somaxconn") else {
        return Finding::ok(CHECK, "net.core.somaxconn cannot be read here");
    };
    if cap < wanted {
        return Finding::warn(
            CHECK,
            format!("net.core.somaxconn is {cap}: of a larger burst the kernel drops connections"),
            format!("sysctl -w net.core.somaxconn={wanted}; docker run --sysctl takes the same"),
        );
    }
    let half_open = files.number("proc/sys/net/ipv4/tcp_max_syn_backlog");
    let cookies = files.number("proc/sys/net/ipv4/tcp_syncookies");
    match (half_open, cookies) {
        (Some(half_open), Some(0)) if half_open < wanted => Finding::warn(
            CHECK,
            format!(
                "net.ipv4.tcp_max_syn_backlog is {half_open} and SYN cookies are off: of a larger \
                 burst the kernel drops connections"
            ),
            "sysctl -w net.ipv4.tcp_syncookies=1",
        ),
        _ => Finding::ok(CHECK, format!("{wanted} connections may wait (net.core.somaxconn)")),
    }
}

/// Whether there are local ports enough for calls to the platform.
pub(crate) fn local_ports(files: &KernelFiles) -> Finding {
    const CHECK: &str = "local ports";
    let range = files.text("proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut bounds = range.split_whitespace().map(|bound| bound.parse::<u32>());
    let (Some(Ok(first)), Some(Ok(last))) = (bounds.next(), bounds.next()) else {
        return Finding::ok(CHECK, "net.ipv4.ip_local_port_range cannot be read here");
    };
    let count = last.saturating_sub(first) + 1;
    if count < LOCAL_PORTS_MIN {
        return Finding::warn(
            CHECK,
            format!("{count} ({first} to {last}) for calls to the platform"),
            "sysctl -w net.ipv4.ip_local_port_range=\"32768 60999\"",
        );
    }
    Finding::ok(CHECK, format!("{count} for calls to the platform; clients need none"))
}

/// Whether large sends are paced. That is right for peers far away, so it is told, not warned of.
/// Source: BENCHMARKS.md, "What does a quiet message wait for?"
pub(crate) fn congestion_control(files: &KernelFiles) -> Finding {
    const CHECK: &str = "congestion control";
    let chosen = files.text("proc/sys/net/ipv4/tcp_congestion_control").unwrap_or_default();
    match chosen.trim() {
        "" => Finding::ok(CHECK, "net.ipv4.tcp_congestion_control cannot be read here"),
        "bbr" => Finding::ok(
            CHECK,
            "bbr, which paces large sends by timers on the shards' cores: where all peers are \
             near, net.ipv4.tcp_congestion_control=cubic takes less",
        ),
        other => Finding::ok(CHECK, other.to_owned()),
    }
}

/// The caps on calls in flight, several times over: a closed connection keeps its port a minute.
const LOCAL_PORTS_MIN: u32 = 8192;

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::super::kernel_files::made_of;
    use super::*;

    fn of(check: fn(&KernelFiles) -> Finding, files: &[(&str, &str)]) -> Finding {
        let (_dir, files) = made_of(files);
        check(&files)
    }

    #[test]
    fn a_small_backlog_is_answered_with_the_size_wanted() {
        let finding = of(backlog, &[("proc/sys/net/core/somaxconn", "128\n")]);
        assert_eq!(finding.verdict, Verdict::Warn);
        assert!(finding.remedy.expect("a remedy").contains("net.core.somaxconn=4096"));
        let large = [("proc/sys/net/core/somaxconn", "4096\n")];
        assert_eq!(of(backlog, &large).verdict, Verdict::Ok);
        assert_eq!(of(backlog, &[]).verdict, Verdict::Ok);
    }

    #[test]
    fn half_open_connections_count_only_without_cookies() {
        let files = |cookies| {
            [
                ("proc/sys/net/core/somaxconn", "4096"),
                ("proc/sys/net/ipv4/tcp_max_syn_backlog", "256"),
                ("proc/sys/net/ipv4/tcp_syncookies", cookies),
            ]
        };
        assert_eq!(of(backlog, &files("1")).verdict, Verdict::Ok);
        assert_eq!(of(backlog, &files("0")).verdict, Verdict::Warn);
    }

    #[test]
    fn pacing_is_told() {
        let of = |chosen| {
            let files = [("proc/sys/net/ipv4/tcp_congestion_control", chosen)];
            let finding = of(congestion_control, &files);
            assert_eq!(finding.verdict, Verdict::Ok);
            finding.found
        };
        assert_eq!(of("cubic\n"), "cubic");
        assert!(of("bbr\n").contains("timers"));
    }

    #[test]
    fn a_narrow_range_of_ports_is_worth_a_look() {
        let range = |text| [("proc/sys/net/ipv4/ip_local_port_range", text)];
        assert_eq!(of(local_ports, &range("32768\t60999\n")).verdict, Verdict::Ok);
        assert_eq!(of(local_ports, &range("40000\t40099\n")).verdict, Verdict::Warn);
    }
}
