#!/bin/bash
# Start a throw-away Slurm cluster on this machine's loopback, as the current user and without
# systemd: munged, slurmctld and a slurmd for each virtual node. Everything lives below BASE.
#
#   slurm_up.sh BASE PORT; . BASE/env.sh; ...; slurm_down.sh BASE
#
# It listens on PORT, and on the 2 ports above it. Debian's packages: slurm-wlm munge. Partitions:
# ci, and urgent, whose jobs take the nodes from ci's, which are queued again.
set -euo pipefail
BASE=$(realpath -m "$1") PORT=$2
HERE=$(dirname "$(realpath "$0")")
NODES=2 CPUS=4 GPUS=2     # CPUs and GPUs of each node; the GPUs aren't real
ME=$(id -un) HOST=$(hostname -s)
export PATH=/usr/sbin:/sbin:$PATH

die() { echo "slurm_up: $*" >&2; bash "$HERE/slurm_down.sh" "$BASE" >&2 || true; exit 1; }
# daemon NAME COMMAND...: start in its own session, detached from our stdio, remember its pid
daemon() {
  local name=$1; shift
  setsid "$@" </dev/null >>"$BASE/log/$name.out" 2>&1 &
  echo "$! $name" >>"$BASE/pids"
}
# until_ok SECONDS COMMAND...: poll every 0.1 s, while the last daemon lives
until_ok() {
  local n=$(( $1 * 10 )); shift
  while ! "$@" >/dev/null 2>&1; do
    (( n-- > 0 )) && kill -0 $! 2>/dev/null || return 1
    sleep 0.1
  done
}

mkdir -p "$BASE"/{etc,run,log,state,spool,dev,bin}
for i in $(seq "$NODES"); do mkdir -p "$BASE/spool/n$i"; done
chmod go-w "$BASE" "$BASE"/{etc,run,log}
: >"$BASE/pids"

# munge, with a key and a socket of its own; --force, since it wants every parent folder to be o+x
(umask 077; head -c 128 /dev/urandom >"$BASE/etc/munge.key")
daemon munged munged --foreground --force --key-file="$BASE/etc/munge.key" --num-threads=2 \
  --socket="$BASE/run/munge.socket" --pid-file="$BASE/run/munged.pid" \
  --log-file="$BASE/log/munged.log" --seed-file="$BASE/run/munged.seed"
until_ok 10 munge -n -S "$BASE/run/munge.socket" || die "munged: $(tail -n 3 "$BASE/log/munged.out")"

# cred_expire: a job that is queued again waits for about so long; 120 s by default, 5 at least.
cat >"$BASE/etc/slurm.conf" <<CONF
ClusterName=ci
SlurmctldHost=$HOST(127.0.0.1)
SlurmctldPort=$PORT
SlurmUser=$ME
SlurmdUser=$ME
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
AuthType=auth/munge
AuthInfo=socket=$BASE/run/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation=$BASE/state
SlurmdSpoolDir=$BASE/spool/%n
SlurmctldPidFile=$BASE/run/slurmctld.pid
SlurmdPidFile=$BASE/run/slurmd.%n.pid
SlurmctldLogFile=$BASE/log/slurmctld.log
SlurmdLogFile=$BASE/log/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SwitchType=switch/none
MpiDefault=none
PropagateResourceLimits=NONE
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=256
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
ReturnToService=2
KillWait=1
MinJobAge=86400
MessageTimeout=30
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
AccountingStorageType=accounting_storage/none
GresTypes=gpu
NodeName=n[1-$NODES] NodeHostname=$HOST NodeAddr=127.0.0.1 Port=[$((PORT + 1))-$((PORT + NODES))] CPUs=$CPUS RealMemory=65536 Gres=gpu:$GPUS State=UNKNOWN
PartitionName=ci Nodes=ALL Default=YES MaxTime=INFINITE PriorityTier=1 PreemptMode=REQUEUE GraceTime=10 State=UP
PartitionName=urgent Nodes=ALL MaxTime=INFINITE PriorityTier=10 PreemptMode=OFF State=UP
CONF
# slurmd wants character devices; links will do.
for i in $(seq 0 $((GPUS - 1))); do ln -sf /dev/null "$BASE/dev/nvidia$i"; done
echo "NodeName=n[1-$NODES] Name=gpu File=$BASE/dev/nvidia[0-$((GPUS - 1))] AutoDetect=off" \
  >"$BASE/etc/gres.conf"

# Without accounting there is no sacct, which submitit needs.
cat >"$BASE/bin/sacct" <<'SH'
#!/bin/bash
ids=(); while (($#)); do [ "$1" = -j ] && { ids+=("$2"); shift; }; shift; done
echo "JobID|State|NodeList"
for j in "${ids[@]}"; do squeue --noheader --states=all --format='%i|%T|%N' --jobs="$j" 2>/dev/null; done
exit 0
SH
chmod +x "$BASE/bin/sacct"
export SLURM_CONF=$BASE/etc/slurm.conf
printf 'export SLURM_CONF=%s\nexport PATH=%s:$PATH\n' "$SLURM_CONF" "$BASE/bin" >"$BASE/env.sh"

daemon slurmctld slurmctld -D
until_ok 30 scontrol ping || die "slurmctld: $(tail -n 5 "$BASE/log/slurmctld.log")"
for i in $(seq "$NODES"); do daemon "slurmd.n$i" slurmd -D -N "n$i"; done
all_idle() { [ "$(sinfo -h -N -p ci -o '%T' | grep -cx idle)" -eq "$NODES" ]; }
until_ok 30 all_idle || die "nodes not idle: $(tail -n 5 "$BASE"/log/slurmd.*.log)"
