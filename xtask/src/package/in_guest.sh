#!/bin/bash
# What a Debian with systemd makes of the package; runs in the guest, as root. Each line that begins with `vmaudit-systemd: `
# is a result for xtask (boot.rs), which wants each check once and none failed.
exec </dev/null >/dev/ttyS0 2>&1
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive SYSTEMD_COLORS=0 SYSTEMD_PAGER=

page() { # of the exporter
  exec 3<>/dev/tcp/127.0.0.1/9747 || return 1
  printf 'GET /metrics HTTP/1.0\r\n\r\n' >&3
  timeout 60 cat <&3
  exec 3>&-
}
figure() { page | tr -d '\r' | awk -v name="$1" 'index($0, name " ") == 1 {print $NF}'; }
pid() { systemctl show -P MainPID vmaudit.service; }
status() { awk -v name="$1:" '$1 == name {print $2}' "/proc/$(pid)/status"; }
check() { # NAME COMMAND...
  local name=$1 said
  shift
  if said=$("$@" 2>&1); then
    echo "vmaudit-systemd: ok $name"
  else
    echo "vmaudit-systemd: failed $name: $(echo "$said" | tail -5 | tr '\n' '|')"
  fi
}
is() { [ "$1" = "$2" ] || { echo "$1 is not $2"; return 1; }; }
at_least() { [ "${1:-0}" -ge "$2" ] || { echo "$1 is less than $2"; return 1; }; }
off() { ! systemctl -q is-active vmaudit.service && ! systemctl -q is-active vmaudit.socket &&
  ! systemctl -q is-enabled vmaudit.service && ! systemctl -q is-enabled vmaudit.socket; }
# A unit whose process makes so many VMAs, or as many as it can, and ends; pages of one kind beside each other would be one VMA.
makes() { # UNIT VMAS [OPTION...]
  local unit=$1 count=$2
  shift 2
  systemd-run -q --wait --collect --unit="$unit" "$@" perl -e \
    'for $n (1..shift) { last if syscall(9, 0, 4096, 1 + 2 * ($n % 2), 0x22, -1, 0) == -1 }' "$count"
}
without() { # CAPABILITY: the unit with all its others
  local left
  left=$(systemctl cat vmaudit.service | sed -n 's/^AmbientCapabilities=//p' | head -1 | sed "s/$1//")
  mkdir -p /run/systemd/system/vmaudit.service.d
  printf '[Service]\nAmbientCapabilities=\nAmbientCapabilities=%s\n' "$left" >/run/systemd/system/vmaudit.service.d/without.conf
  systemctl daemon-reload && systemctl restart vmaudit.service
}
ends_without() { # CAPABILITY
  ! without "$1" && journalctl -q -u vmaudit.service -p err -n 20 -o cat | grep -F "eBPF is not available: $1"
}
source_is() { is "$(figure "vmaudit_source_info{source=\"$1\"}")" 1; }
# From 7.0 on the kernel skips a program now and then; elsewhere nothing may be missing.
exact_or_told() {
  [ "$(figure vmaudit_session_peaks_exact)" = 1 ] && return
  page | grep '^vmaudit_events_lost_total' | grep -v ' 0\r*$'
  [ "$(uname -r | cut -d. -f1)" -ge 7 ] &&
    at_least "$(figure 'vmaudit_events_lost_total{reason="program_skipped"}')" 1
}
whole() {
  rm -rf /run/systemd/system/vmaudit.service.d
  systemctl daemon-reload
  systemctl reset-failed vmaudit.service vmaudit.socket
  systemctl restart vmaudit.service
}

echo "vmaudit-systemd: kernel $(uname -r), $(systemctl --version | head -1)"
check nothing_runs_after_installation off
check it_starts systemctl enable --now vmaudit.service
check it_is_asked_at_the_socket source_is ebpf
check its_figures_are_exact exact_or_told
makes vma-some 3000
check a_peak_that_came_and_went at_least "$(figure 'vmaudit_process_memory_map_areas_peak{group="vma-some.service"}')" 3000
makes vma-many 100000
refused='vmaudit_memory_syscall_failures_total{group="vma-many.service",syscall="mmap",errno="ENOMEM",cause="max_map_count"}'
check a_refused_call at_least "$(figure "$refused")" 1
# CAP_DAC_READ_SEARCH (bit 2) and CAP_SYS_PTRACE (19) are left; CAP_BPF and CAP_PERFMON are given up.
check rights_are_given_up is "$(status CapPrm)" 0000000000080004
check it_is_not_root sh -c "[ $(status Uid) -gt 999 ]"
check it_is_confined is "$(status NoNewPrivs)$(status Seccomp)" 12
check the_journal_has_its_words sh -c 'journalctl -q -u vmaudit.service -o cat | grep -F "serving every process on http://127.0.0.1:9747/metrics"'
before=$(pid)
kill -9 "$before"
for _ in $(seq 300); do [ "$(systemctl is-active vmaudit.service)" = active ] && [ "$(pid)" != "$before" ] && break; sleep 0.2; done
check killed_it_comes_back source_is ebpf
before=$(pid)
check an_upgrade_starts_it_anew sh -c "dpkg --force-confold -i /root/newer.deb && [ $before != \$(systemctl show -P MainPID vmaudit.service) ]"
check and_it_serves source_is ebpf
check and_the_upgrade_is_one sh -c 'dpkg-query -W -f "\${Version}" vmaudit | grep -vF 0.0.1-1'
systemctl -q disable --now vmaudit.service vmaudit.socket
systemctl start vmaudit.socket
check a_question_starts_it source_is ebpf
echo 'VMAUDIT_OPTIONS="--group-by app"' >/etc/default/vmaudit
systemctl restart vmaudit.service
makes vma-other 2000 --uid=nobody
check options_are_taken_and_programs_named at_least "$(figure 'vmaudit_process_memory_map_areas_peak{group="perl"}')" 2000
for capability in CAP_BPF CAP_PERFMON; do
  check "without_${capability}_it_ends_and_says_why" ends_without $capability
done
whole
for capability in CAP_SYS_PTRACE CAP_DAC_READ_SEARCH; do
  without $capability
  makes vma-other 2000 --uid=nobody
  echo "vmaudit-systemd: without $capability: source $(page | grep -o '^vmaudit_source_info{[^}]*}'), groups of perl:" \
    $(page | grep '^vmaudit_process_memory_map_areas_peak{group="[^"]*perl') ", $(journalctl -q -u vmaudit.service -n 3 -o cat | tail -1)"
done
whole
check with_all_again_it_starts source_is ebpf
systemd-analyze security --no-pager vmaudit.service | sed -n 's/^→/security:/p; /^✗/p' | sed 's/^/vmaudit-systemd: /'
exposure=$(systemd-analyze security --no-pager vmaudit.service | grep -o 'level for vmaudit.service: [0-9.]*' | grep -o '[0-9.]*$' | tr -d .)
check its_exposure_is_small sh -c "[ ${exposure:-99} -le 20 ]"
echo "vmaudit-systemd: memory $(systemctl show -P MemoryCurrent vmaudit.service) bytes"
check purged_it_is_gone sh -c 'dpkg --purge vmaudit && ! systemctl -q is-active vmaudit.service && ! systemctl -q is-active vmaudit.socket'
check and_so_is_its_unit sh -c '! systemctl cat vmaudit.service && ! test -e /etc/default/vmaudit'
echo "vmaudit-systemd: end"
systemctl --force --force poweroff
