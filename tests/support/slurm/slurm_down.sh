#!/bin/bash
# Stop what slurm_up.sh started for BASE: cancel all jobs, then end the daemons by their pids.
set -uo pipefail
BASE=$(realpath -m "$1")
export SLURM_CONF=$BASE/etc/slurm.conf PATH=/usr/sbin:/sbin:$PATH
[ -e "$BASE/pids" ] || exit 0

if [ -e "$SLURM_CONF" ] && timeout 5 scontrol ping >/dev/null 2>&1; then
  jobs=$(timeout 5 squeue -h -o %A | sort -u)
  if [ -n "$jobs" ]; then
    timeout 10 scancel $jobs
    timeout 10 scancel --signal=KILL $jobs 2>/dev/null
    for _ in $(seq 100); do [ -n "$(timeout 5 squeue -h -o %A)" ] || break; sleep 0.2; done
  fi
fi
# Steps and tasks outlive slurmd (normally scancel has ended them already): the slurmstepd that log
# below BASE, and whatever runs inside a job (SLURM_JOB_ID) of this cluster (SLURM_CONF).
leftovers() {
  local p
  for p in /proc/[0-9]*; do
    if [ "$(cat "$p/comm" 2>/dev/null)" = slurmstepd ]; then
      ls -l "$p/fd" 2>/dev/null | grep -qF " $BASE/" || continue
    else
      tr '\0' '\n' 2>/dev/null <"$p/environ" | awk -v c="SLURM_CONF=$SLURM_CONF" \
        '$0 == c {a = 1} /^SLURM_JOB_ID=/ {b = 1} END {exit !(a && b)}' || continue
    fi
    echo "${p#/proc/}"
  done 2>/dev/null
}
alive() {     # a zombie that a lazy pid 1 has not reaped yet counts as ended
  local st; st=$(sed 's/.*) //;s/ .*//' "/proc/$1/stat" 2>/dev/null) && [ -n "$st" ] && [ "$st" != Z ]
}
stop() {      # stop PID...: TERM, wait up to 5 s, KILL
  local p n=50
  kill -TERM "$@" 2>/dev/null
  for p in "$@"; do
    while alive "$p" && (( n-- > 0 )); do sleep 0.1; done
    if alive "$p"; then kill -KILL "$p" 2>/dev/null; fi
  done
}
for name in slurmd slurmctld munged; do
  pids=$(awk -v n="$name" '$2 ~ "^"n"([.]|$)" {print $1}' "$BASE/pids")
  [ -z "$pids" ] || stop $pids
  if [ $name = slurmd ]; then left=$(leftovers); [ -z "$left" ] || stop $left; fi
done
rm -f "$BASE/pids"
